//! The token file: lines of name, scopes and the SHA-256 digest of a token. The tokens themselves are not stored. If a
//! changed file is invalid, the error is logged and the previous entries stay in use.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use subtle::{ConditionallySelectable, ConstantTimeEq};
use tracing::{info, warn};

use super::scopes::Scopes;
use crate::digest::Digest;
use crate::server::change_detector::ChangeDetector;

/// An entry of the token file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// Name of the token, chosen by the operator.
    pub name: String,
    /// Scopes that the token permits.
    pub scopes: Scopes,
    digest: Digest,
}

/// The error of an unreadable or invalid token file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: {cause}", file.display())]
    Unreadable {
        /// Path of the file.
        file: PathBuf,
        /// Error of the operating system.
        cause: io::Error,
    },
    /// A line is malformed.
    #[error("{}:{line}: {cause}", file.display())]
    InvalidLine {
        /// Path of the file.
        file: PathBuf,
        /// Line number, counted from 1.
        line: usize,
        /// Problem with the line.
        cause: String,
    },
}

/// A token file that is reloaded when it changes.
pub(in crate::server) struct TokenFile {
    path: PathBuf,
    entries: RwLock<Arc<Vec<TokenEntry>>>,
    change_detector: ChangeDetector<1>,
}

impl TokenEntry {
    /// Returns the line of the token file for a token with this digest.
    pub fn format_entry(name: &str, scopes: Scopes, digest: Digest) -> String {
        format!("{name} {scopes} {digest}\n")
    }
}

/// Parses the `text` of a token file. `file` is its path in errors.
pub fn parse(text: &str, file: &Path) -> Result<Vec<TokenEntry>, Error> {
    let mut entries: Vec<TokenEntry> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let invalid = |cause: String| Error::InvalidLine { file: file.to_owned(), line: index + 1, cause };
        let mut words = line.split_whitespace();
        let Some(name) = words.next().filter(|name| !name.starts_with('#')) else { continue };
        let (Some(scopes), Some(digest), None) = (words.next(), words.next(), words.next()) else {
            return Err(invalid(
                "expected a name, comma-separated scopes and the SHA-256 digest of a token".to_owned(),
            ));
        };
        let scopes = scopes.parse().map_err(|error| invalid(format!("{error}")))?;
        // The word is not quoted: it may be a token by mistake.
        let digest = digest.parse().map_err(|_| invalid("the third word is not a SHA-256 digest in hex".to_owned()))?;
        if entries.iter().any(|entry| entry.name == name) {
            return Err(invalid(format!("duplicate name `{name}`")));
        }
        entries.push(TokenEntry { name: name.to_owned(), scopes, digest });
    }
    Ok(entries)
}

impl TokenFile {
    /// Loads the file.
    pub(in crate::server) fn load(path: PathBuf) -> Result<Self, Error> {
        // Created before the file is read, so that a change in between is noticed.
        let change_detector = ChangeDetector::new([&path]);
        let entries = RwLock::new(Arc::new(read_entries(&path)?));
        Ok(Self { path, entries, change_detector })
    }

    /// Returns the entry with the digest of a token.
    ///
    /// All entries are compared, each in constant time, so that the duration does not depend on how close a guess is.
    pub(in crate::server) fn lookup(&self, token: Digest) -> Option<TokenEntry> {
        let entries = Arc::clone(&self.entries.read().unwrap_or_else(PoisonError::into_inner));
        let mut found = u64::MAX;
        for (index, entry) in (0..).zip(entries.iter()) {
            found.conditional_assign(&index, entry.digest.as_bytes().ct_eq(token.as_bytes()));
        }
        entries.get(usize::try_from(found).ok()?).cloned()
    }

    /// Reloads the file. On error, logs the cause and keeps the current entries.
    pub(in crate::server) fn reload(&self) {
        // Records the state of the file, so that `reload_if_changed` does not load it a second time.
        self.change_detector.has_changed([&self.path]);
        self.replace_entries();
    }

    /// Reloads the file if it changed since the last check.
    pub(in crate::server) fn reload_if_changed(&self) {
        if self.change_detector.has_changed([&self.path]) {
            self.replace_entries();
        }
    }

    fn replace_entries(&self) {
        match read_entries(&self.path) {
            Ok(new) => {
                info!("token file reloaded: {} tokens", new.len());
                *self.entries.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
            }
            Err(error) => warn!("cannot reload the token file: {error}; the previous tokens stay in use"),
        }
    }
}

fn read_entries(path: &Path) -> Result<Vec<TokenEntry>, Error> {
    let text = fs::read_to_string(path).map_err(|cause| Error::Unreadable { file: path.to_owned(), cause })?;
    parse(&text, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::auth::scopes::Scope;

    fn entry_line(name: &str, scopes: &str, token: &str) -> String {
        TokenEntry::format_entry(name, scopes.parse().unwrap(), Digest::compute(token.as_bytes()))
    }

    #[test]
    fn lookup_finds_only_the_entry_with_this_digest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let text =
            ["# comment\n\n", &entry_line("reader", "read", "r"), &entry_line("writer", "read,write", "w")].concat();
        fs::write(&path, text).unwrap();
        let token_file = TokenFile::load(path).unwrap();
        let found = token_file.lookup(Digest::compute(b"w")).unwrap();
        assert_eq!((found.name.as_str(), found.scopes.contains(Scope::Write)), ("writer", true));
        assert_eq!(token_file.lookup(Digest::compute(b"r")).unwrap().name, "reader");
        assert_eq!(token_file.lookup(Digest::compute(b"x")), None);
    }

    #[test]
    fn a_parse_error_has_the_line_number_and_never_quotes_the_token() {
        for (line, cause) in [
            ("x", "expected a name"),
            ("x read", "expected a name"),
            ("x read secret more", "expected a name"),
            ("x fly secret", "`fly` is not a scope"),
            ("x read secret", "the third word"),
            (&entry_line("a", "read", "1"), "duplicate name `a`"),
        ] {
            let error =
                parse(&[&entry_line("a", "read", "2"), "#\n", line].concat(), Path::new("f")).unwrap_err().to_string();
            assert!(error.starts_with("f:3: ") && error.contains(cause) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn reload_keeps_the_entries_if_the_file_is_invalid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, entry_line("a", "read", "1")).unwrap();
        let token_file = TokenFile::load(path.clone()).unwrap();
        fs::write(&path, "nonsense").unwrap();
        token_file.reload();
        assert!(token_file.lookup(Digest::compute(b"1")).is_some());
        fs::write(&path, entry_line("b", "read", "2")).unwrap();
        token_file.reload();
        assert!(
            token_file.lookup(Digest::compute(b"1")).is_none() && token_file.lookup(Digest::compute(b"2")).is_some()
        );
    }
}
