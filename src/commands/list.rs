//! `list`: what is stored, in the order of the digests.

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Context, Outcome};
use crate::cli;
use crate::digest::Prefix;
use crate::messages::{Entry, Page};

/// What is asked for at a time.
const PAGE: usize = 1000;

/// Prints a line an entry.
pub fn run(context: &mut Context, list: &cli::List) -> anyhow::Result<Outcome> {
    let messages = context.open(false)?;
    let mut left = list.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut page = Page { prefix: list.prefix.unwrap_or(Prefix::ALL), after: list.after, limit: PAGE };
    while left > 0 {
        page.limit = PAGE.min(left);
        let entries = messages.list(&page)?;
        let Some(end) = entries.last() else { break };
        page.after = Some(end.digest);
        left -= entries.len();
        for entry in &entries {
            print(context, entry, list.long)?;
        }
    }
    Ok(Outcome::Done)
}

fn print(context: &mut Context, entry: &Entry, long: bool) -> anyhow::Result<()> {
    let Entry { digest, length, stored_at } = entry;
    if !long {
        return Ok(context.output.line(digest.to_string().as_bytes(), &json!({ "digest": digest }))?);
    }
    let time = OffsetDateTime::from(*stored_at).format(&Rfc3339)?;
    let text = format!("{digest}  {length:>10}  {time}");
    Ok(context.output.line(text.as_bytes(), &json!({ "digest": digest, "length": length, "stored_at": time }))?)
}
