//! Replays the log into the LSM tree, from the position in its totals on, and reports damage that it meets. Every
//! replayed record is durable afterwards.

use std::io;

use rustix::io::Errno;

use super::block::IndexEntry;
use super::error::IndexError;
use super::lsm::LsmTree;
use super::write_buffer::is_deferrable;
use crate::digest::Digest;
use crate::message_store::Error;
use crate::store::log::{Log, LogEnd, LogPosition, RecordLocation, ScanItem};
use crate::store::{EventSink, StoreEvent};

/// Number of entries that are inserted together.
const INSERT_BATCH: usize = 1 << 14;
/// Length of a replay in bytes up to which no progress is reported.
const MIN_PROGRESS_BYTES: u64 = 64 << 20;

/// Error that ended a replay.
pub enum ReplayError {
    /// Error of reading or syncing the log.
    Log(io::Error),
    /// Error of reading or writing the index.
    Index(IndexError),
    /// Error of recording losses.
    Losses(Error),
}

impl ReplayError {
    /// Returns whether the index is sound, so that the replay can succeed when it is tried again.
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Log(error) => Errno::from_io_error(error).is_some_and(|errno| IndexError::from(errno).is_shortage()),
            Self::Index(error) => error.is_shortage(),
            Self::Losses(_) => true,
        }
    }
}

impl From<io::Error> for ReplayError {
    fn from(error: io::Error) -> Self {
        Self::Log(error)
    }
}

impl From<Error> for ReplayError {
    fn from(error: Error) -> Self {
        Self::Losses(error)
    }
}

impl From<IndexError> for ReplayError {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

/// Result of a replay.
pub struct ReplayOutcome {
    /// Entries that were not inserted because there are few of them. The position in the totals is then unchanged.
    pub deferred: Vec<IndexEntry>,
    pub log_end: LogEnd,
}

/// Choice for a replay that finds only a few messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FewMessages {
    /// Insert them.
    Insert,
    /// Return them as deferred.
    Defer,
}

/// Inserts the records between the position in the tree's totals and `until` (`None`: the end of the log).
pub fn replay(
    lsm: &LsmTree,
    until: Option<LogPosition>,
    few: FewMessages,
    log: &Log,
    events: &EventSink,
) -> Result<ReplayOutcome, ReplayError> {
    let from = lsm.totals().position;
    let mut replayer = Replayer { lsm, batch: Vec::new(), inserted: false };
    let total = log.bytes_after(from)?;
    let mut done = 0;
    let log_end = log.replay(from, |segment, item| {
        let offset = match item {
            ScanItem::Valid(_, location) | ScanItem::Corrupt(_, location) => location.offset,
            ScanItem::Gap(offset, _) => offset,
        };
        if until.is_some_and(|until| LogPosition { segment, offset } >= until) {
            return Ok(());
        }
        match item {
            ScanItem::Valid(header, location) => {
                replayer.add(header.digest, location)?;
                done += location.record_len();
            }
            ScanItem::Corrupt(header, location) => {
                let digest = header.digest;
                events(StoreEvent::Warning(format!(
                    "{digest} is corrupt in the log (segment {segment}, offset {offset})"
                )));
                replayer.add_if_absent(digest, location)?;
            }
            ScanItem::Gap(offset, length) => {
                events(StoreEvent::Warning(format!(
                    "{length} bytes of the log are damaged (segment {segment}, offset {offset}); any messages in them are lost"
                )));
            }
        }
        if total > MIN_PROGRESS_BYTES && replayer.batch.is_empty() {
            events(StoreEvent::ReplayProgress { done, total });
        }
        Ok::<_, ReplayError>(())
    })?;
    let slots = replayer.batch.iter().map(|(_, slot)| slot);
    let is_deferred = few == FewMessages::Defer && !replayer.inserted && is_deferrable(slots);
    if !is_deferred {
        replayer.insert(until.unwrap_or(log_end.position()))?;
    }
    // A put of an indexed message is acknowledged without a write, so its record must be durable from now on.
    log.sync_from(from)?;
    if total > MIN_PROGRESS_BYTES {
        events(StoreEvent::ReplayProgress { done: total, total });
    }
    Ok(ReplayOutcome { deferred: replayer.batch, log_end })
}

struct Replayer<'a> {
    lsm: &'a LsmTree,
    batch: Vec<IndexEntry>,
    inserted: bool,
}

impl Replayer<'_> {
    fn add(&mut self, digest: Digest, location: RecordLocation) -> Result<(), IndexError> {
        self.batch.push((digest, Some(location)));
        if self.batch.len() < INSERT_BATCH {
            return Ok(());
        }
        self.insert(location.end())?;
        self.lsm.maintain()
    }

    /// Adds a corrupt record unless the index has a message for its digest. With the entry, a `get` reports the
    /// damage instead of an absent message.
    fn add_if_absent(&mut self, digest: Digest, location: RecordLocation) -> Result<(), IndexError> {
        self.insert(location.log_position())?;
        let slot = self.lsm.get(&digest)?;
        if slot.is_some_and(|existing| existing.is_message()) { Ok(()) } else { self.add(digest, location) }
    }

    /// Inserts the batch. Afterwards the tree is complete up to `end`.
    fn insert(&mut self, end: LogPosition) -> Result<(), IndexError> {
        // The sort is stable, so the last record of a digest stays the last one.
        self.batch.sort_by_key(|(digest, _)| *digest);
        self.lsm.insert(&self.batch, end)?;
        self.batch.clear();
        self.inserted = true;
        Ok(())
    }
}
