//! What names a database, and how that may be shown: without its password, with which it goes nowhere else.

/// Whether a text is meant as the URL of a database.
pub fn looks_like(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// A URL without its password and its parameters; any other text as it is.
pub fn redacted(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://").filter(|_| looks_like(text)) else { return text.to_owned() };
    let rest = rest.split('?').next().unwrap_or_default();
    // A password that is not escaped may hold an `@`, or a `/`.
    match rest.rsplit_once('@') {
        Some((who, place)) => format!("{scheme}://{}@{place}", who.split(':').next().unwrap_or_default()),
        None => format!("{scheme}://{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacted_urls_contain_no_password() {
        for (url, name) in [
            ("postgres://me:secret@host:1/db?password=secret", "postgres://me@host:1/db"),
            ("postgresql://me:se@cr/et@host/db", "postgresql://me@host/db"),
            ("postgres:///db?host=/run&password=secret", "postgres:///db"),
            ("postgres://host", "postgres://host"),
        ] {
            assert_eq!(redacted(url), name);
        }
    }
}
