//! `has`: are these digests stored?

use serde_json::json;

use super::{Context, Outcome, digests};
use crate::cli;

/// Prints the absent ones; with `--json` a line for each.
pub fn run(context: &mut Context, has: &cli::Has) -> anyhow::Result<Outcome> {
    let mut opened = None;
    let mut outcome = Outcome::Done;
    digests::each_batch(&has.digests, |texts| {
        let messages = context.open_once(&mut opened)?;
        let digests = texts.iter().map(|text| digests::whole(text)).collect::<Result<Vec<_>, _>>()?;
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
