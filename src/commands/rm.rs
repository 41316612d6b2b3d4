//! `rm`: removes messages. It accepts only complete digests, because a mistyped prefix could remove another message.

use serde_json::json;

use super::context::Context;
use super::exit_status::ExitStatus;
use super::{digests, output};
use crate::cli;

/// Removes the messages of the given digests and reports the absent ones.
pub fn run(context: &mut Context, rm: &cli::Rm) -> anyhow::Result<ExitStatus> {
    let mut opened = None;
    let mut status = ExitStatus::Success;
    digests::for_each_batch(&rm.digests, |texts| {
        let digests = texts.iter().map(|text| digests::parse_digest(text)).collect::<Result<Vec<_>, _>>()?;
        let messages = context.get_or_open(&mut opened)?;
        for (digest, removed) in digests.iter().zip(messages.remove(&digests)?) {
            if !removed {
                status = ExitStatus::Absent;
                output::print_notice(&format!("absent: {digest}"), context.output.is_json());
            }
            if context.output.is_json() {
                context.output.print_json(&json!({ "digest": digest, "removed": removed }))?;
            }
        }
        Ok(context.output.flush()?)
    })?;
    Ok(status)
}
