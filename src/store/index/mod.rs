//! The index finds a digest in the log. It is expendable: short, damaged or gone, it is made anew from the log,
//! and nobody who asks it notices more than a pause.

mod block;
mod bloom;
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
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use block::{IndexEntry, Slot};
use lsm::LsmTree;
use recovery::{IndexOpener, RecoveredIndex};
use sled_guard::SledGuard;
use sled_store::IndexError;
pub use totals::Totals;
use write_buffer::{Work, WriteBuffer};

use super::log::{Log, LogEnd, LogPosition, RecordLocation};
use crate::digest::Digest;
use crate::message_store::{Error, ListQuery};
use crate::store::{EventSink, StoreEvent};

/// After this long without a commit the table is flushed.
const IDLE_FLUSH_DELAY: Duration = Duration::from_secs(2);
/// So many messages, in so many bytes of the log, are left for the next process to replay: that is cheaper than a flush.
const DEFER_ENTRIES: usize = 256;
const DEFER_BYTES: u64 = 1 << 18;

/// Where each digest's message stands in the log.
pub struct Index {
    opener: IndexOpener,
    write_buffer: WriteBuffer,
    lsm: RwLock<Arc<LsmTree>>,
    /// How many there are with those in the overlay.
    message_count: Mutex<u64>,
    /// How far the log goes that the table should have, and has not since it could not be made anew.
    unapplied_end: Mutex<Option<LogPosition>>,
}

impl Index {
    /// Opens the index in `dir` and brings it up to date with the log; answers with how the log ends, too.
    pub fn open(dir: &Path, cache: u64, log: Arc<Log>, notes: EventSink) -> Result<(Self, LogEnd), Error> {
        let place = IndexOpener { dir: dir.to_owned(), cache, log, events: notes };
        let RecoveredIndex { lsm: table, message_count: messages, deferred: left, log_end: tail } = place.open()?;
        place.drop_missing_segments(&table)?;
        let overlay = WriteBuffer::default();
        if !left.is_empty() {
            overlay.add(left.into_iter(), tail.position());
        }
        let (table, messages) = (RwLock::new(Arc::new(table)), Mutex::new(messages));
        Ok((
            Self {
                opener: place,
                write_buffer: overlay,
                lsm: table,
                message_count: messages,
                unapplied_end: Mutex::default(),
            },
            tail,
        ))
    }

    /// Where a message stands.
    pub fn get(&self, digest: &Digest) -> Result<Option<RecordLocation>, Error> {
        Ok(self.find(digest)?.filter(RecordLocation::is_message))
    }

    /// Where messages stand. In their order they are found sooner than one by one.
    pub fn get_all(&self, digests: &[Digest]) -> Result<Vec<Option<RecordLocation>>, Error> {
        let mut found = self.write_buffer.get_all(digests);
        let mut wanted: Vec<_> = (0..digests.len()).filter(|at| found[*at].is_none()).collect();
        wanted.sort_unstable_by_key(|at| digests[*at]);
        let sorted: Vec<_> = wanted.iter().map(|at| digests[*at]).collect();
        for (at, standing) in wanted.into_iter().zip(self.with_lsm(|table| table.get_all(&sorted))?) {
            found[at] = Some(standing);
        }
        Ok(found.into_iter().map(|standing| standing.flatten().filter(RecordLocation::is_message)).collect())
    }

    /// Where a digest's last record stands, be it a message or a removal.
    pub fn find(&self, digest: &Digest) -> Result<Option<RecordLocation>, Error> {
        match self.write_buffer.get(digest) {
            Some(position) => Ok(position),
            None => self.with_lsm(|table| table.get(digest)),
        }
    }

    /// The same, if it was committed lately; for the thread that commits.
    pub fn find_recent(&self, digest: &Digest) -> Option<Slot> {
        self.write_buffer.get(digest)
    }

    /// Makes committed records findable, or takes digests out; the log now ends at `end`, with so many messages more.
    pub fn add(&self, entries: impl Iterator<Item = IndexEntry>, end: LogPosition, more: i64) {
        let mut messages = self.message_count.lock().expect(LOCK_POISONED);
        *messages = messages.saturating_add_signed(more);
        drop(messages);
        self.write_buffer.add(entries, end);
    }

    /// A page of what is stored.
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
        self.with_lsm(|table| table.range(from, last, page.limit))
    }

    /// What there is in all.
    pub fn wait_totals(&self) -> Totals {
        self.write_buffer.wait_drained();
        self.cached_totals()
    }

    /// The same without what was committed lately.
    pub fn cached_totals(&self) -> Totals {
        self.lsm().totals()
    }

    /// Sees to it that after a crash, nothing of a segment is needed to bring the index up to date. Nothing must be
    /// appended to it any more.
    pub fn checkpoint_past(&self, segment: u32) -> Result<(), Error> {
        if self.lsm().flushed_totals().position.segment > segment {
            return Ok(());
        }
        let reached = self.wait_totals().position;
        let flushed = self.with_lsm(|table| table.flush().map(|()| table.flushed_totals()))?;
        match flushed.position >= reached {
            true => Ok(()),
            false => Err(Error::NoSpace(self.opener.dir.clone())),
        }
    }

    /// Makes the index anew from the log.
    pub fn rebuild(&self) -> Result<(), Error> {
        self.write_buffer.wait_drained();
        self.replace_lsm(&self.lsm(), &IndexError::new("it does not fit it")).map(drop)
    }

    /// The bytes that the index has on disk.
    pub fn disk_usage(&self) -> io::Result<u64> {
        dir_disk_usage(&self.opener.dir)
    }

    /// Moves what is committed into the table, until [`Index::close`]; for a thread of its own.
    pub fn run(&self) {
        loop {
            match self.write_buffer.next_work(IDLE_FLUSH_DELAY) {
                Work::Insert(entries, end) => {
                    let mut sorted: Vec<_> = entries.iter().map(|(digest, position)| (*digest, *position)).collect();
                    sorted.sort_unstable_by_key(|(digest, _)| *digest);
                    self.insert(&sorted, end);
                    self.write_buffer.finish_drain();
                    // Who closes does not wait for what can be done later.
                    if !self.write_buffer.is_closed() {
                        self.write(LsmTree::maintain);
                    }
                }
                Work::Idle => self.flush(),
                Work::Closed => return self.flush(),
            }
        }
    }

    /// Ends [`Index::run`] once it has moved everything, or at once if it is but little. Nothing is added any more.
    pub fn close(&self) {
        self.write_buffer.close(self.can_defer_flush());
    }

    /// Whether the table, as it was flushed, will do for the next process.
    fn can_defer_flush(&self) -> bool {
        let (table, end) = (self.lsm(), self.opener.log.durable_end());
        let LogPosition { segment, offset } = table.flushed_totals().position;
        table.is_flushed()
            && self.write_buffer.is_small()
            && self.unapplied_end().is_none()
            && end.segment == segment
            && end.offset - offset <= DEFER_BYTES
            && SledGuard::new(&self.opener.dir).update_checkpoint(end, *self.message_count.lock().expect(LOCK_POISONED))
    }

    /// Inserts entries; a table that fails is made anew, however long that takes.
    fn insert(&self, entries: &[IndexEntry], end: LogPosition) {
        if let Err(error) = self.with_lsm(|table| table.insert(entries, end)) {
            // The overlay's entries are in the log: who makes the table anew finds them there.
            *self.unapplied_end() = Some(end);
            (self.opener.events)(StoreEvent::Message(format!("the index cannot be kept: {error}")));
        }
    }

    /// Makes the table durable, if there is room for that.
    fn flush(&self) {
        self.write(LsmTree::flush);
    }

    /// Has the table written. One that cannot be is made anew; and if that fails, who asks next is told.
    fn write(&self, write: impl Fn(&LsmTree) -> Result<(), IndexError>) {
        let _ = self.with_lsm(write);
    }

    /// Asks the table; one that is damaged is made anew first.
    fn with_lsm<T>(&self, ask: impl Fn(&LsmTree) -> Result<T, IndexError>) -> Result<T, Error> {
        let mut failures = 0;
        while failures < 2 {
            let table = self.lsm();
            match ask(&table) {
                Ok(answer) => return Ok(answer),
                Err(why) => failures += usize::from(self.replace_lsm(&table, &why)?),
            }
        }
        Err(Error::Unusable(format!("the index in {} fails again and again", self.opener.dir.display())))
    }

    /// Makes the table anew, unless another has done so; says which.
    fn replace_lsm(&self, damaged: &Arc<LsmTree>, why: &IndexError) -> Result<bool, Error> {
        let mut table = self.lsm.write().expect(LOCK_POISONED);
        if !Arc::ptr_eq(&table, damaged) {
            return Ok(false);
        }
        let mut before = damaged.close();
        before.position = before.position.max(self.unapplied_end().unwrap_or(LogPosition::START));
        let made = self.opener.rebuild(why, Some(&before))?;
        *table = Arc::new(made.lsm);
        let mut messages = self.message_count.lock().expect(LOCK_POISONED);
        *messages = (made.message_count + *messages).saturating_sub(before.messages);
        Ok(true)
    }

    fn unapplied_end(&self) -> MutexGuard<'_, Option<LogPosition>> {
        self.unapplied_end.lock().expect(LOCK_POISONED)
    }

    fn lsm(&self) -> Arc<LsmTree> {
        self.lsm.read().expect(LOCK_POISONED).clone()
    }
}

impl Drop for Index {
    /// sled flushes when it is dropped, and does not come back from a disk that fails: so it is left alone if the last
    /// flush did not happen.
    fn drop(&mut self) {
        let table = self.lsm();
        if !table.is_flushed() {
            table.leak();
        }
    }
}

/// The bytes on disk of all files below `dir`; those that go meanwhile are none.
fn dir_disk_usage(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        sum += match entry.metadata() {
            Ok(data) if data.is_dir() => dir_disk_usage(&entry.path())?,
            Ok(data) => data.blocks() * 512,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(sum)
}

const LOCK_POISONED: &str = "nobody panics while holding this";

#[cfg(test)]
mod tests;
