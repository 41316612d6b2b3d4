//! `verify`: reads and hashes all messages, prints each piece of damage, and repairs it with `--repair`.

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
    let (mut intact, mut bytes, mut damages) = (0, 0, Vec::new());
    let mut cursor = None;
    loop {
        let step = messages.verify(cursor.as_ref())?;
        intact += step.messages;
        bytes += step.bytes;
        for damage in &step.damage {
            print_damage(context, damage)?;
        }
        context.output.flush()?;
        damages.extend(step.damage);
        context.progress.show_bytes("verifying", step.done.min(step.total.saturating_sub(1)), Some(step.total));
        cursor = step.next;
        if cursor.is_none() {
            break;
        }
    }
    context.progress.clear();
    let repaired = if verify.repair { repair(context, &*messages, source.as_deref(), &damages)? } else { 0 };
    let object = json!({ "messages": intact, "bytes": bytes, "damaged": damages.len(), "mended": repaired });
    let summary = match (damages.len(), verify.repair) {
        (0, _) => String::new(),
        (count, false) => format!("; damaged: {count}"),
        (count, true) => format!("; damaged: {count}, repaired: {repaired}"),
    };
    let text = format!("{intact} messages, {bytes} bytes: intact{summary}");
    context.output.print_line(text.as_bytes(), &object)?;
    Ok(if repaired < damages.len() { ExitStatus::Reported(4) } else { ExitStatus::Success })
}

/// Stores damaged messages again if their bytes can be found, and lets the store repair the remaining damage. Returns
/// the number of pieces of damage that lost no message.
fn repair(
    context: &Context,
    messages: &dyn MessageStore,
    source: Option<&dyn MessageStore>,
    damages: &[Damage],
) -> anyhow::Result<usize> {
    let (mut repaired, mut remaining) = (0, Vec::new());
    for damage in damages {
        let message = match damage {
            Damage::Corrupt { digest } | Damage::Lost { digest } => find_intact(context, *digest, messages, source),
            Damage::Unindexed { .. } | Damage::Gap { .. } => None,
        };
        repaired += usize::from(message.is_some() || matches!(damage, Damage::Unindexed { .. }));
        match message {
            Some(message) => drop(messages.put(vec![message])?),
            None => remaining.push(damage.clone()),
        }
    }
    messages.repair(&remaining)?;
    Ok(repaired)
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
        Damage::Unindexed { digest } => format!("unindexed  {digest}"),
        Damage::Gap { segment, offset, length } => {
            format!("damaged    {length} bytes of segment {segment}, from offset {offset}")
        }
    };
    context.output.print_line(text.as_bytes(), damage)
}
