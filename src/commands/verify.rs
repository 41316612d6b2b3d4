//! `verify`: everything is read and hashed again; what is wrong is printed and, if asked for, put right.

use std::fmt::Write as _;

use serde_json::json;

use super::{Context, ExitStatus};
use crate::cli;
use crate::digest::Digest;
use crate::message_store::{Damage, MessageStore};

/// Verifies step by step, so that it can be broken off and others get their turn.
pub fn run(context: &mut Context, verify: &cli::Verify) -> anyhow::Result<ExitStatus> {
    let messages = context.open(false)?;
    let source = verify.from.as_ref().map(|from| context.open_location(&from.0, false)).transpose()?;
    let (mut whole, mut bytes, mut all) = (0, 0, Vec::new());
    let mut from = None;
    loop {
        let step = messages.verify(from.as_ref())?;
        whole += step.messages;
        bytes += step.bytes;
        for damage in &step.damage {
            print_damage(context, damage)?;
        }
        context.output.flush()?;
        all.extend(step.damage);
        context.progress.show_bytes("verifying", step.done.min(step.total.saturating_sub(1)), Some(step.total));
        from = step.next;
        if from.is_none() {
            break;
        }
    }
    context.progress.clear();
    let damaged = all.len();
    let left = if verify.repair { repair(context, &*messages, source.as_deref(), all)? } else { all };
    let mended = damaged - left.len();
    let accepted = if verify.accept_loss { accept_loss(&*messages, &left)? } else { 0 };
    let mut object = json!({ "messages": whole, "bytes": bytes, "damaged": damaged, "mended": mended });
    let mut text = format!("{whole} messages, {bytes} bytes: whole");
    if damaged > 0 {
        write!(text, "; damaged: {damaged}")?;
    }
    if damaged > 0 && verify.repair {
        write!(text, ", of these mended: {mended}")?;
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

/// Stores the messages again that are available, and moves other damage to quarantine. Returns what is not mended.
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

/// A message that is damaged here: its bytes may be sound though its record is not, or another store has it.
fn find_intact(
    context: &Context,
    digest: Digest,
    here: &dyn MessageStore,
    there: Option<&dyn MessageStore>,
) -> Option<Vec<u8>> {
    if let Ok(Some(message)) = here.get_one(digest) {
        return Some(message);
    }
    match there?.get_one(digest) {
        Ok(Some(message)) => return Some(message),
        Ok(None) => context.progress.print_notice(&format!("{digest} is not there either")),
        Err(error) => context.progress.print_notice(&format!("{digest} is not to be had there: {error}")),
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
