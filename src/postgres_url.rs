//! URLs of PostgreSQL databases as text. They are printed without password and parameters.

/// Returns whether a text has the scheme of a database URL.
pub fn looks_like(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// Returns whether a text is a connection string of libpq with keys and values, such as `host=a dbname=b`.
pub fn is_key_value_string(text: &str) -> bool {
    const KEYS: [&str; 8] = ["dbname", "host", "hostaddr", "password", "port", "service", "sslmode", "user"];
    let Some((key, value)) = text.split_once('=') else { return false };
    let is_only_pair = !value.contains('=');
    // A path with one `=`, such as `host=a/b`, is a directory.
    KEYS.contains(&key.trim()) && !(is_only_pair && value.contains('/'))
}

/// Returns a database URL without its password and its parameters. Any other text is returned unchanged, except for the
/// values of a connection string.
pub fn redacted(text: &str) -> String {
    if is_key_value_string(text) {
        return "KEY=VALUE …".to_owned();
    }
    let Some((scheme, rest)) = text.split_once("://").filter(|_| looks_like(text)) else { return text.to_owned() };
    let base = rest.split('?').next().unwrap_or_default();
    // The last `@` counts, because an unescaped password may contain `@` or `/`.
    match base.rsplit_once('@') {
        Some((user_info, host)) => format!("{scheme}://{}@{host}", user_info.split(':').next().unwrap_or_default()),
        None => format!("{scheme}://{base}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacted_urls_contain_no_password() {
        for (url, expected) in [
            ("postgres://me:secret@host:1/db?password=secret", "postgres://me@host:1/db"),
            ("postgresql://me:se@cr/et@host/db", "postgresql://me@host/db"),
            ("postgres:///db?host=/run&password=secret", "postgres:///db"),
            ("postgres://host", "postgres://host"),
            ("host=a password=secret", "KEY=VALUE …"),
            ("/a/host=b", "/a/host=b"),
        ] {
            assert_eq!(redacted(url), expected);
        }
    }
}
