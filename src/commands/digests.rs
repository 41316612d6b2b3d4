//! Digests as commands take them: as arguments, or from stdin, one a line.

use std::io::stdin;

use anyhow::Context as _;

use super::UsageError;
use super::records::{Records, read_ahead};
use crate::digest::Digest;

/// The longest line that can hold a digest and some space around it.
const MAX_LINE_BYTES: u64 = 128;

/// Calls `work` with the digests in batches: all arguments at once, or what stdin has by now.
pub fn for_each_batch(digests: &[String], mut work: impl FnMut(&[String]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    if !digests.is_empty() && digests != ["-"] {
        return work(digests);
    }
    let mut line = 0;
    for batch in read_ahead(Records::new(stdin(), b'\n', MAX_LINE_BYTES)) {
        let mut texts = Vec::new();
        let mut bad = None;
        for record in batch.context("a digest has 64 hex digits")? {
            line += 1;
            let text = String::from_utf8_lossy(&record).trim().to_owned();
            if text.is_empty() || text.len() > 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                bad = Some(UsageError(format!("line {line} of stdin is no digest: `{}`", text.escape_debug())));
                break;
            }
            texts.push(text);
        }
        work(&texts)?;
        if let Some(bad) = bad {
            return Err(bad.into());
        }
    }
    Ok(())
}

/// A digest that is given in full.
pub fn parse_digest(text: &str) -> Result<Digest, UsageError> {
    text.parse().map_err(|why| UsageError(format!("`{text}` is no digest: {why}")))
}
