//! `copy`: what one store has and another has not is sent there. Broken off and begun again, it goes on.

use serde_json::json;

use super::{Context, ExitStatus, output};
use crate::cli;
use crate::digest::Prefix;
use crate::message_store::{Error, ListQuery, Stats};

/// Digests that are compared at a time.
const PAGE_SIZE: usize = 1000;
/// Bytes that are committed together at the most.
const BATCH_BYTES: usize = 4 << 20;

/// Says how much was sent.
pub fn run(context: &mut Context, copy: &cli::Copy) -> anyhow::Result<ExitStatus> {
    let (from, to) = (context.open_location(&copy.from.0, false)?, context.open_location(&copy.to.0, true)?);
    let Stats { messages: total, lost, .. } = from.stats()?;
    let (mut copied, mut bytes, mut known, mut outcome) = (0_u64, 0_u64, 0_u64, ExitStatus::Success);
    let mut page = ListQuery { prefix: Prefix::ALL, after: None, limit: PAGE_SIZE };
    loop {
        let entries = from.list(&page)?;
        let Some(last) = entries.last() else { break };
        page.after = Some(last.digest);
        let digests: Vec<_> = entries.iter().map(|entry| entry.digest).collect();
        let there = to.has(&digests)?;
        let missing: Vec<_> = digests.iter().zip(&there).filter(|(_, there)| !**there).map(|(one, _)| *one).collect();
        known += (digests.len() - missing.len()) as u64;
        let (mut group, mut size) = (Vec::new(), 0);
        for got in from.get(&missing) {
            match got {
                Ok(Some(message)) => {
                    copied += 1;
                    bytes += message.len() as u64;
                    size += message.len();
                    group.push(message);
                }
                // It was removed after it was listed.
                Ok(None) => {}
                Err(error @ (Error::Corrupt(_) | Error::Lost(_))) => {
                    output::print_notice(&error.to_string(), context.output.is_json());
                    outcome = ExitStatus::Reported(4);
                }
                Err(error) => return Err(error.into()),
            }
            if size >= BATCH_BYTES {
                to.put(std::mem::take(&mut group))?;
                size = 0;
            }
        }
        to.put(group)?;
        context.progress.show_count("copying", copied + known, total);
    }
    context.progress.clear();
    let text = format!("{copied} copied, {bytes} bytes; {known} were there");
    context.output.print_line(text.as_bytes(), &json!({ "copied": copied, "bytes": bytes, "known": known }))?;
    Ok(super::status_after_reading_all(context.output.is_json(), lost, outcome))
}
