//! Properties of `import` that hold for any input.

use std::io::Read;

use super::import::parse_line;
use super::records::Records;
use crate::digest::Digest;
use crate::json_message::JsonMessage;

/// Maximum length of a line, in bytes.
const FUZZ_LINE_LIMIT: u64 = 4096;

/// Splits `bytes` into lines and parses each as `import` does. Asserts that the lines do not depend on how the input is
/// split, and that an imported message is exported in a form that is imported again.
pub fn check_import(bytes: &[u8]) {
    let (lines, is_complete) = read_lines(bytes);
    assert_eq!(read_lines(OneByteReader(bytes)), (lines.clone(), is_complete));
    for line in lines {
        assert!(line.len() as u64 <= FUZZ_LINE_LIMIT);
        let Ok(message) = parse_line(&line) else { continue };
        let digest = Some(Digest::compute(&message));
        let exported = serde_json::to_vec(&JsonMessage::new(digest, &message)).expect("a message is serializable");
        assert_eq!(parse_line(&exported), Ok(message));
    }
}

/// Returns the lines before the end of the input or the first error, and whether there was no error.
fn read_lines(input: impl Read) -> (Vec<Vec<u8>>, bool) {
    let mut lines = Vec::new();
    for batch in Records::new(input, b'\n', FUZZ_LINE_LIMIT) {
        match batch {
            Ok(batch) => lines.extend(batch),
            Err(_) => return (lines, false),
        }
    }
    (lines, true)
}

/// A reader that returns one byte at a time.
struct OneByteReader<'a>(&'a [u8]);

impl Read for OneByteReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let length = buf.len().min(1);
        self.0.read(&mut buf[..length])
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn mutated_exports_are_imported_or_refused_line_by_line() {
        crate::testing::check_mutated_corpus("import", 5_000, super::check_import);
    }
}
