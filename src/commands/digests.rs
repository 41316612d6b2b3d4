//! Digests as input of commands: from the arguments, or from stdin, one per line.

use std::io::stdin;

use super::exit_status::UsageError;
use super::records::{Error, Records, read_ahead};
use crate::digest::Digest;

/// Maximum length in bytes of a line with a digest and surrounding spaces.
const MAX_LINE_BYTES: u64 = 128;

/// Calls `process` with batches of digests: once with all arguments, or with the lines of stdin as they arrive.
pub fn for_each_batch(
    arguments: &[String],
    mut process: impl FnMut(&[String]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if !arguments.is_empty() && arguments != ["-"] {
        return process(arguments);
    }
    let mut line_number = 0;
    for batch in read_ahead(Records::new(stdin(), b'\n', MAX_LINE_BYTES)) {
        let batch = match batch {
            Err(Error::TooLong { number, limit }) => {
                let reason = format!("line {number} of stdin is not a digest: it has more than {limit} bytes");
                return Err(UsageError(reason).into());
            }
            batch => batch?,
        };
        let mut digests = Vec::new();
        let mut invalid = None;
        for line in batch {
            line_number += 1;
            let text = String::from_utf8_lossy(&line).trim().to_owned();
            if text.is_empty() || text.len() > 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let reason = format!("line {line_number} of stdin is not a digest: `{}`", text.escape_debug());
                invalid = Some(UsageError(reason));
                break;
            }
            digests.push(text);
        }
        process(&digests)?;
        if let Some(error) = invalid {
            return Err(error.into());
        }
    }
    Ok(())
}

/// Parses a complete digest.
pub fn parse_digest(text: &str) -> Result<Digest, UsageError> {
    text.parse().map_err(|error| UsageError(format!("`{text}` is not a digest: {error}")))
}
