//! The token file: lines of `name scopes SHA-256-of-the-token`. A token itself is nowhere but with who holds it.
//! A file that is changed for the worse changes nothing: the rights stay as they were, and why is said.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::auth::Scopes;
use super::change_detector::ChangeDetector;
use super::warn;
use crate::digest::Digest;

/// Who holds a token, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// What the operator calls the token.
    pub name: String,
    /// What it permits.
    pub scopes: Scopes,
    digest: Digest,
}

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read.
    #[error("{}: {why}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// A line has another form than it should have.
    #[error("{}:{line}: {why}", file.display())]
    InvalidLine {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// A token file in use.
pub(super) struct TokenFile {
    path: PathBuf,
    entries: RwLock<Arc<Vec<TokenEntry>>>,
    change_detector: ChangeDetector<1>,
}

impl TokenEntry {
    /// The line that gives `scopes` to who has the token of this digest.
    pub fn format_entry(name: &str, scopes: Scopes, digest: Digest) -> String {
        format!("{name} {scopes} {digest}\n")
    }
}

/// The holders that a token file names. `file` is what errors call it.
pub fn parse(text: &str, file: &Path) -> Result<Vec<TokenEntry>, Error> {
    let mut holders: Vec<TokenEntry> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = |why: String| Error::InvalidLine { file: file.to_owned(), line: at + 1, why };
        let mut words = line.split_whitespace();
        let Some(name) = words.next().filter(|name| !name.starts_with('#')) else { continue };
        let (Some(scopes), Some(digest), None) = (words.next(), words.next(), words.next()) else {
            return Err(wrong("a line is a name, scopes with commas between, and the SHA-256 of a token".to_owned()));
        };
        let scopes = scopes.parse().map_err(|unknown| wrong(format!("{unknown}")))?;
        // What stands there may be a token by mistake, so it is not repeated.
        let digest = digest.parse().map_err(|_| wrong("the third word is no SHA-256 in hex".to_owned()))?;
        if holders.iter().any(|holder| holder.name == name) {
            return Err(wrong(format!("`{name}` is there already")));
        }
        holders.push(TokenEntry { name: name.to_owned(), scopes, digest });
    }
    Ok(holders)
}

impl TokenFile {
    /// Reads the file for the first time.
    pub(super) fn load(path: PathBuf) -> Result<Self, Error> {
        let watch = ChangeDetector::new([&path]);
        let holders = RwLock::new(Arc::new(read_entries(&path)?));
        Ok(Self { path, entries: holders, change_detector: watch })
    }

    /// Who holds the token of this digest.
    ///
    /// Every line is compared, each in constant time: how long it takes says nothing about how close a guess was.
    pub(super) fn lookup(&self, token: Digest) -> Option<TokenEntry> {
        let holders = Arc::clone(&self.entries.read().unwrap_or_else(PoisonError::into_inner));
        let mut found = u64::MAX;
        for (at, holder) in (0..).zip(holders.iter()) {
            found.conditional_assign(&at, holder.digest.as_bytes().ct_eq(token.as_bytes()));
        }
        holders.get(usize::try_from(found).ok()?).cloned()
    }

    /// Reads the file again, if it has changed or `always`. On an error, which is noted, nothing changes.
    pub(super) fn reload(&self, always: bool) {
        if !self.change_detector.has_changed([&self.path]) && !always {
            return;
        }
        match read_entries(&self.path) {
            Ok(new) => {
                warn(format_args!("the token file is read anew, {} tokens", new.len()));
                *self.entries.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
            }
            Err(error) => warn(format_args!("the tokens stay as they were: {error}")),
        }
    }
}

fn read_entries(path: &Path) -> Result<Vec<TokenEntry>, Error> {
    let text = fs::read_to_string(path).map_err(|why| Error::Unreadable { file: path.to_owned(), why })?;
    parse(&text, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::auth::Scope;

    fn entry_line(name: &str, scopes: &str, token: &str) -> String {
        TokenEntry::format_entry(name, scopes.parse().unwrap(), Digest::compute(token.as_bytes()))
    }

    #[test]
    fn lookup_finds_only_the_entry_with_this_digest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let text =
            ["# who may\n\n", &entry_line("reader", "read", "r"), &entry_line("writer", "read,write", "w")].concat();
        fs::write(&path, text).unwrap();
        let tokens = TokenFile::load(path).unwrap();
        let found = tokens.lookup(Digest::compute(b"w")).unwrap();
        assert_eq!((found.name.as_str(), found.scopes.contains(Scope::Write)), ("writer", true));
        assert_eq!(tokens.lookup(Digest::compute(b"r")).unwrap().name, "reader");
        assert_eq!(tokens.lookup(Digest::compute(b"x")), None);
    }

    #[test]
    fn a_parse_error_has_the_line_number_and_never_quotes_the_token() {
        for (bad, why) in [
            ("x", "a line is"),
            ("x read", "a line is"),
            ("x read secret more", "a line is"),
            ("x fly secret", "`fly` is no scope"),
            ("x read secret", "the third word"),
            (&entry_line("a", "read", "1"), "`a` is there already"),
        ] {
            let error =
                parse(&[&entry_line("a", "read", "2"), "#\n", bad].concat(), Path::new("f")).unwrap_err().to_string();
            assert!(error.starts_with("f:3: ") && error.contains(why) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn reload_keeps_the_entries_if_the_file_is_invalid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, entry_line("a", "read", "1")).unwrap();
        let tokens = TokenFile::load(path.clone()).unwrap();
        fs::write(&path, "nonsense").unwrap();
        tokens.reload(true);
        assert!(tokens.lookup(Digest::compute(b"1")).is_some());
        fs::write(&path, entry_line("b", "read", "2")).unwrap();
        tokens.reload(true);
        assert!(tokens.lookup(Digest::compute(b"1")).is_none() && tokens.lookup(Digest::compute(b"2")).is_some());
    }
}
