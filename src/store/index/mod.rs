//! The index finds a digest in the log. It is expendable: an index that is missing, outdated or damaged is brought up to
//! date or rebuilt from the log. Callers that need it wait meanwhile.

mod block;
mod bloom;
mod error;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod lsm;
mod manifest;
mod merge_iter;
mod page_store;
mod panics;
mod recovery;
mod replay;
mod sled_guard;
mod sled_store;
mod sorted_run;
mod totals;
mod value;
mod write_buffer;

use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use block::{IndexEntry, Slot};
use error::IndexError;
#[cfg(fuzzing)]
pub use fuzz::check_index;
use lsm::LsmTree;
use parking_lot::{Mutex, MutexGuard, RwLock};
use recovery::{IndexOpener, RecoveredIndex};
use sled_guard::SledGuard;
pub use totals::Totals;
use write_buffer::{Work, WriteBuffer};

use super::log::{Log, LogEnd, LogPosition, RecordLocation};
use super::losses::Losses;
use crate::digest::Digest;
use crate::message_store::{Error, ListQuery};
use crate::store::{EventSink, StoreEvent};

/// Time without a commit after which the memtable is flushed.
const IDLE_FLUSH_DELAY: Duration = Duration::from_secs(2);
/// Maximum number of log bytes that are left for the next process to replay.
const DEFER_BYTES: u64 = 1 << 18;

/// Maximum number of times that an operation replaces a failed tree.
const MAX_REPLACEMENTS: usize = 2;

/// A map from each digest to the location of its last record.
pub struct Index {
    opener: IndexOpener,
    write_buffer: WriteBuffer,
    lsm: RwLock<Arc<LsmTree>>,
    /// Number of messages, including those in the write buffer.
    message_count: Mutex<u64>,
    /// End of the log that the tree should have reached, if entries are missing because a rebuild failed.
    unapplied_end: Mutex<Option<LogPosition>>,
}

impl Index {
    /// Opens the index in `dir` and brings it up to date with the log. Also returns the end of the log. `cache` is the
    /// size of the block cache in bytes. Messages that the log has lost are recorded in `losses`.
    pub fn open(
        dir: &Path,
        cache: u64,
        log: Arc<Log>,
        losses: Arc<Losses>,
        events: EventSink,
    ) -> Result<(Self, LogEnd), Error> {
        let opener = IndexOpener { dir: dir.to_owned(), cache, log, losses, events };
        let RecoveredIndex { lsm, message_count, deferred, log_end } = opener.open()?;
        opener.drop_missing_segments(&lsm)?;
        let write_buffer = WriteBuffer::default();
        if !deferred.is_empty() {
            write_buffer.add(deferred.into_iter(), log_end.position());
        }
        let (lsm, message_count) = (RwLock::new(Arc::new(lsm)), Mutex::new(message_count));
        Ok((Self { opener, write_buffer, lsm, message_count, unapplied_end: Mutex::default() }, log_end))
    }

    /// Returns the location of a message.
    pub fn get(&self, digest: &Digest) -> Result<Option<RecordLocation>, Error> {
        Ok(self.find(digest)?.filter(RecordLocation::is_message))
    }

    /// Returns the locations of messages. A batch is cheaper than single lookups, because it is looked up in the order
    /// of the digests.
    pub fn get_all(&self, digests: &[Digest]) -> Result<Vec<Option<RecordLocation>>, Error> {
        let mut found = self.write_buffer.get_all(digests);
        let mut missing: Vec<_> = (0..digests.len()).filter(|index| found[*index].is_none()).collect();
        missing.sort_unstable_by_key(|index| digests[*index]);
        let sorted: Vec<_> = missing.iter().map(|index| digests[*index]).collect();
        for (index, slot) in missing.into_iter().zip(self.with_lsm(|lsm| lsm.get_all(&sorted))?) {
            found[index] = Some(slot);
        }
        Ok(found.into_iter().map(|slot| slot.flatten().filter(RecordLocation::is_message)).collect())
    }

    /// Returns the location of a digest's last record, which may be a tombstone.
    pub fn find(&self, digest: &Digest) -> Result<Option<RecordLocation>, Error> {
        match self.write_buffer.get(digest) {
            Some(slot) => Ok(slot),
            None => self.with_lsm(|lsm| lsm.get(digest)),
        }
    }

    /// Returns the slot of a digest if it is still in the write buffer. Never waits for the tree, so that a committer
    /// may call it.
    pub fn find_recent(&self, digest: &Digest) -> Option<Slot> {
        self.write_buffer.get(digest)
    }

    /// Adds committed entries, after which the log ends at `end` and the number of messages has changed by
    /// `message_delta`. Blocks while the write buffer is full.
    pub fn add(&self, entries: impl Iterator<Item = IndexEntry>, end: LogPosition, message_delta: i64) {
        let mut message_count = self.message_count.lock();
        *message_count = message_count.saturating_add_signed(message_delta);
        drop(message_count);
        self.write_buffer.add(entries, end);
    }

    /// Returns a page of the stored messages, sorted by digest. Blocks until the write buffer is drained.
    pub fn list_page(&self, page: &ListQuery) -> Result<Vec<(Digest, RecordLocation)>, Error> {
        self.write_buffer.wait_drained();
        let (first, last) = page.prefix.range().into_inner();
        let from = match page.after {
            Some(after) if after >= first => Bound::Excluded(after),
            _ => Bound::Included(first),
        };
        if page.after.is_some_and(|after| after >= last) {
            return Ok(Vec::new());
        }
        self.with_lsm(|lsm| lsm.range(from, last, page.limit))
    }

    /// Returns the totals of all entries. Blocks until the write buffer is drained.
    pub fn wait_totals(&self) -> Totals {
        self.write_buffer.wait_drained();
        self.cached_totals()
    }

    /// Returns the totals of the entries that are not in the write buffer.
    pub fn cached_totals(&self) -> Totals {
        self.lsm().totals()
    }

    /// Flushes the index past `segment`, so that recovery does not need to replay it. The segment must be sealed.
    pub fn checkpoint_past(&self, segment: u32) -> Result<(), Error> {
        if self.lsm().flushed_totals().position.segment > segment {
            return Ok(());
        }
        let required = self.wait_totals().position;
        let flushed = self.with_lsm(|lsm| lsm.flush().map(|()| lsm.flushed_totals()))?;
        match flushed.position >= required {
            true => Ok(()),
            false => Err(Error::NoSpace(self.opener.dir.clone())),
        }
    }

    /// Rebuilds the index from the log, because it does not match the log.
    pub fn rebuild(&self) -> Result<(), Error> {
        self.write_buffer.wait_drained();
        self.replace_lsm(&self.lsm(), &IndexError::corrupt("the index does not match the log")).map(drop)
    }

    /// Returns the disk usage of the index in bytes.
    pub fn disk_usage(&self) -> io::Result<u64> {
        dir_disk_usage(&self.opener.dir)
    }

    /// Drains the write buffer into the tree, and flushes and merges the tree, until [`Index::close`]. Runs in the
    /// index thread.
    pub fn run(&self) {
        loop {
            match self.write_buffer.next_work(IDLE_FLUSH_DELAY) {
                Work::Insert(entries, end) => {
                    let mut sorted: Vec<_> = entries.iter().map(|(digest, slot)| (*digest, *slot)).collect();
                    sorted.sort_unstable_by_key(|(digest, _)| *digest);
                    self.insert(&sorted, end);
                    self.write_buffer.finish_drain();
                    // Closing must not wait for work that can be done later.
                    if !self.write_buffer.is_closed() {
                        self.write(LsmTree::maintain);
                    }
                }
                Work::Idle => self.flush(),
                Work::Closed => return self.flush(),
            }
        }
    }

    /// Ends [`Index::run`] after the write buffer is drained, or at once if its entries can be deferred. Nothing must
    /// be added any more.
    pub fn close(&self) {
        if self.can_defer_flush() {
            self.write_buffer.discard();
        } else {
            self.write_buffer.close();
        }
    }

    /// Returns whether the last flush is enough for the next process, which replays the entries after it. Updates the
    /// checkpoint then.
    fn can_defer_flush(&self) -> bool {
        let (lsm, end) = (self.lsm(), self.opener.log.durable_end());
        let LogPosition { segment, offset } = lsm.flushed_totals().position;
        lsm.is_flushed()
            && self.write_buffer.is_small()
            && self.unapplied_end().is_none()
            && end.segment == segment
            && end.offset - offset <= DEFER_BYTES
            && SledGuard::new(&self.opener.dir).update_checkpoint(end, *self.message_count.lock())
    }

    /// Inserts entries into the tree. A damaged tree is rebuilt first, which may take long.
    fn insert(&self, entries: &[IndexEntry], end: LogPosition) {
        if let Err(error) = self.with_lsm(|lsm| lsm.insert(entries, end)) {
            // The entries are in the log, so the next rebuild finds them.
            *self.unapplied_end() = Some(end);
            let text = format!("cannot update the index: {error}; the next access tries again");
            (self.opener.events)(StoreEvent::Warning(text));
        }
    }

    /// Makes all entries of the tree durable, unless the disk is too full.
    fn flush(&self) {
        self.write(LsmTree::flush);
    }

    /// Writes the tree. A failed tree is rebuilt; if the rebuild fails, the next caller that needs the tree gets the
    /// error.
    fn write(&self, write: impl Fn(&LsmTree) -> Result<(), IndexError>) {
        let _ = self.with_lsm(write);
    }

    /// Calls `operation` with the tree. If it fails, the tree is rebuilt and `operation` is called again. After a
    /// shortage the tree is only opened again, if it is closed.
    fn with_lsm<T>(&self, operation: impl Fn(&LsmTree) -> Result<T, IndexError>) -> Result<T, Error> {
        let mut replaced = 0;
        loop {
            let lsm = self.lsm();
            let error = match operation(&lsm) {
                Ok(output) => return Ok(output),
                Err(error) => error,
            };
            if error.is_shortage() && (lsm.is_open() || replaced == MAX_REPLACEMENTS) {
                return Err(self.opener.describe(error));
            }
            if replaced == MAX_REPLACEMENTS {
                let dir = self.opener.dir.display();
                let text = format!("cannot use the index in {dir}: it failed again after a rebuild; check the disk");
                return Err(Error::Unusable(text));
            }
            replaced += usize::from(self.replace_lsm(&lsm, &error)?);
        }
    }

    /// Replaces a tree that failed with `cause`, unless another thread has already replaced it: opens it again after a
    /// shortage, and otherwise rebuilds it. Returns whether this call replaced it.
    fn replace_lsm(&self, failed: &Arc<LsmTree>, cause: &IndexError) -> Result<bool, Error> {
        let mut lsm = self.lsm.write();
        if !Arc::ptr_eq(&lsm, failed) {
            return Ok(false);
        }
        let mut before = failed.close(cause);
        before.position = before.position.max(self.unapplied_end().unwrap_or(LogPosition::START));
        let replacement = if !cause.is_shortage() {
            self.opener.rebuild(cause, Some(&before))
        } else if failed.can_reopen() {
            self.opener.reopen(&before)
        } else {
            Err(self.opener.describe(cause.clone()))
        }?;
        *lsm = Arc::new(replacement.lsm);
        let mut message_count = self.message_count.lock();
        *message_count = (replacement.message_count + *message_count).saturating_sub(before.messages);
        Ok(true)
    }

    fn unapplied_end(&self) -> MutexGuard<'_, Option<LogPosition>> {
        self.unapplied_end.lock()
    }

    fn lsm(&self) -> Arc<LsmTree> {
        self.lsm.read().clone()
    }
}

impl Drop for Index {
    /// Leaks sled if the last flush was not executed: dropping sled flushes, which never returns on a failing disk.
    fn drop(&mut self) {
        let lsm = self.lsm();
        if !lsm.is_flushed() {
            lsm.leak();
        }
    }
}

/// Returns the disk usage of all files below `dir` in bytes. Files that disappear meanwhile do not count.
fn dir_disk_usage(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => dir_disk_usage(&entry.path())?,
            Ok(metadata) => metadata.blocks() * 512,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod decoder_tests;
#[cfg(test)]
mod tests;
