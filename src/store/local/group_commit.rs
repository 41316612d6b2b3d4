//! Group commit: pending changes are appended together and synced once before any of them is acknowledged. All changes
//! to a store go through here, one batch after the other, so a lookup during a batch sees the final state.
//! After a failed write or sync the content of the disk is unknown, and no further change is acknowledged.
//! See docs/design.md, "Group commit".

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::digest::Digest;
use crate::message_store::Error;
use crate::store::index::Index;
use crate::store::log::{
    self, AppendError, Log, Record, RecordHeader, RecordKind, RecordLocation, RecordTag, SegmentWriter,
};

/// Bounds of the target size of a batch, in payload bytes. Between them the target is half of the pending bytes, so
/// that one half is hashed while the other is synced.
const BATCH_BYTES: std::ops::RangeInclusive<usize> = 1 << 18..=16 << 20;

/// Queue of changes that are not committed yet.
#[derive(Debug)]
pub struct CommitQueue {
    /// Directory of the store, for error messages.
    dir: PathBuf,
    log: Arc<Log>,
    /// Segment writer. The thread that holds this lock commits.
    writer: Mutex<SegmentWriter>,
    state: Mutex<QueueState>,
    /// Signalled when the first committer thread has work.
    first_wakeup: Condvar,
    /// Signalled when the second committer thread has work.
    second_wakeup: Condvar,
    /// Error after which nothing is committed any more.
    failure: OnceLock<Arc<str>>,
}

#[derive(Debug)]
struct QueueState {
    batches: VecDeque<PendingBatch>,
    /// Payload bytes from which on a batch accepts no further change.
    target_bytes: usize,
    /// Payload bytes of the last batch. Its callers are likely to come back with as many.
    last_bytes: usize,
    /// `true` if the last batch had several changes. The next change is then queued, so that others can join it.
    last_was_shared: bool,
    closed: bool,
}

/// Changes that will be committed together.
#[derive(Debug, Default)]
struct PendingBatch {
    changes: Vec<Change>,
    /// Payload bytes of the changes.
    bytes: usize,
    result: Arc<BatchResult>,
}

/// Results of the changes of a batch. All callers wait for one cell, so that one call wakes them.
type BatchResult = OnceLock<Vec<ChangeResult>>;

/// Result of one change: the flags that [`Change`] documents.
type ChangeResult = Result<Vec<bool>, Error>;

/// Change of the store.
#[derive(Debug)]
pub enum Change {
    /// Stores messages. Returns, for each, whether it was appended; another put may have stored it meanwhile.
    Put(Vec<NewMessage>),
    /// Removes messages. Returns, for each, whether it was stored.
    Remove(Vec<Digest>),
    /// Removes a message if the index still points to this copy of it. Returns one flag: whether it was removed.
    RemoveCopy(Digest, RecordLocation),
    /// Appends records of another segment again. Returns, for each, whether it was still live.
    Relocate(Vec<RelocatedRecord>),
    /// Drops tombstones from the index. Returns, for each, whether the index still pointed to it.
    DropTombstones(Vec<(Digest, RecordLocation)>),
    /// Starts a new segment. Returns no flags.
    RollSegment,
}

/// Message that the store does not have, or has only as a corrupt copy.
#[derive(Debug)]
pub struct NewMessage {
    /// Digest of the message.
    pub digest: Digest,
    /// Kind of the record to append, with the length of `payload`.
    pub kind: RecordKind,
    /// Stored bytes: the message, or its compressed form.
    pub payload: Vec<u8>,
    /// Location of the corrupt copy.
    pub corrupt_copy: Option<RecordLocation>,
}

/// Record that compaction appends again.
#[derive(Debug)]
pub struct RelocatedRecord {
    /// Header of the record, unchanged.
    pub header: RecordHeader,
    /// Stored bytes of the record, unchanged.
    pub payload: Vec<u8>,
    /// Current location of the record.
    pub location: RecordLocation,
}

impl Change {
    /// Returns the number of payload bytes that the change may append.
    fn payload_len(&self) -> usize {
        match self {
            Self::Put(messages) => messages.iter().map(|message| message.payload.len()).sum(),
            Self::Relocate(records) => records.iter().map(|record| record.payload.len()).sum(),
            Self::Remove(_) | Self::RemoveCopy(..) | Self::DropTombstones(_) | Self::RollSegment => 0,
        }
    }
}

impl QueueState {
    fn last_was_large(&self) -> bool {
        self.last_bytes >= *BATCH_BYTES.start()
    }

    /// Adds a change to the newest batch, or to a new batch if that one is full. Returns the result cell of the batch
    /// and the index of the change in it.
    fn enqueue(&mut self, change: Change) -> (Arc<BatchResult>, usize) {
        if self.batches.back().is_none_or(|newest| newest.bytes >= self.target_bytes) {
            self.batches.push_back(PendingBatch::default());
        }
        let batch = self.batches.back_mut().expect("the queue has a batch now");
        batch.bytes += change.payload_len();
        batch.changes.push(change);
        (batch.result.clone(), batch.changes.len() - 1)
    }
}

impl Default for QueueState {
    fn default() -> Self {
        Self {
            batches: VecDeque::new(),
            target_bytes: *BATCH_BYTES.start(),
            last_bytes: 0,
            last_was_shared: false,
            closed: false,
        }
    }
}

impl CommitQueue {
    /// Creates an empty queue for the store in `dir`.
    pub fn new(dir: PathBuf, log: Arc<Log>, writer: SegmentWriter) -> Self {
        Self {
            dir,
            log,
            writer: Mutex::new(writer),
            state: Mutex::default(),
            first_wakeup: Condvar::new(),
            second_wakeup: Condvar::new(),
            failure: OnceLock::new(),
        }
    }

    /// Commits a change. Blocks until it is durable, and returns the flags that [`Change`] documents.
    ///
    /// A caller that is the only one commits on its own thread, which saves two thread switches.
    pub fn submit(&self, change: Change, index: &Index) -> ChangeResult {
        let mut queue = self.state();
        if !queue.last_was_shared
            && queue.batches.is_empty()
            && let Some(mut writer) = self.writer.try_lock()
        {
            drop(queue);
            return self.commit(&mut writer, &[change], index).pop().expect("one result for one change");
        }
        let (batch_result, change_index) = queue.enqueue(change);
        let wake_second = queue.last_was_large();
        drop(queue);
        self.first_wakeup.notify_one();
        if wake_second {
            self.second_wakeup.notify_one();
        }
        batch_result.wait()[change_index].clone()
    }

    /// Returns the error after which nothing is committed any more, if there was one.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.failure.get().cloned()
    }

    /// Makes [`CommitQueue::run`] return after all pending changes are committed.
    pub fn close(&self) {
        self.state().closed = true;
        self.first_wakeup.notify_one();
        self.second_wakeup.notify_one();
    }

    /// Commits pending batches until [`CommitQueue::close`] is called. Runs on two threads.
    ///
    /// Waking the callers of a large batch is slow, so the second thread syncs the next batch meanwhile. After a small
    /// batch the second thread stays idle, so that the next batch can grow.
    pub fn run(&self, index: &Index, is_second: bool) {
        while self.wait_for_work(is_second) {
            let mut writer = self.writer.lock();
            let Some(PendingBatch { changes, result: batch_result, .. }) = self.next_batch() else { continue };
            let results = self.commit(&mut writer, &changes, index);
            drop(writer);
            // The cell is empty: each batch is taken from the queue by one thread.
            let _ = batch_result.set(results);
        }
    }

    /// Makes changes durable together. Returns one result for each.
    fn commit(&self, writer: &mut SegmentWriter, changes: &[Change], index: &Index) -> Vec<ChangeResult> {
        let mut batch = BatchBuilder::new(index);
        let results: Vec<_> = changes.iter().map(|change| batch.add(change)).collect();
        let mut committed = self.append(writer, &batch);
        if committed.is_ok() && changes.iter().any(|change| matches!(change, Change::RollSegment)) {
            committed = writer.roll_segment().map_err(|error| self.to_store_error(error));
            self.log.set_durable_end(writer.end());
        }
        results.into_iter().map(|result| committed.clone().and(result)).collect()
    }

    fn append(&self, writer: &mut SegmentWriter, batch: &BatchBuilder) -> Result<(), Error> {
        if let Some(cause) = self.failure() {
            return Err(Error::WriteFailed(cause));
        }
        let BatchBuilder { index, records, dropped_tombstones, message_delta, .. } = batch;
        if !records.is_empty() {
            let locations = writer.append(records).map_err(|error| self.to_store_error(error))?;
            let digests = records.iter().map(|record| record.header.digest);
            index.add(digests.zip(locations.into_iter().map(Some)), writer.end(), *message_delta);
            self.log.set_durable_end(writer.end());
        }
        if !dropped_tombstones.is_empty() {
            index.add(dropped_tombstones.iter().map(|digest| (*digest, None)), writer.end(), 0);
        }
        Ok(())
    }

    fn to_store_error(&self, error: AppendError) -> Error {
        match error {
            AppendError::NoSpace => Error::NoSpace(self.dir.clone()),
            AppendError::WriteFailed(error) => {
                let cause: Arc<str> = error.to_string().into();
                Error::WriteFailed(self.failure.get_or_init(|| cause).clone())
            }
        }
    }

    /// Blocks until there may be a batch to commit. Returns `false` if the queue is closed and empty.
    fn wait_for_work(&self, is_second: bool) -> bool {
        let must_wait = |queue: &mut QueueState| {
            !queue.closed && (queue.batches.is_empty() || is_second && !queue.last_was_large())
        };
        let wakeup = if is_second { &self.second_wakeup } else { &self.first_wakeup };
        let mut queue = self.state();
        wakeup.wait_while(&mut queue, must_wait);
        !queue.closed || !queue.batches.is_empty()
    }

    /// Takes the oldest batch; `None` if the other thread has taken it. The caller must hold the writer.
    fn next_batch(&self) -> Option<PendingBatch> {
        let mut queue = self.state();
        let pending = queue.last_bytes + queue.batches.iter().map(|batch| batch.bytes).sum::<usize>();
        queue.target_bytes = (pending / 2).clamp(*BATCH_BYTES.start(), *BATCH_BYTES.end());
        let batch = queue.batches.pop_front()?;
        queue.last_bytes = batch.bytes;
        queue.last_was_shared = batch.changes.len() > 1;
        Some(batch)
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock()
    }
}

/// Records that a batch appends. A message that several callers put is appended once.
struct BatchBuilder<'a> {
    index: &'a Index,
    time: u32,
    records: Vec<Record<'a>>,
    /// State of each digest in `records`: `true` if it is stored after them, `false` if it is removed.
    stored_after: HashMap<Digest, bool>,
    dropped_tombstones: Vec<Digest>,
    /// Change of the number of messages by `records`.
    message_delta: i64,
}

impl<'a> BatchBuilder<'a> {
    fn new(index: &'a Index) -> Self {
        Self {
            index,
            time: log::unix_now(),
            records: Vec::new(),
            stored_after: HashMap::new(),
            dropped_tombstones: Vec::new(),
            message_delta: 0,
        }
    }

    fn add(&mut self, change: &'a Change) -> Result<Vec<bool>, Error> {
        match change {
            Change::Put(messages) => messages.iter().map(|message| self.put(message)).collect(),
            Change::Remove(digests) => digests.iter().map(|digest| self.remove(*digest)).collect(),
            Change::RemoveCopy(digest, location) => Ok(vec![self.remove_copy(*digest, *location)?]),
            Change::Relocate(records) => records.iter().map(|record| self.relocate(record)).collect(),
            Change::DropTombstones(tombstones) => {
                tombstones.iter().map(|(digest, location)| self.drop_tombstone(*digest, *location)).collect()
            }
            Change::RollSegment => Ok(Vec::new()),
        }
    }

    fn put(&mut self, message: &'a NewMessage) -> Result<bool, Error> {
        let NewMessage { digest, kind, payload, corrupt_copy } = message;
        // Another change may have stored or removed the message since the lookup of this one.
        let current = match corrupt_copy {
            Some(_) => self.index.find(digest)?,
            None => self.index.find_recent(digest).flatten(),
        };
        let current = current.filter(RecordLocation::is_message);
        let recorded = self.stored_after.get(digest).copied();
        let is_stored = recorded.unwrap_or(current.is_some() && current != *corrupt_copy);
        if !is_stored {
            self.append(RecordHeader { kind: *kind, time: self.time, digest: *digest }, payload);
            // A corrupt copy counts as a message already.
            self.message_delta += i64::from(recorded.is_some() || current.is_none());
        }
        Ok(!is_stored)
    }

    fn remove(&mut self, digest: Digest) -> Result<bool, Error> {
        let is_stored = match self.stored_after.get(&digest) {
            Some(is_stored) => *is_stored,
            None => self.index.get(&digest)?.is_some(),
        };
        if is_stored {
            self.append_tombstone(digest);
        }
        Ok(is_stored)
    }

    fn remove_copy(&mut self, digest: Digest, location: RecordLocation) -> Result<bool, Error> {
        let is_current = !self.stored_after.contains_key(&digest) && self.index.find(&digest)? == Some(location);
        if is_current {
            self.append_tombstone(digest);
        }
        Ok(is_current)
    }

    fn append_tombstone(&mut self, digest: Digest) {
        let kind = RecordKind::Tombstone { up_to_segment: log::APPENDED_SEGMENT };
        self.append(RecordHeader { kind, time: self.time, digest }, &[]);
        self.message_delta -= 1;
    }

    /// Appends a record again if it is live: the index points to it, and this batch has no other record of its digest.
    fn relocate(&mut self, record: &'a RelocatedRecord) -> Result<bool, Error> {
        let digest = record.header.digest;
        let is_live = !self.stored_after.contains_key(&digest) && self.index.find(&digest)? == Some(record.location);
        if is_live {
            self.append(record.header, &record.payload);
        }
        Ok(is_live)
    }

    fn drop_tombstone(&mut self, digest: Digest, location: RecordLocation) -> Result<bool, Error> {
        let is_live = !self.stored_after.contains_key(&digest) && self.index.find(&digest)? == Some(location);
        self.dropped_tombstones.extend(is_live.then_some(digest));
        Ok(is_live)
    }

    fn append(&mut self, header: RecordHeader, payload: &'a [u8]) {
        self.stored_after.insert(header.digest, header.kind.tag() != RecordTag::Tombstone);
        self.records.push(Record { header, payload });
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::store::local::open_log_and_index;

    /// Closes the queue when dropped, so that the threads of a failed test end, too.
    struct CloseOnDrop<'a>(&'a CommitQueue);

    impl Drop for CloseOnDrop<'_> {
        fn drop(&mut self) {
            self.0.close();
        }
    }

    /// Commits changes as one batch and returns the change of the number of messages.
    fn commit_batch(commit_queue: &CommitQueue, changes: &[Change], index: &Index) -> i64 {
        let mut batch = BatchBuilder::new(index);
        for change in changes {
            batch.add(change).unwrap();
        }
        commit_queue.append(&mut commit_queue.writer.lock(), &batch).unwrap();
        batch.message_delta
    }

    fn new_message(message: &[u8], corrupt_copy: Option<RecordLocation>) -> NewMessage {
        let kind = RecordKind::Message { len: u32::try_from(message.len()).unwrap() };
        NewMessage { digest: Digest::compute(message), kind, payload: message.to_vec(), corrupt_copy }
    }

    #[test]
    fn removing_a_corrupt_copy_keeps_a_message_that_was_put_again() {
        let dir = tempfile::tempdir().unwrap();
        let (log, index, log_end) = open_log_and_index(dir.path(), 1 << 30);
        let writer = SegmentWriter::new(log.clone(), &log_end).unwrap();
        let commit_queue = CommitQueue::new(dir.path().to_owned(), log, writer);
        let digest = Digest::compute(b"foo");
        let submit = |change| commit_queue.submit(change, &index).unwrap();
        assert_eq!(submit(Change::Put(vec![new_message(b"foo", None)])), [true]);
        let corrupt_copy = index.get(&digest).unwrap().unwrap();
        assert_eq!(submit(Change::Put(vec![new_message(b"foo", Some(corrupt_copy))])), [true]);
        let copy = index.get(&digest).unwrap().unwrap();
        assert_eq!(submit(Change::RemoveCopy(digest, corrupt_copy)), [false]);
        assert_eq!(index.get(&digest).unwrap(), Some(copy));
        assert_eq!(submit(Change::RemoveCopy(digest, copy)), [true]);
        assert_eq!(index.get(&digest).unwrap(), None);
    }

    #[test]
    fn replacing_a_corrupt_copy_counts_a_message_only_if_it_was_removed_before() {
        let dir = tempfile::tempdir().unwrap();
        let (log, index, log_end) = open_log_and_index(dir.path(), 1 << 30);
        let writer = SegmentWriter::new(log.clone(), &log_end).unwrap();
        let commit_queue = CommitQueue::new(dir.path().to_owned(), log, writer);
        let digest = Digest::compute(b"foo");
        let put = |corrupt_copy| Change::Put(vec![new_message(b"foo", corrupt_copy)]);
        let commit = |changes: &[Change]| commit_batch(&commit_queue, changes, &index);
        let location = || index.get(&digest).unwrap();
        assert_eq!(commit(&[put(None)]), 1);
        assert_eq!(commit(&[put(location())]), 0);
        let corrupt_copy = location();
        assert_eq!(commit(&[Change::Remove(vec![digest]), put(corrupt_copy)]), 0);
        let corrupt_copy = location();
        assert_eq!(commit(&[Change::Remove(vec![digest])]), -1);
        assert_eq!(commit(&[put(corrupt_copy)]), 1);
    }

    #[test]
    fn second_committer_runs_after_a_large_batch_and_drains_the_queue_on_close() {
        let dir = tempfile::tempdir().unwrap();
        let (log, index, log_end) = open_log_and_index(dir.path(), 1 << 30);
        let writer = SegmentWriter::new(log.clone(), &log_end).unwrap();
        let commit_queue = CommitQueue::new(dir.path().to_owned(), log.clone(), writer);
        let put = |message: &[u8]| {
            // After a shared batch, no caller commits on its own thread.
            commit_queue.state().last_was_shared = true;
            let digest = Digest::compute(message);
            let change = Change::Put(vec![new_message(message, None)]);
            assert_eq!(commit_queue.submit(change, &index).unwrap(), [true]);
            let location = index.get(&digest).unwrap().unwrap();
            assert_eq!(log.read(&location).unwrap().unwrap(), message);
        };
        commit_queue.state().last_bytes = *BATCH_BYTES.start();
        thread::scope(|scope| {
            let _close = CloseOnDrop(&commit_queue);
            scope.spawn(|| commit_queue.run(&index, true));
            put(&vec![1; *BATCH_BYTES.start()]);
            put(b"a put after a large batch");
            let pending = scope.spawn(|| put(b"a put after a small batch"));
            while commit_queue.state().batches.is_empty() {
                assert!(!pending.is_finished(), "the second committer has committed a batch after a small one");
                thread::yield_now();
            }
        });
    }
}
