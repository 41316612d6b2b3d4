//! One segment is compacted: what is needed of it goes to the end of the log, then its file goes.

use std::cmp::Ordering;
use std::io;

use super::UNBROKEN;
use crate::digest::Digest;
use crate::messages::Error;
use crate::store::local::commit::{Change, Moved};
use crate::store::local::{Core, quarantine};
use crate::store::log::{Found, Header, Kind, Position};

/// What is moved at a time: bytes, and records.
const BATCH: (u64, usize) = (4 << 20, 1 << 12);

/// Why a compaction ended early.
pub(super) enum Stopped {
    /// The store is being closed.
    Closed,
    /// The segment is damaged: what is left of it may be all that is left of a message.
    Damaged,
    Failed(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Failed(Error::io("cannot compact the log", error))
    }
}

/// Moves what is needed of a segment to the end of the log, and removes its file.
///
/// `with_damage`: also what is damaged, into quarantine. `stop`: whether the store is being closed.
pub(super) fn compact(core: &Core, number: u32, with_damage: bool, stop: &dyn Fn() -> bool) -> Result<(), Stopped> {
    let _turn = core.compactions.turn.lock().expect(UNBROKEN);
    match number.cmp(&core.log.end().segment) {
        Ordering::Less => {}
        Ordering::Equal => drop(core.carry_out(Change::BeginSegment)?),
        Ordering::Greater => return Ok(()),
    }
    let others: Vec<_> = core.log.numbers().into_iter().filter(|other| *other != number).collect();
    let mut evacuation = Evacuation { core, batch: Vec::new(), bytes: 0, forgotten: Vec::new() };
    core.log.scan(number, |found| match found {
        _ if stop() => Err(Stopped::Closed),
        Found::Whole(header, position) => evacuation.take(header, position, &others),
        Found::Corrupt(header, position) => match core.index.find(&header.digest)? {
            Some(known) if known == position => Err(Stopped::Damaged),
            _ => Ok(()),
        },
        Found::Gap(..) if !with_damage => Err(Stopped::Damaged),
        Found::Gap(offset, length) => Ok(keep_gap(core, number, offset, length)?),
    })?;
    evacuation.move_batch()?;
    let forgotten = evacuation.forgotten;
    let needed: u64 = forgotten.iter().map(|(_, position)| position.size()).sum();
    if core.index.totals().live.get(&number).is_some_and(|live| *live > needed) {
        // The index knows messages in it that the scan did not find.
        return Err(Stopped::Damaged);
    }
    core.index.leave(number)?;
    core.log.remove(number)?;
    // Only now: as long as the segment was there, it could have brought back what they remove.
    core.carry_out(Change::Forget(forgotten))?;
    Ok(())
}

/// Records on their way to the end of the log.
struct Evacuation<'a> {
    core: &'a Core,
    batch: Vec<Moved>,
    bytes: u64,
    /// Removals that have nothing left to remove.
    forgotten: Vec<(Digest, Position)>,
}

impl Evacuation<'_> {
    /// `others`: the segments that stay.
    fn take(&mut self, header: Header, position: Position, others: &[u32]) -> Result<(), Stopped> {
        if self.core.index.find(&header.digest)? != Some(position) {
            return Ok(());
        }
        if header.kind == Kind::Removal && !others.iter().any(|other| *other <= header.number) {
            self.forgotten.push((header.digest, position));
            return Ok(());
        }
        let stored = self.core.read(&position)?.ok_or(Stopped::Damaged)?;
        self.batch.push(Moved { header, stored, position });
        self.bytes += position.size();
        if self.bytes >= BATCH.0 || self.batch.len() >= BATCH.1 { self.move_batch() } else { Ok(()) }
    }

    fn move_batch(&mut self) -> Result<(), Stopped> {
        self.bytes = 0;
        self.core.carry_out(Change::Move(std::mem::take(&mut self.batch)))?;
        Ok(())
    }
}

/// Keeps bytes that are no record: what they were can still be looked for.
fn keep_gap(core: &Core, number: u32, offset: u64, length: u64) -> io::Result<()> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let bytes = core.log.bytes(number, offset, length)?.unwrap_or_default();
    quarantine::keep(&core.path, &format!("{number:08}-{offset}.gap"), |file| file.write_all(&bytes)).map(drop)
}
