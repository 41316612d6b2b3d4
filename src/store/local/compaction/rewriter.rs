//! One segment is compacted: what is needed of it goes to the end of the log, then its file goes.

use std::cmp::Ordering;
use std::io;

use super::LOCK_POISONED;
use crate::digest::Digest;
use crate::message_store::Error;
use crate::store::local::group_commit::{Change, RelocatedRecord};
use crate::store::local::{Shared, quarantine};
use crate::store::log::{RecordHeader, RecordKind, RecordLocation, ScanItem};

/// What is moved at a time: bytes, and records.
const RELOCATE_BATCH: (u64, usize) = (4 << 20, 1 << 12);

/// Why a compaction ended early.
pub(super) enum CompactionError {
    /// The store is being closed.
    Closed,
    /// The segment is damaged: what is left of it may be all that is left of a message.
    Damaged,
    Failed(Error),
}

impl From<Error> for CompactionError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for CompactionError {
    fn from(error: io::Error) -> Self {
        Self::Failed(Error::io("cannot compact the log", error))
    }
}

/// Moves what is needed of a segment to the end of the log, and removes its file.
///
/// `quarantine_gaps`: also what is damaged, into quarantine. `stop`: whether the store is being closed.
pub(super) fn compact(
    core: &Shared,
    number: u32,
    quarantine_gaps: bool,
    stop: &dyn Fn() -> bool,
) -> Result<(), CompactionError> {
    let _turn = core.compactor.running.lock().expect(LOCK_POISONED);
    match number.cmp(&core.log.durable_end().segment) {
        Ordering::Less => {}
        Ordering::Equal => drop(core.submit(Change::RollSegment)?),
        Ordering::Greater => return Ok(()),
    }
    let others: Vec<_> = core.log.segment_ids().into_iter().filter(|other| *other != number).collect();
    let mut evacuation = SegmentRewriter { shared: core, batch: Vec::new(), bytes: 0, dropped_tombstones: Vec::new() };
    core.log.scan(number, |found| match found {
        _ if stop() => Err(CompactionError::Closed),
        ScanItem::Valid(header, position) => evacuation.add_record(header, position, &others),
        ScanItem::Corrupt(header, position) => match core.index.find(&header.digest)? {
            Some(known) if known == position => Err(CompactionError::Damaged),
            _ => Ok(()),
        },
        ScanItem::Gap(..) if !quarantine_gaps => Err(CompactionError::Damaged),
        ScanItem::Gap(offset, length) => Ok(quarantine_gap(core, number, offset, length)?),
    })?;
    evacuation.relocate_batch()?;
    let forgotten = evacuation.dropped_tombstones;
    let needed: u64 = forgotten.iter().map(|(_, position)| position.record_len()).sum();
    if core.index.wait_totals().live_bytes.get(&number).is_some_and(|live| *live > needed) {
        // The index knows messages in it that the scan did not find.
        return Err(CompactionError::Damaged);
    }
    core.index.checkpoint_past(number)?;
    core.log.delete_segment(number)?;
    // Only now: as long as the segment was there, it could have brought back what they remove.
    core.submit(Change::DropTombstones(forgotten))?;
    Ok(())
}

/// Records on their way to the end of the log.
struct SegmentRewriter<'a> {
    shared: &'a Shared,
    batch: Vec<RelocatedRecord>,
    bytes: u64,
    /// Removals that have nothing left to remove.
    dropped_tombstones: Vec<(Digest, RecordLocation)>,
}

impl SegmentRewriter<'_> {
    /// `others`: the segments that stay.
    fn add_record(
        &mut self,
        header: RecordHeader,
        position: RecordLocation,
        others: &[u32],
    ) -> Result<(), CompactionError> {
        if self.shared.index.find(&header.digest)? != Some(position) {
            return Ok(());
        }
        if header.kind == RecordKind::Tombstone && !others.iter().any(|other| *other <= header.len_or_bound) {
            self.dropped_tombstones.push((header.digest, position));
            return Ok(());
        }
        let stored = self.shared.read(&position)?.ok_or(CompactionError::Damaged)?;
        self.batch.push(RelocatedRecord { header, payload: stored, location: position });
        self.bytes += position.record_len();
        if self.bytes >= RELOCATE_BATCH.0 || self.batch.len() >= RELOCATE_BATCH.1 {
            self.relocate_batch()
        } else {
            Ok(())
        }
    }

    fn relocate_batch(&mut self) -> Result<(), CompactionError> {
        self.bytes = 0;
        self.shared.submit(Change::Relocate(std::mem::take(&mut self.batch)))?;
        Ok(())
    }
}

/// Keeps bytes that are no record: what they were can still be looked for.
fn quarantine_gap(core: &Shared, number: u32, offset: u64, length: u64) -> io::Result<()> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let bytes = core.log.read_range(number, offset, length)?.unwrap_or_default();
    quarantine::save(&core.path, &format!("{number:08}-{offset}.gap"), |file| file.write_all(&bytes)).map(drop)
}
