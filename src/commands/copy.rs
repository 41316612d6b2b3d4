//! `copy`: sends the messages that one store has and another lacks. An interrupted copy can be repeated.

use serde_json::json;

use super::context::Context;
use super::exit_status::ExitStatus;
use super::{output, report};
use crate::cli;
use crate::digest::Prefix;
use crate::message_store::{Error, ListQuery, Stats};

/// Number of digests that are compared per request.
const PAGE_SIZE: usize = 1000;
/// Size in bytes at which a batch is full and is committed.
const BATCH_BYTES: usize = 4 << 20;

/// Copies the missing messages and prints a summary.
pub fn run(context: &mut Context, copy: &cli::Copy) -> anyhow::Result<ExitStatus> {
    let source = context.open_location(&copy.from.0, false)?;
    let destination = context.open_location(&copy.to.0, true)?;
    let Stats { messages: total, lost, .. } = source.stats()?;
    let (mut copied, mut bytes, mut known, mut status) = (0_u64, 0_u64, 0_u64, ExitStatus::Success);
    let mut page = ListQuery { prefix: Prefix::ALL, after: None, limit: PAGE_SIZE };
    loop {
        let entries = source.list(&page)?;
        let Some(last) = entries.last() else { break };
        page.after = Some(last.digest);
        let digests: Vec<_> = entries.iter().map(|entry| entry.digest).collect();
        let stored = destination.has(&digests)?;
        let missing: Vec<_> =
            digests.iter().zip(&stored).filter(|(_, stored)| !**stored).map(|(digest, _)| *digest).collect();
        known += (digests.len() - missing.len()) as u64;
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        for result in source.get(&missing) {
            match result {
                Ok(Some(message)) => {
                    copied += 1;
                    bytes += message.len() as u64;
                    batch_bytes += message.len();
                    batch.push(message);
                }
                // The message was removed after it was listed.
                Ok(None) => {}
                Err(error @ (Error::Corrupt(_) | Error::Lost(_))) => {
                    output::print_notice(&error.to_string(), context.output.is_json());
                    status = ExitStatus::Reported(4);
                }
                Err(error) => return Err(error.into()),
            }
            if batch_bytes >= BATCH_BYTES {
                destination.put(std::mem::take(&mut batch))?;
                batch_bytes = 0;
            }
        }
        destination.put(batch)?;
        context.progress.show_count("copying", copied + known, total);
    }
    context.progress.clear();
    let text = format!("{copied} copied, {bytes} bytes; {known} already stored");
    context.output.print_line(text.as_bytes(), &json!({ "copied": copied, "bytes": bytes, "known": known }))?;
    Ok(report::status_after_reading_all(lost, status, context.output.is_json()))
}
