//! `copy`: what one store has and another has not is sent there. Broken off and begun again, it goes on.

use serde_json::json;

use super::{Context, Outcome, output};
use crate::cli;
use crate::digest::Prefix;
use crate::messages::{Error, Page};

/// Digests that are compared at a time.
const PAGE: usize = 1000;
/// Bytes that are committed together at the most.
const GROUP: usize = 4 << 20;

/// Says how much was sent.
pub fn run(context: &mut Context, copy: &cli::Copy) -> anyhow::Result<Outcome> {
    let (from, to) = (context.open_at(&copy.from.0, false)?, context.open_at(&copy.to.0, true)?);
    let total = from.stats()?.messages;
    let (mut copied, mut bytes, mut known, mut outcome) = (0_u64, 0_u64, 0_u64, Outcome::Done);
    let mut page = Page { prefix: Prefix::ALL, after: None, limit: PAGE };
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
                Err(error @ Error::Corrupt(_)) => {
                    output::say(&error.to_string(), context.output.is_json());
                    outcome = Outcome::Reported(4);
                }
                Err(error) => return Err(error.into()),
            }
            if size >= GROUP {
                to.put(std::mem::take(&mut group))?;
                size = 0;
            }
        }
        to.put(group)?;
        context.progress.count("copying", copied + known, total);
    }
    context.progress.clear();
    let text = format!("{copied} copied, {bytes} bytes; {known} were there");
    context.output.line(text.as_bytes(), &json!({ "copied": copied, "bytes": bytes, "known": known }))?;
    Ok(outcome)
}
