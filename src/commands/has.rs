//! `has`: are these digests stored?

use serde_json::json;

use super::{Context, Outcome, Usage, digests};
use crate::cli;
use crate::digest::Digest;

/// Prints the absent ones; with `--json` a line for each.
pub fn run(context: &mut Context, has: &cli::Has) -> anyhow::Result<Outcome> {
    let messages = context.open(false)?;
    let mut outcome = Outcome::Done;
    digests::each_batch(&has.digests, |texts| {
        let digests = texts.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
        for (digest, stored) in digests.iter().zip(messages.has(&digests)?) {
            if !stored {
                outcome = Outcome::Absent;
            }
            if !context.global.quiet && (context.output.is_json() || !stored) {
                context.output.line(digest.to_string().as_bytes(), &json!({ "digest": digest, "stored": stored }))?;
            }
        }
        Ok(context.output.flush()?)
    })?;
    Ok(outcome)
}

fn parse(text: &str) -> Result<Digest, Usage> {
    text.parse().map_err(|why| Usage(format!("`{text}` is no digest: {why}")))
}
