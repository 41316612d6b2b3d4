//! Properties of the token file that hold for any input.

use std::path::Path;

use super::auth::Scopes;
use super::token_file::{Error, parse};

/// Parses `bytes` as a token file. Asserts that names are unique words, that scopes can be parsed again, and that an
/// error names a line of the file.
pub fn check_token_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match parse(text, Path::new("tokens")) {
        Ok(entries) => {
            for (index, entry) in entries.iter().enumerate() {
                assert!(!entry.name.is_empty() && !entry.name.contains(char::is_whitespace));
                assert!(entries[..index].iter().all(|other| other.name != entry.name));
                assert_eq!(entry.scopes.to_string().parse::<Scopes>().as_ref(), Ok(&entry.scopes));
            }
        }
        Err(Error::InvalidLine { line, .. }) => assert!((1..=text.lines().count()).contains(&line)),
        Err(error @ Error::Unreadable { .. }) => panic!("no file is read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn mutated_token_files_are_parsed_or_refused() {
        crate::testing::check_mutated_corpus("token_file", 5_000, super::check_token_file);
    }
}
