//! `verify`: everything is read and hashed again; what is wrong is printed and, if asked for, put right.

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
    let mended = if verify.repair { repair(context, &*messages, source.as_deref(), &all)? } else { 0 };
    let object = json!({ "messages": whole, "bytes": bytes, "damaged": all.len(), "mended": mended });
    let damaged = match (all.len(), verify.repair) {
        (0, _) => String::new(),
        (damaged, false) => format!("; damaged: {damaged}"),
        (damaged, true) => format!("; damaged: {damaged}, of these mended: {mended}"),
    };
    let text = format!("{whole} messages, {bytes} bytes: whole{damaged}");
    context.output.print_line(text.as_bytes(), &object)?;
    Ok(if mended < all.len() { ExitStatus::Reported(4) } else { ExitStatus::Success })
}

/// Stores again what is to be had, and puts the rest out of the way; answers how much is as it was.
fn repair(
    context: &Context,
    messages: &dyn MessageStore,
    source: Option<&dyn MessageStore>,
    all: &[Damage],
) -> anyhow::Result<usize> {
    let (mut mended, mut left) = (0, Vec::new());
    for damage in all {
        let message = match damage {
            Damage::Corrupt { digest } | Damage::Lost { digest } => find_intact(context, *digest, messages, source),
            Damage::Unindexed { .. } | Damage::Gap { .. } => None,
        };
        mended += usize::from(message.is_some() || matches!(damage, Damage::Unindexed { .. }));
        match message {
            Some(message) => drop(messages.put(vec![message])?),
            None => left.push(damage.clone()),
        }
    }
    messages.repair(&left)?;
    Ok(mended)
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
        Damage::Unindexed { digest } => format!("unindexed  {digest}"),
        Damage::Gap { segment, offset, length } => {
            format!("damaged    {length} bytes of segment {segment}, from offset {offset}")
        }
    };
    context.output.print_line(text.as_bytes(), damage)
}
