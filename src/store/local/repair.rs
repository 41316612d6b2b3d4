//! Puts out of the way what a verification found. Nothing is thrown away: what is corrupt stays in `quarantine/`.

use std::collections::BTreeSet;

use super::commit::Change;
use super::{Core, compact, quarantine};
use crate::digest::Digest;
use crate::messages::{Damage, Error};
use crate::store::Note;

/// See [`crate::messages::Messages::repair`].
pub fn repair(core: &Core, damage: &[Damage]) -> Result<(), Error> {
    for one in damage {
        if let Damage::Corrupt { digest } = one {
            take_out(core, *digest)?;
        }
    }
    let is_of_index = |one: &Damage| matches!(one, Damage::Lost { .. } | Damage::Unindexed { .. });
    if damage.iter().any(is_of_index) {
        core.index.renew()?;
    }
    let gaps = damage.iter().filter_map(|one| match one {
        Damage::Gap { segment, .. } => Some(*segment),
        _ => None,
    });
    let gaps: BTreeSet<_> = gaps.collect();
    let mut segments = core.log.numbers().into_iter().filter(|number| gaps.contains(number));
    segments.try_for_each(|number| compact::empty(core, number))
}

/// Moves a message that is corrupt, still, out of the store.
fn take_out(core: &Core, digest: Digest) -> Result<(), Error> {
    let Some(fetched) = core.fetch(&digest)? else { return Ok(()) };
    if fetched.message.is_some_and(|message| digest.names(&message)) {
        return Ok(());
    }
    let stored = core.read(&fetched.position)?.unwrap_or_default();
    let kept = quarantine::keep(&core.path, &format!("{digest}.corrupt"), |file| file.write_all(&stored));
    let path = kept.map_err(|why| Error::io(format!("cannot keep {digest} in quarantine"), why))?;
    core.carry_out(Change::Remove(vec![digest]))?;
    (core.notes)(Note::Said(format!("what was stored as {digest} is now in {}", path.display())));
    Ok(())
}
