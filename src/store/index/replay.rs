//! Brings a table up to date with the log, from its mark on; says what is damaged on the way.

use std::io;

use super::block::IndexEntry;
use super::lsm::LsmTree;
use super::sled_store::IndexError;
use super::write_buffer::is_deferrable;
use crate::digest::Digest;
use crate::store::log::{Log, LogEnd, LogPosition, RecordLocation, ScanItem};
use crate::store::{EventSink, StoreEvent};

/// Entries that are inserted at a time.
const INSERT_BATCH: usize = 1 << 14;
/// A shorter replay is over before anybody looks at a progress bar, in bytes.
const MIN_PROGRESS_BYTES: u64 = 64 << 20;

/// Why a replay ended early.
pub enum ReplayError {
    /// The log cannot be read.
    Log(io::Error),
    /// The table cannot be read or written.
    Index(IndexError),
}

impl From<io::Error> for ReplayError {
    fn from(error: io::Error) -> Self {
        Self::Log(error)
    }
}

impl From<IndexError> for ReplayError {
    fn from(damaged: IndexError) -> Self {
        Self::Index(damaged)
    }
}

/// What a replay found.
pub struct ReplayOutcome {
    /// So little that the table was spared it; then its mark is as it was.
    pub deferred: Vec<IndexEntry>,
    /// How the log ends.
    pub log_end: LogEnd,
}

/// Inserts what stands in the log between the table's mark and `until`, or its end; unless it is little and `allow_defer`
/// is set.
pub fn replay(
    table: &LsmTree,
    until: Option<LogPosition>,
    allow_defer: bool,
    log: &Log,
    notes: &EventSink,
) -> Result<ReplayOutcome, ReplayError> {
    let from = table.totals().position;
    let mut replay = Replayer { lsm: table, batch: Vec::new(), inserted: false };
    let total = log.bytes_after(from)?;
    let mut done = 0;
    let tail = log.replay(from, |segment, found| {
        let offset = match found {
            ScanItem::Valid(_, position) | ScanItem::Corrupt(_, position) => position.offset,
            ScanItem::Gap(offset, _) => offset,
        };
        if until.is_some_and(|until| LogPosition { segment, offset } >= until) {
            return Ok(());
        }
        match found {
            ScanItem::Valid(header, position) => {
                replay.add(header.digest, position)?;
                done += position.record_len();
            }
            ScanItem::Corrupt(header, position) => {
                notes(StoreEvent::Message(format!("{} is corrupt in the log (segment {segment}, offset {offset})", header.digest)));
                replay.add_if_absent(header.digest, position)?;
            }
            ScanItem::Gap(offset, length) => {
                notes(StoreEvent::Message(format!(
                    "{length} bytes of the log are damaged (segment {segment}, offset {offset}); what stood there is lost"
                )));
            }
        }
        if total > MIN_PROGRESS_BYTES && replay.batch.is_empty() {
            notes(StoreEvent::ReplayProgress { done, total });
        }
        Ok::<_, ReplayError>(())
    })?;
    let is_left = allow_defer && !replay.inserted && is_deferrable(replay.batch.iter().map(|(_, position)| position));
    if !is_left {
        replay.insert(until.unwrap_or(tail.position()))?;
    }
    // What was found is known from now on, and a put of what is known is acknowledged as it is.
    log.sync_from(from)?;
    if total > MIN_PROGRESS_BYTES {
        notes(StoreEvent::ReplayProgress { done: total, total });
    }
    Ok(ReplayOutcome { deferred: replay.batch, log_end: tail })
}

struct Replayer<'a> {
    lsm: &'a LsmTree,
    batch: Vec<IndexEntry>,
    inserted: bool,
}

impl Replayer<'_> {
    fn add(&mut self, digest: Digest, position: RecordLocation) -> Result<(), IndexError> {
        self.batch.push((digest, Some(position)));
        if self.batch.len() < INSERT_BATCH {
            return Ok(());
        }
        self.insert(position.end())?;
        self.lsm.maintain()
    }

    /// What is corrupt must be known, so that asking for it says so; but a whole copy is better.
    fn add_if_absent(&mut self, digest: Digest, position: RecordLocation) -> Result<(), IndexError> {
        self.insert(position.log_position())?;
        let known = self.lsm.get(&digest)?;
        if known.is_some_and(|known| known.is_message()) { Ok(()) } else { self.add(digest, position) }
    }

    /// Inserts what was gathered; now the table is complete up to `end`.
    fn insert(&mut self, end: LogPosition) -> Result<(), IndexError> {
        // A digest may stand in the log twice: the later record counts.
        self.batch.sort_by_key(|(digest, _)| *digest);
        self.lsm.insert(&self.batch, end)?;
        self.batch.clear();
        self.inserted = true;
        Ok(())
    }
}
