//! The compaction of one segment: appends its live records to the log again, flushes the index past the segment, and
//! deletes the segment file, in this order.

use std::cmp::Ordering;
use std::io;

use crate::digest::Digest;
use crate::message_store::Error;
use crate::store::local::group_commit::{Change, RelocatedRecord};
use crate::store::local::quarantine;
use crate::store::local::shared::Shared;
use crate::store::log::{RecordHeader, RecordKind, RecordLocation, ScanItem};

/// Bytes of records after which a batch of relocated records is committed.
const RELOCATE_BATCH_BYTES: u64 = 4 << 20;
/// Records after which a batch of relocated records is committed.
const RELOCATE_BATCH_RECORDS: usize = 1 << 12;

/// Reason why a segment was not compacted.
pub(super) enum CompactionError {
    /// The store is being closed.
    Stopped,
    /// The segment is damaged. Its bytes may be all that is left of a message, so it must not be deleted.
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

/// Handling of bytes that are not a record.
#[derive(Debug, Clone, Copy)]
pub(super) enum GapPolicy {
    /// The segment is not compacted: [`CompactionError::Damaged`].
    Refuse,
    /// The bytes are copied to quarantine.
    Quarantine,
}

/// Appends the live records of a segment to the log again, and deletes the segment.
///
/// `must_stop` is called for each record.
pub(super) fn compact(
    shared: &Shared,
    number: u32,
    gap_policy: GapPolicy,
    must_stop: &dyn Fn() -> bool,
) -> Result<(), CompactionError> {
    let _running = shared.compactor.lock_running();
    match number.cmp(&shared.log.durable_end().segment) {
        Ordering::Less => {}
        Ordering::Equal => drop(shared.submit(Change::RollSegment)?),
        Ordering::Greater => return Ok(()),
    }
    let others: Vec<_> = shared.log.segment_ids().into_iter().filter(|other| *other != number).collect();
    let mut rewriter = SegmentRewriter { shared, batch: Vec::new(), bytes: 0, dropped_tombstones: Vec::new() };
    shared.log.scan(number, |item| match item {
        _ if must_stop() => Err(CompactionError::Stopped),
        ScanItem::Valid(header, location) => rewriter.add_record(header, location, &others),
        ScanItem::Corrupt(header, location) => match shared.index.find(&header.digest)? {
            Some(indexed) if indexed == location => Err(CompactionError::Damaged),
            _ => Ok(()),
        },
        ScanItem::Gap(offset, length) => match gap_policy {
            GapPolicy::Refuse => Err(CompactionError::Damaged),
            GapPolicy::Quarantine => Ok(quarantine_gap(shared, number, offset, length)?),
        },
    })?;
    rewriter.relocate_batch()?;
    let dropped_tombstones = rewriter.dropped_tombstones;
    let expected_live: u64 = dropped_tombstones.iter().map(|(_, location)| location.record_len()).sum();
    if shared.index.wait_totals().live_bytes.get(&number).is_some_and(|live| *live > expected_live) {
        // The index has records in this segment that the scan did not find.
        return Err(CompactionError::Damaged);
    }
    shared.index.checkpoint_past(number)?;
    shared.log.delete_segment(number)?;
    // The tombstones are dropped last: a replay of the segment could bring back the messages that they remove.
    shared.submit(Change::DropTombstones(dropped_tombstones))?;
    Ok(())
}

/// Live records of a segment on their way to the end of the log.
struct SegmentRewriter<'a> {
    shared: &'a Shared,
    batch: Vec<RelocatedRecord>,
    bytes: u64,
    /// Tombstones without an older segment that could contain the removed message.
    dropped_tombstones: Vec<(Digest, RecordLocation)>,
}

impl SegmentRewriter<'_> {
    /// Adds a record to the batch if it is live. `others` are the numbers of all other segments.
    fn add_record(
        &mut self,
        header: RecordHeader,
        location: RecordLocation,
        others: &[u32],
    ) -> Result<(), CompactionError> {
        if self.shared.index.find(&header.digest)? != Some(location) {
            return Ok(());
        }
        if let RecordKind::Tombstone { up_to_segment } = header.kind
            && !others.iter().any(|other| *other <= up_to_segment)
        {
            self.dropped_tombstones.push((header.digest, location));
            return Ok(());
        }
        let payload = self.shared.read(&location)?.ok_or(CompactionError::Damaged)?;
        self.batch.push(RelocatedRecord { header, payload, location });
        self.bytes += location.record_len();
        if self.bytes >= RELOCATE_BATCH_BYTES || self.batch.len() >= RELOCATE_BATCH_RECORDS {
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

fn quarantine_gap(shared: &Shared, number: u32, offset: u64, length: u64) -> io::Result<()> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let bytes = shared.log.read_range(number, offset, length)?.unwrap_or_default();
    quarantine::save(&shared.path, &format!("{number:08}-{offset}.gap"), |file| file.write_all(&bytes)).map(drop)
}
