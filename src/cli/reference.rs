//! Sections of the reference that belong to no option: exit status, environment, files and examples.
//! `--help` and the manual page are made from the same entries.

/// A heading and its entries, each a term and its meaning.
#[derive(Debug)]
pub struct Section {
    pub heading: &'static str,
    pub entries: &'static [(&'static str, &'static str)],
}

pub const EXIT_STATUS: Section = Section {
    heading: "Exit status",
    entries: &[
        ("0", "Done"),
        ("1", "Absent: a digest is not stored"),
        ("2", "Usage: unknown option, malformed digest, error in the settings file"),
        ("3", "I/O, network or store: disk full, store locked, server unreachable"),
        ("4", "Corrupt or lost: stored bytes do not hash to their digest, or are missing"),
        ("5", "Not permitted: the token lacks a scope, or the server refuses"),
    ],
};

pub const ENVIRONMENT: Section = Section {
    heading: "Environment",
    entries: &[
        ("SHA_API_TOKEN", "Access token for servers. There is no option for it, because arguments are public."),
        ("SHA_API_<OPTION>", "Value of an option, e.g. SHA_API_LOCK_TIMEOUT for --lock-timeout. Options override it."),
        ("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY", "Proxies for connections to servers"),
        ("XDG_DATA_HOME, XDG_CONFIG_HOME", "Base directories [default: ~/.local/share and ~/.config]"),
    ],
};

pub const FILES: Section = Section {
    heading: "Files",
    entries: &[
        ("$XDG_DATA_HOME/sha-api", "Default store"),
        (
            "$XDG_CONFIG_HOME/sha-api/config.toml",
            "Settings, overridden by options and variables. Keys: long options without dashes; `token`.",
        ),
    ],
};

pub const EXAMPLES: Section = Section {
    heading: "Examples",
    entries: &[
        ("sha-api put \"foo\"", "Store a message and print its digest"),
        ("sha-api get 2c26b46b", "Print the message whose digest begins with 2c26b46b"),
        ("seq 1000 | sha-api put --lines > digests", "Store each line of stdin as one message"),
        ("sha-api get --lines - < digests", "Print the messages of these digests, one per line"),
        ("sha-api copy ~/.local/share/sha-api /backup", "Update a backup of the default store"),
        ("sha-api serve --http --listen 127.0.0.1:8080", "Serve the store over plain HTTP"),
        ("sha-api list --server http://127.0.0.1:8080", "List the digests of a server"),
    ],
};

/// Returns the text below `-h`.
pub fn short_help() -> String {
    [columns(&EXAMPLES), columns(&EXIT_STATUS)].join("\n\n")
}

/// Returns the text below `--help`.
pub fn long_help() -> String {
    [columns(&EXIT_STATUS), paragraphs(&ENVIRONMENT), paragraphs(&FILES), columns(&EXAMPLES)].join("\n\n")
}

fn columns(section: &Section) -> String {
    let width = section.entries.iter().map(|(term, _)| term.len()).max().unwrap_or_default();
    let lines = section.entries.iter().map(|(term, meaning)| format!("\n  {term:width$}  {meaning}"));
    format!("{}:{}", section.heading, lines.collect::<String>())
}

fn paragraphs(section: &Section) -> String {
    let lines = section.entries.iter().map(|(term, meaning)| format!("\n  {term}\n          {meaning}"));
    format!("{}:{}", section.heading, lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wrapped_in_a_terminal_of_100_columns() {
        for line in [short_help(), long_help()].concat().lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
