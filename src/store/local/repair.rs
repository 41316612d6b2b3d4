//! The repair of damage that a verification found. Damaged bytes are never deleted, but moved to `quarantine/`.

use std::collections::BTreeSet;

use super::group_commit::Change;
use super::shared::Shared;
use super::{compaction, quarantine};
use crate::digest::Digest;
use crate::message_store::{Damage, Error};
use crate::store::StoreEvent;

/// See [`crate::message_store::MessageStore::repair`].
pub fn repair(shared: &Shared, damage: &[Damage]) -> Result<(), Error> {
    for item in damage {
        if let Damage::Corrupt { digest } = item {
            quarantine_message(shared, *digest)?;
        }
    }
    rebuild_index_if_needed(shared, damage)?;
    let segments_with_gaps = damage.iter().filter_map(|item| match item {
        Damage::Gap { segment, .. } => Some(*segment),
        _ => None,
    });
    let segments_with_gaps: BTreeSet<_> = segments_with_gaps.collect();
    let mut segments = shared.log.segment_ids().into_iter().filter(|number| segments_with_gaps.contains(number));
    segments.try_for_each(|number| compaction::evacuate(shared, number))
}

/// See [`crate::message_store::MessageStore::accept_loss`].
pub fn accept_loss(shared: &Shared, losses: &[Damage]) -> Result<(), Error> {
    let is_lost = |item: &&Damage| matches!(item, Damage::Lost { .. } | Damage::LostUnknown { .. });
    let losses: Vec<_> = losses.iter().filter(is_lost).cloned().collect();
    rebuild_index_if_needed(shared, &losses)?;
    shared.losses.accept(&losses)
}

/// Rebuilds the index if it does not match the log. A lost message that is not in the index does not need that.
fn rebuild_index_if_needed(shared: &Shared, damage: &[Damage]) -> Result<(), Error> {
    for item in damage {
        let needs_rebuild = match item {
            Damage::Lost { digest } => shared.index.get(digest)?.is_some(),
            Damage::Unindexed { .. } => true,
            Damage::Corrupt { .. } | Damage::LostUnknown { .. } | Damage::Gap { .. } => false,
        };
        if needs_rebuild {
            return shared.index.rebuild();
        }
    }
    Ok(())
}

/// Moves a message to quarantine, unless it was stored again since it was found to be corrupt.
fn quarantine_message(shared: &Shared, digest: Digest) -> Result<(), Error> {
    let Some(stored) = shared.fetch(&digest)? else { return Ok(()) };
    if stored.message.is_some_and(|message| digest.matches(&message)) {
        return Ok(());
    }
    let payload = shared.read(&stored.location)?.unwrap_or_default();
    let path = quarantine::save(&shared.path, &format!("{digest}.corrupt"), |file| file.write_all(&payload))
        .map_err(|cause| Error::io(format!("cannot move {digest} to quarantine"), cause))?;
    if shared.submit(Change::RemoveCopy(digest, stored.location))? != [true] {
        return Ok(());
    }
    (shared.events)(StoreEvent::Message(format!("moved the corrupt message {digest} to {}", path.display())));
    Ok(())
}
