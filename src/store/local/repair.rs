//! Puts out of the way what a verification found. Nothing is thrown away: what is corrupt stays in `quarantine/`.

use std::io;

use super::commit::Change;
use super::{Core, compact};
use crate::digest::Digest;
use crate::durable;
use crate::messages::{Damage, Error};
use crate::store::Note;

/// See [`crate::messages::Messages::repair`].
pub fn repair(core: &Core, damage: &[Damage]) -> Result<(), Error> {
    for one in damage {
        if let Damage::Corrupt { digest } = one {
            quarantine(core, *digest)?;
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
    let mut segments: Vec<_> = gaps.filter(|number| core.log.numbers().contains(number)).collect();
    segments.dedup();
    segments.into_iter().try_for_each(|number| compact::empty(core, number))
}

/// Moves a message that is corrupt, still, out of the store.
fn quarantine(core: &Core, digest: Digest) -> Result<(), Error> {
    let Some(fetched) = core.fetch(&digest)? else { return Ok(()) };
    if fetched.message.is_some_and(|message| digest.names(&message)) {
        return Ok(());
    }
    let dir = core.path.join("quarantine");
    let path = dir.join(format!("{digest}.corrupt"));
    let stored = core.read(&fetched.position)?.unwrap_or_default();
    let keep = || -> io::Result<()> {
        std::fs::create_dir_all(&dir)?;
        durable::write_whole(&path, 0o600, |file| file.write_all(&stored))?;
        durable::sync_dir(&core.path)
    };
    keep().map_err(|why| Error::io(format!("cannot write {}", path.display()), why))?;
    core.commits.carry_out(Change::Remove(vec![digest]))?;
    (core.notes)(Note::Said(format!("what was stored as {digest} is now in {}", path.display())));
    Ok(())
}
