//! `rm`: digests come in, their messages go. Only whole digests: what is removed should have been meant.

use serde_json::json;

use super::{Context, Outcome, digests, output};
use crate::cli;

/// Removes what the arguments name; says what was absent.
pub fn run(context: &mut Context, rm: &cli::Rm) -> anyhow::Result<Outcome> {
    let mut opened = None;
    let mut outcome = Outcome::Done;
    digests::each_batch(&rm.digests, |texts| {
        let digests = texts.iter().map(|text| digests::whole(text)).collect::<Result<Vec<_>, _>>()?;
        let messages = context.open_once(&mut opened)?;
        for (digest, removed) in digests.iter().zip(messages.remove(&digests)?) {
            if !removed {
                outcome = Outcome::Absent;
                output::say(&format!("absent: {digest}"), context.output.is_json());
            }
            if context.output.is_json() {
                context.output.object(&json!({ "digest": digest, "removed": removed }))?;
            }
        }
        Ok(context.output.flush()?)
    })?;
    Ok(outcome)
}
