//! Puts out of the way what a verification found. Nothing is thrown away: what is corrupt stays in `quarantine/`.

use std::collections::BTreeSet;

use super::group_commit::Change;
use super::{Shared, compaction, quarantine};
use crate::digest::Digest;
use crate::message_store::{Damage, Error};
use crate::store::StoreEvent;

/// See [`crate::message_store::MessageStore::repair`].
pub fn repair(core: &Shared, damage: &[Damage]) -> Result<(), Error> {
    for one in damage {
        if let Damage::Corrupt { digest } = one {
            quarantine_message(core, *digest)?;
        }
    }
    let is_of_index = |one: &Damage| matches!(one, Damage::Lost { .. } | Damage::Unindexed { .. });
    if damage.iter().any(is_of_index) {
        core.index.rebuild()?;
    }
    let gaps = damage.iter().filter_map(|one| match one {
        Damage::Gap { segment, .. } => Some(*segment),
        _ => None,
    });
    let gaps: BTreeSet<_> = gaps.collect();
    let mut segments = core.log.segment_ids().into_iter().filter(|number| gaps.contains(number));
    segments.try_for_each(|number| compaction::evacuate(core, number))
}

/// Moves a message that is corrupt, still, out of the store.
fn quarantine_message(core: &Shared, digest: Digest) -> Result<(), Error> {
    let Some(fetched) = core.fetch(&digest)? else { return Ok(()) };
    if fetched.message.is_some_and(|message| digest.matches(&message)) {
        return Ok(());
    }
    let stored = core.read(&fetched.location)?.unwrap_or_default();
    let kept = quarantine::save(&core.path, &format!("{digest}.corrupt"), |file| file.write_all(&stored));
    let path = kept.map_err(|why| Error::io(format!("cannot keep {digest} in quarantine"), why))?;
    core.submit(Change::Remove(vec![digest]))?;
    (core.events)(StoreEvent::Message(format!("what was stored as {digest} is now in {}", path.display())));
    Ok(())
}
