//! `list`: the stored digests in ascending order.

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::context::Context;
use super::exit_status::ExitStatus;
use crate::cli;
use crate::digest::Prefix;
use crate::message_store::{Entry, ListQuery};

/// Number of entries per request to the store.
const PAGE_SIZE: usize = 1000;

/// Prints one line per entry.
pub fn run(context: &mut Context, list: &cli::List) -> anyhow::Result<ExitStatus> {
    let messages = context.open(false)?;
    let mut remaining = list.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut page = ListQuery { prefix: list.prefix.unwrap_or(Prefix::ALL), after: list.after, limit: PAGE_SIZE };
    while remaining > 0 {
        page.limit = PAGE_SIZE.min(remaining);
        let entries = messages.list(&page)?;
        let Some(final_entry) = entries.last() else { break };
        page.after = Some(final_entry.digest);
        remaining -= entries.len();
        for entry in &entries {
            print_entry(context, entry, list.long)?;
        }
    }
    Ok(ExitStatus::Success)
}

fn print_entry(context: &mut Context, entry: &Entry, long: bool) -> anyhow::Result<()> {
    let Entry { digest, length, stored_at } = entry;
    if !long {
        return Ok(context.output.print_line(digest.to_string().as_bytes(), &json!({ "digest": digest }))?);
    }
    let time = OffsetDateTime::from(*stored_at).format(&Rfc3339)?;
    let text = format!("{digest}  {length:>10}  {time}");
    Ok(context.output.print_line(text.as_bytes(), &json!({ "digest": digest, "length": length, "stored_at": time }))?)
}
