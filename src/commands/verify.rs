//! `verify`: reads and hashes all messages, prints each piece of damage, and repairs it with `--repair`.

use std::fmt::Write as _;

use serde_json::json;

use super::context::Context;
use super::exit_status::ExitStatus;
use crate::cli;
use crate::digest::Digest;
use crate::message_store::{Damage, MessageStore};

/// Verifies in steps, so that other requests to the store are served in between.
pub fn run(context: &mut Context, verify: &cli::Verify) -> anyhow::Result<ExitStatus> {
    let messages = context.open(false)?;
    let source = verify.from.as_ref().map(|from| context.open_location(&from.0, false)).transpose()?;
    let (mut intact, mut bytes, mut all) = (0, 0, Vec::new());
    let mut cursor = None;
    loop {
        let step = messages.verify(cursor.as_ref())?;
        intact += step.messages;
        bytes += step.bytes;
        for damage in &step.damage {
            print_damage(context, damage)?;
        }
        context.output.flush()?;
        all.extend(step.damage);
        context.progress.show_bytes("verifying", step.done.min(step.total.saturating_sub(1)), Some(step.total));
        cursor = step.next;
        if cursor.is_none() {
            break;
        }
    }
    context.progress.clear();
    let damaged = all.len();
    let left = if verify.repair { repair(context, &*messages, source.as_deref(), all)? } else { all };
    let repaired = damaged - left.len();
    let accepted = if verify.accept_loss { accept_loss(&*messages, &left)? } else { 0 };
    let mut object = json!({ "messages": intact, "bytes": bytes, "damaged": damaged, "repaired": repaired });
    let mut text = format!("{intact} messages, {bytes} bytes: intact");
    if damaged > 0 {
        write!(text, "; damaged: {damaged}")?;
    }
    if damaged > 0 && verify.repair {
        write!(text, ", repaired: {repaired}")?;
    }
    if verify.accept_loss {
        object["accepted"] = json!(accepted);
        write!(text, "; losses accepted: {accepted}")?;
    }
    context.output.print_line(text.as_bytes(), &object)?;
    Ok(if accepted < left.len() { ExitStatus::Reported(4) } else { ExitStatus::Success })
}

/// Makes the store forget the losses in `left`. Returns their number.
fn accept_loss(messages: &dyn MessageStore, left: &[Damage]) -> anyhow::Result<usize> {
    let is_loss = |damage: &&Damage| matches!(damage, Damage::Lost { .. } | Damage::LostUnknown { .. });
    let losses: Vec<_> = left.iter().filter(is_loss).cloned().collect();
    messages.accept_loss(&losses)?;
    Ok(losses.len())
}

/// Stores damaged messages again if their bytes can be found, and lets the store repair the remaining damage. Returns
/// the damage that is not repaired.
fn repair(
    context: &Context,
    messages: &dyn MessageStore,
    source: Option<&dyn MessageStore>,
    all: Vec<Damage>,
) -> anyhow::Result<Vec<Damage>> {
    let mut to_repair = Vec::new();
    for damage in all {
        let message = match &damage {
            Damage::Corrupt { digest } | Damage::Lost { digest } => find_intact(context, *digest, messages, source),
            Damage::Unindexed { .. } | Damage::Gap { .. } | Damage::LostUnknown { .. } => None,
        };
        match message {
            Some(message) => drop(messages.put(vec![message])?),
            None => to_repair.push(damage),
        }
    }
    messages.repair(&to_repair)?;
    to_repair.retain(|damage| !matches!(damage, Damage::Unindexed { .. }));
    Ok(to_repair)
}

/// Returns the bytes of a damaged message: from the store itself if only the record header is damaged, or else from
/// `source`.
fn find_intact(
    context: &Context,
    digest: Digest,
    messages: &dyn MessageStore,
    source: Option<&dyn MessageStore>,
) -> Option<Vec<u8>> {
    if let Ok(Some(message)) = messages.get_one(digest) {
        return Some(message);
    }
    match source?.get_one(digest) {
        Ok(Some(message)) => return Some(message),
        Ok(None) => context.progress.print_notice(&format!("cannot fetch {digest} from the other store: absent")),
        Err(error) => context.progress.print_notice(&format!("cannot fetch {digest} from the other store: {error}")),
    }
    None
}

fn print_damage(context: &mut Context, damage: &Damage) -> std::io::Result<()> {
    let text = match damage {
        Damage::Corrupt { digest } => format!("corrupt    {digest}"),
        Damage::Lost { digest } => format!("lost       {digest}"),
        Damage::LostUnknown { messages } => format!("lost       {messages} messages, digests unknown"),
        Damage::Unindexed { digest } => format!("unindexed  {digest}"),
        Damage::Gap { segment, offset, length } => {
            format!("damaged    {length} bytes of segment {segment}, from offset {offset}")
        }
    };
    context.output.print_line(text.as_bytes(), damage)
}
