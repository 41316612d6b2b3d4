//! Group commit: what waits is appended together and synced once, before any of it is acknowledged. Everything that
//! changes the store goes through here, one after the other, so that what is looked up here is how things stand.
//! Who is the only one to change anything commits for itself, which spares it two changes of threads.
//! A failed sync is final: what is on disk is not known then, so nothing is acknowledged any more.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

use crate::digest::Digest;
use crate::message_store::Error;
use crate::store::index::Index;
use crate::store::log::{self, AppendError, Log, Record, RecordHeader, RecordKind, RecordLocation, SegmentWriter};

/// Bytes after which a group takes nothing more, at the least and at the most. In between, it takes half of what there
/// is: so one half is hashed while the other is synced. Less is hashed in no time, and better synced together.
const BATCH_BYTES: std::ops::RangeInclusive<usize> = 1 << 18..=16 << 20;

/// Changes that wait, and why there can be no more of them.
#[derive(Debug)]
pub struct CommitQueue {
    /// The store, for errors to name.
    dir: PathBuf,
    log: Arc<Log>,
    /// Whoever has it commits.
    writer: Mutex<SegmentWriter>,
    state: Mutex<QueueState>,
    /// Where the thread that commits waits for changes.
    first_wakeup: Condvar,
    /// The same for the relief.
    second_wakeup: Condvar,
    failure: OnceLock<Arc<str>>,
}

#[derive(Debug)]
struct QueueState {
    batches: VecDeque<PendingBatch>,
    /// Bytes after which a group takes nothing more now.
    target_bytes: usize,
    /// Those of the last group, whose senders will come back.
    last_bytes: usize,
    /// Whether the last group had more than one change: then the next is better left to grow, too.
    last_was_shared: bool,
    closed: bool,
}

/// Changes that will be committed together.
#[derive(Debug, Default)]
struct PendingBatch {
    changes: Vec<Change>,
    /// What they may append, in bytes.
    size: usize,
    result: Arc<BatchResult>,
}

/// What became of a group: the answer to each change. One for all who wait for it, so that one call wakes them.
type BatchResult = OnceLock<Vec<ChangeResult>>;

/// As [`Change`] says.
type ChangeResult = Result<Vec<bool>, Error>;

/// A change that is asked for.
#[derive(Debug)]
pub enum Change {
    /// Stores messages; answers which of them were not stored by a put beside this one.
    Put(Vec<NewMessage>),
    /// Removes messages; answers which of them were stored.
    Remove(Vec<Digest>),
    /// Appends records again that stand elsewhere in the log; answers which of them were still needed.
    Relocate(Vec<RelocatedRecord>),
    /// Forgets removals that stood where nothing is any more.
    DropTombstones(Vec<(Digest, RecordLocation)>),
    /// Appends nothing more to the last segment.
    RollSegment,
}

/// A message that was not found in the store, or not as it should be.
#[derive(Debug)]
pub struct NewMessage {
    /// Of the message.
    pub digest: Digest,
    /// How it is stored.
    pub kind: RecordKind,
    /// The bytes to store.
    pub payload: Vec<u8>,
    /// Where a copy stands that is corrupt.
    pub corrupt_copy: Option<RecordLocation>,
}

/// A record that is to stand elsewhere.
#[derive(Debug)]
pub struct RelocatedRecord {
    /// As it is.
    pub header: RecordHeader,
    /// The bytes behind it, as they are.
    pub payload: Vec<u8>,
    /// Where it stands now.
    pub location: RecordLocation,
}

impl Change {
    /// How many bytes it may append.
    fn size(&self) -> usize {
        match self {
            Self::Put(batch) => batch.iter().map(|unknown| unknown.payload.len()).sum(),
            Self::Relocate(batch) => batch.iter().map(|moved| moved.payload.len()).sum(),
            Self::Remove(_) | Self::DropTombstones(_) | Self::RollSegment => 0,
        }
    }
}

impl QueueState {
    /// Whether the last group was a large one.
    fn last_was_large(&self) -> bool {
        self.last_bytes >= *BATCH_BYTES.start()
    }

    /// Puts a change into the last group, or a new one if that is full; answers with the group's outcome, and the
    /// change's place in it.
    fn enqueue(&mut self, change: Change) -> (Arc<BatchResult>, usize) {
        if self.batches.back().is_none_or(|last| last.size >= self.target_bytes) {
            self.batches.push_back(PendingBatch::default());
        }
        let group = self.batches.back_mut().expect("there is one now");
        group.size += change.size();
        group.changes.push(change);
        (group.result.clone(), group.changes.len() - 1)
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
    /// None yet; they will be appended to the log of the store in `dir`.
    pub fn new(dir: PathBuf, log: Arc<Log>, appender: SegmentWriter) -> Self {
        let (appender, queue) = (Mutex::new(appender), Mutex::default());
        Self {
            dir,
            log,
            writer: appender,
            state: queue,
            first_wakeup: Condvar::new(),
            second_wakeup: Condvar::new(),
            failure: OnceLock::new(),
        }
    }

    /// Waits until the change is durable; answers as [`Change`] says.
    pub fn submit(&self, change: Change, index: &Index) -> ChangeResult {
        let mut queue = self.state();
        if !queue.last_was_shared
            && queue.batches.is_empty()
            && let Ok(mut appender) = self.writer.try_lock()
        {
            drop(queue);
            return self.commit(&mut appender, &[change], index).pop().expect("one answer for one change");
        }
        let (outcome, place) = queue.enqueue(change);
        let is_heavy = queue.last_was_large();
        drop(queue);
        self.first_wakeup.notify_one();
        if is_heavy {
            self.second_wakeup.notify_one();
        }
        outcome.wait()[place].clone()
    }

    /// Why writing has stopped, if it has.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.failure.get().cloned()
    }

    /// Ends [`CommitQueue::run`] once all that waits is committed.
    pub fn close(&self) {
        self.state().closed = true;
        self.first_wakeup.notify_one();
        self.second_wakeup.notify_one();
    }

    /// Commits what waits until [`CommitQueue::close`]; for a thread of its own, and one for its relief. To wake all who
    /// wait for a large group takes a while, in which the other thread syncs the next. While those of a small one are
    /// woken, the next had better grow.
    pub fn run(&self, index: &Index, is_second: bool) {
        while self.wait_for_work(is_second) {
            let mut appender = self.writer.lock().expect(LOCK_POISONED);
            let Some(PendingBatch { changes, result: outcome, .. }) = self.next_batch() else { continue };
            let answers = self.commit(&mut appender, &changes, index);
            drop(appender);
            // Nobody else sets it.
            let _ = outcome.set(answers);
        }
    }

    /// Makes changes durable together; answers each.
    fn commit(&self, appender: &mut SegmentWriter, changes: &[Change], index: &Index) -> Vec<ChangeResult> {
        let mut group = BatchBuilder {
            index,
            time: log::unix_now(),
            records: Vec::new(),
            stored_after: HashMap::new(),
            dropped_tombstones: Vec::new(),
            message_delta: 0,
        };
        let answers: Vec<_> = changes.iter().map(|change| group.add(change)).collect();
        let mut committed = self.append(appender, &group);
        if committed.is_ok() && changes.iter().any(|change| matches!(change, Change::RollSegment)) {
            committed = appender.roll_segment().map_err(|error| self.to_store_error(error));
            self.log.set_durable_end(appender.end());
        }
        answers.into_iter().map(|answer| committed.clone().and(answer)).collect()
    }

    fn append(&self, appender: &mut SegmentWriter, group: &BatchBuilder) -> Result<(), Error> {
        if let Some(why) = self.failure() {
            return Err(Error::WriteFailed(why));
        }
        let BatchBuilder { records, dropped_tombstones: forgotten, message_delta: more, .. } = group;
        if !records.is_empty() {
            let positions = appender.append(records).map_err(|error| self.to_store_error(error))?;
            let digests = records.iter().map(|record| record.header.digest);
            group.index.add(digests.zip(positions.into_iter().map(Some)), appender.end(), *more);
            self.log.set_durable_end(appender.end());
        }
        if !forgotten.is_empty() {
            group.index.add(forgotten.iter().map(|digest| (*digest, None)), appender.end(), 0);
        }
        Ok(())
    }

    fn to_store_error(&self, error: AppendError) -> Error {
        match error {
            AppendError::NoSpace => Error::NoSpace(self.dir.clone()),
            AppendError::WriteFailed(error) => {
                let why: Arc<str> = error.to_string().into();
                Error::WriteFailed(self.failure.get_or_init(|| why).clone())
            }
        }
    }

    /// Waits for something to be done. `false`: there will be no more.
    fn wait_for_work(&self, is_second: bool) -> bool {
        let may_wait = |queue: &mut QueueState| {
            !queue.closed && (queue.batches.is_empty() || is_second && !queue.last_was_large())
        };
        let condition = if is_second { &self.second_wakeup } else { &self.first_wakeup };
        let queue = condition.wait_while(self.state(), may_wait).expect(LOCK_POISONED);
        !queue.closed || !queue.batches.is_empty()
    }

    /// For who has the appender. `None` if the other thread has taken what there was.
    fn next_batch(&self) -> Option<PendingBatch> {
        let mut queue = self.state();
        let all = queue.last_bytes + queue.batches.iter().map(|group| group.size).sum::<usize>();
        queue.target_bytes = (all / 2).clamp(*BATCH_BYTES.start(), *BATCH_BYTES.end());
        let group = queue.batches.pop_front()?;
        queue.last_bytes = group.size;
        queue.last_was_shared = group.changes.len() > 1;
        Some(group)
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().expect(LOCK_POISONED)
    }
}

/// What a group appends: each message once, however many put it.
struct BatchBuilder<'a> {
    index: &'a Index,
    time: u32,
    records: Vec<Record<'a>>,
    /// Whether a digest is stored once the records so far are.
    stored_after: HashMap<Digest, bool>,
    dropped_tombstones: Vec<Digest>,
    /// How many messages there are more once it is appended.
    message_delta: i64,
}

impl<'a> BatchBuilder<'a> {
    fn add(&mut self, change: &'a Change) -> Result<Vec<bool>, Error> {
        match change {
            Change::Put(batch) => Ok(batch.iter().map(|unknown| self.put(unknown)).collect()),
            Change::Remove(digests) => digests.iter().map(|digest| self.remove(*digest)).collect(),
            Change::Relocate(batch) => batch.iter().map(|moved| self.relocate(moved)).collect(),
            Change::DropTombstones(removals) => {
                removals.iter().map(|(digest, position)| self.drop_tombstone(*digest, *position)).collect()
            }
            Change::RollSegment => Ok(Vec::new()),
        }
    }

    fn put(&mut self, unknown: &'a NewMessage) -> bool {
        let NewMessage { digest, kind, payload: stored, corrupt_copy: corrupt } = unknown;
        // Another put may have stored it since this one looked; but a copy that was seen to be corrupt is none.
        let recent = || self.index.find_recent(digest).flatten();
        let is_there = |position: RecordLocation| position.is_message() && Some(position) != *corrupt;
        let is_stored = self.stored_after.get(digest).copied().unwrap_or_else(|| recent().is_some_and(is_there));
        if !is_stored {
            let number = u32::try_from(stored.len()).expect("HashingStore refuses longer messages");
            self.append(RecordHeader { kind: *kind, len_or_bound: number, time: self.time, digest: *digest }, stored);
            self.message_delta += i64::from(corrupt.is_none());
        }
        !is_stored
    }

    fn remove(&mut self, digest: Digest) -> Result<bool, Error> {
        let is_stored = match self.stored_after.get(&digest) {
            Some(stored) => *stored,
            None => self.index.get(&digest)?.is_some(),
        };
        if is_stored {
            self.append(RecordHeader { kind: RecordKind::Tombstone, len_or_bound: 0, time: self.time, digest }, &[]);
            self.message_delta -= 1;
        }
        Ok(is_stored)
    }

    /// Only a record that the index points to is needed, and only until this group has another of its digest.
    fn relocate(&mut self, moved: &'a RelocatedRecord) -> Result<bool, Error> {
        let digest = moved.header.digest;
        let is_needed = !self.stored_after.contains_key(&digest) && self.index.find(&digest)? == Some(moved.location);
        if is_needed {
            self.append(moved.header, &moved.payload);
        }
        Ok(is_needed)
    }

    fn drop_tombstone(&mut self, digest: Digest, position: RecordLocation) -> Result<bool, Error> {
        let is_there = !self.stored_after.contains_key(&digest) && self.index.find(&digest)? == Some(position);
        self.dropped_tombstones.extend(is_there.then_some(digest));
        Ok(is_there)
    }

    fn append(&mut self, header: RecordHeader, bytes: &'a [u8]) {
        self.stored_after.insert(header.digest, header.kind != RecordKind::Tombstone);
        self.records.push(Record { header, payload: bytes });
    }
}

const LOCK_POISONED: &str = "nobody panics while holding this";

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::store::local::open_log_and_index;

    /// Ends the threads also of a test that fails.
    struct CloseOnDrop<'a>(&'a CommitQueue);

    impl Drop for CloseOnDrop<'_> {
        fn drop(&mut self) {
            self.0.close();
        }
    }

    #[test]
    fn second_committer_runs_after_a_large_batch_and_drains_the_queue_on_close() {
        let dir = tempfile::tempdir().unwrap();
        let (log, index, tail) = open_log_and_index(dir.path(), 1 << 30);
        let appender = SegmentWriter::new(log.clone(), &tail).unwrap();
        let commits = CommitQueue::new(dir.path().to_owned(), log.clone(), appender);
        let put = |message: &[u8]| {
            // As if there were others, so that nobody commits for himself.
            commits.state().last_was_shared = true;
            let (digest, stored) = (Digest::compute(message), message.to_vec());
            let unknown = NewMessage { digest, kind: RecordKind::Message, payload: stored, corrupt_copy: None };
            assert_eq!(commits.submit(Change::Put(vec![unknown]), &index).unwrap(), [true]);
            let position = index.get(&digest).unwrap().unwrap();
            assert_eq!(log.read(&position).unwrap().unwrap(), message);
        };
        commits.state().last_bytes = *BATCH_BYTES.start();
        thread::scope(|scope| {
            let _closing = CloseOnDrop(&commits);
            scope.spawn(|| commits.run(&index, true));
            put(&vec![1; *BATCH_BYTES.start()]);
            put(b"the last one was large");
            let left = scope.spawn(|| put(b"the last one was small"));
            while commits.state().batches.is_empty() {
                assert!(!left.is_finished(), "the relief leaves it to the other thread");
                thread::yield_now();
            }
        });
    }
}
