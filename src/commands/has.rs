//! `has`: checks whether digests are stored.

use serde_json::json;

use super::context::Context;
use super::digests;
use super::exit_status::ExitStatus;
use crate::cli;

/// Prints the absent digests; with `--json`, an object for each digest.
pub fn run(context: &mut Context, has: &cli::Has) -> anyhow::Result<ExitStatus> {
    let mut opened = None;
    let mut status = ExitStatus::Success;
    digests::for_each_batch(&has.digests, |texts| {
        let messages = context.get_or_open(&mut opened)?;
        let digests = texts.iter().map(|text| digests::parse_digest(text)).collect::<Result<Vec<_>, _>>()?;
        for (digest, stored) in digests.iter().zip(messages.has(&digests)?) {
            if !stored {
                status = ExitStatus::Absent;
            }
            if !context.global.output.quiet && (context.output.is_json() || !stored) {
                context
                    .output
                    .print_line(digest.to_string().as_bytes(), &json!({ "digest": digest, "stored": stored }))?;
            }
        }
        Ok(context.output.flush()?)
    })?;
    Ok(status)
}
