//! Group commit: what waits is appended together and synced once, before any of it is acknowledged. Everything that
//! changes the store goes through here, one after the other, so that what is looked up here is how things stand.
//! Who is the only one to change anything commits for itself, which spares it two changes of threads.
//! A failed sync is final: what is on disk is not known then, so nothing is acknowledged any more.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

use crate::digest::Digest;
use crate::messages::Error;
use crate::store::index::Index;
use crate::store::log::{self, AppendError, Appender, Header, Kind, Log, Position, Record};

/// Bytes after which a group takes nothing more, at the least and at the most. In between, it takes half of what there
/// is: so one half is hashed while the other is synced. Less is hashed in no time, and better synced together.
const GROUP: std::ops::RangeInclusive<usize> = 1 << 18..=16 << 20;

/// Changes that wait, and why there can be no more of them.
#[derive(Debug)]
pub struct Commits {
    /// The store, for errors to name.
    dir: PathBuf,
    log: Arc<Log>,
    /// Whoever has it commits.
    appender: Mutex<Appender>,
    queue: Mutex<Queue>,
    /// Where the thread that commits waits for changes.
    waiting: Condvar,
    /// The same for the relief.
    relieving: Condvar,
    failed: OnceLock<Arc<str>>,
}

#[derive(Debug)]
struct Queue {
    groups: VecDeque<Waiting>,
    /// Bytes after which a group takes nothing more now.
    room: usize,
    /// Those of the last group, whose senders will come back.
    last: usize,
    /// Whether the last group had more than one change: then the next is better left to grow, too.
    crowded: bool,
    closed: bool,
}

/// Changes that will be committed together.
#[derive(Debug, Default)]
struct Waiting {
    changes: Vec<Change>,
    /// What they may append, in bytes.
    size: usize,
    outcome: Arc<Outcome>,
}

/// What became of a group: the answer to each change. One for all who wait for it, so that one call wakes them.
type Outcome = OnceLock<Vec<Answer>>;

/// As [`Change`] says.
type Answer = Result<Vec<bool>, Error>;

/// A change that is asked for.
#[derive(Debug)]
pub enum Change {
    /// Stores messages; answers which of them were not stored by a put beside this one.
    Put(Vec<Unknown>),
    /// Removes messages; answers which of them were stored.
    Remove(Vec<Digest>),
    /// Appends records again that stand elsewhere in the log; answers which of them were still needed.
    Move(Vec<Moved>),
    /// Forgets removals that stood where nothing is any more.
    Forget(Vec<(Digest, Position)>),
    /// Appends nothing more to the last segment.
    BeginSegment,
}

/// A message that was not found in the store, or not as it should be.
#[derive(Debug)]
pub struct Unknown {
    /// Of the message.
    pub digest: Digest,
    /// How it is stored.
    pub kind: Kind,
    /// The bytes to store.
    pub stored: Vec<u8>,
    /// Where a copy stands that is corrupt.
    pub corrupt: Option<Position>,
}

/// A record that is to stand elsewhere.
#[derive(Debug)]
pub struct Moved {
    /// As it is.
    pub header: Header,
    /// The bytes behind it, as they are.
    pub stored: Vec<u8>,
    /// Where it stands now.
    pub position: Position,
}

impl Change {
    /// How many bytes it may append.
    fn size(&self) -> usize {
        match self {
            Self::Put(batch) => batch.iter().map(|unknown| unknown.stored.len()).sum(),
            Self::Move(batch) => batch.iter().map(|moved| moved.stored.len()).sum(),
            Self::Remove(_) | Self::Forget(_) | Self::BeginSegment => 0,
        }
    }
}

impl Queue {
    /// Whether the last group was a large one.
    fn is_heavy(&self) -> bool {
        self.last >= *GROUP.start()
    }

    /// Puts a change into the last group, or a new one if that is full; answers with the group's outcome, and the
    /// change's place in it.
    fn add(&mut self, change: Change) -> (Arc<Outcome>, usize) {
        if self.groups.back().is_none_or(|last| last.size >= self.room) {
            self.groups.push_back(Waiting::default());
        }
        let group = self.groups.back_mut().expect("there is one now");
        group.size += change.size();
        group.changes.push(change);
        (group.outcome.clone(), group.changes.len() - 1)
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { groups: VecDeque::new(), room: *GROUP.start(), last: 0, crowded: false, closed: false }
    }
}

impl Commits {
    /// None yet; they will be appended to the log of the store in `dir`.
    pub fn new(dir: PathBuf, log: Arc<Log>, appender: Appender) -> Self {
        let (appender, queue) = (Mutex::new(appender), Mutex::default());
        Self { dir, log, appender, queue, waiting: Condvar::new(), relieving: Condvar::new(), failed: OnceLock::new() }
    }

    /// Waits until the change is durable; answers as [`Change`] says.
    pub fn carry_out(&self, change: Change, index: &Index) -> Answer {
        let mut queue = self.queue();
        if !queue.crowded
            && queue.groups.is_empty()
            && let Ok(mut appender) = self.appender.try_lock()
        {
            drop(queue);
            return self.commit(&mut appender, &[change], index).pop().expect("one answer for one change");
        }
        let (outcome, place) = queue.add(change);
        let is_heavy = queue.is_heavy();
        drop(queue);
        self.waiting.notify_one();
        if is_heavy {
            self.relieving.notify_one();
        }
        outcome.wait()[place].clone()
    }

    /// Why writing has stopped, if it has.
    pub fn failed(&self) -> Option<Arc<str>> {
        self.failed.get().cloned()
    }

    /// Ends [`Commits::run`] once all that waits is committed.
    pub fn close(&self) {
        self.queue().closed = true;
        self.waiting.notify_one();
        self.relieving.notify_one();
    }

    /// Commits what waits until [`Commits::close`]; for a thread of its own, and one for its relief. To wake all who
    /// wait for a large group takes a while, in which the other thread syncs the next. While those of a small one are
    /// woken, the next had better grow.
    pub fn run(&self, index: &Index, is_relief: bool) {
        while self.is_asked(is_relief) {
            let mut appender = self.appender.lock().expect(UNBROKEN);
            let Some(Waiting { changes, outcome, .. }) = self.next_group() else { continue };
            let answers = self.commit(&mut appender, &changes, index);
            drop(appender);
            // Nobody else sets it.
            let _ = outcome.set(answers);
        }
    }

    /// Makes changes durable together; answers each.
    fn commit(&self, appender: &mut Appender, changes: &[Change], index: &Index) -> Vec<Answer> {
        let mut group = Group {
            index,
            time: log::now(),
            records: Vec::new(),
            stored: HashMap::new(),
            forgotten: Vec::new(),
            more: 0,
        };
        let answers: Vec<_> = changes.iter().map(|change| group.add(change)).collect();
        let mut committed = self.append(appender, &group);
        if committed.is_ok() && changes.iter().any(|change| matches!(change, Change::BeginSegment)) {
            committed = appender.begin_segment().map_err(|error| self.explain(error));
            self.log.ends_at(appender.end());
        }
        answers.into_iter().map(|answer| committed.clone().and(answer)).collect()
    }

    fn append(&self, appender: &mut Appender, group: &Group) -> Result<(), Error> {
        if let Some(why) = self.failed() {
            return Err(Error::Failed(why));
        }
        let Group { records, forgotten, more, .. } = group;
        if !records.is_empty() {
            let positions = appender.append(records).map_err(|error| self.explain(error))?;
            let digests = records.iter().map(|record| record.header.digest);
            group.index.add(digests.zip(positions.into_iter().map(Some)), appender.end(), *more);
            self.log.ends_at(appender.end());
        }
        if !forgotten.is_empty() {
            group.index.add(forgotten.iter().map(|digest| (*digest, None)), appender.end(), 0);
        }
        Ok(())
    }

    fn explain(&self, error: AppendError) -> Error {
        match error {
            AppendError::Full => Error::Full(self.dir.clone()),
            AppendError::Failed(error) => {
                let why: Arc<str> = error.to_string().into();
                Error::Failed(self.failed.get_or_init(|| why).clone())
            }
        }
    }

    /// Waits for something to be done. `false`: there will be no more.
    fn is_asked(&self, is_relief: bool) -> bool {
        let may_wait = |queue: &mut Queue| !queue.closed && (queue.groups.is_empty() || is_relief && !queue.is_heavy());
        let condition = if is_relief { &self.relieving } else { &self.waiting };
        let queue = condition.wait_while(self.queue(), may_wait).expect(UNBROKEN);
        !queue.closed || !queue.groups.is_empty()
    }

    /// For who has the appender. `None` if the other thread has taken what there was.
    fn next_group(&self) -> Option<Waiting> {
        let mut queue = self.queue();
        let all = queue.last + queue.groups.iter().map(|group| group.size).sum::<usize>();
        queue.room = (all / 2).clamp(*GROUP.start(), *GROUP.end());
        let group = queue.groups.pop_front()?;
        queue.last = group.size;
        queue.crowded = group.changes.len() > 1;
        Some(group)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect(UNBROKEN)
    }
}

/// What a group appends: each message once, however many put it.
struct Group<'a> {
    index: &'a Index,
    time: u32,
    records: Vec<Record<'a>>,
    /// Whether a digest is stored once the records so far are.
    stored: HashMap<Digest, bool>,
    forgotten: Vec<Digest>,
    /// How many messages there are more once it is appended.
    more: i64,
}

impl<'a> Group<'a> {
    fn add(&mut self, change: &'a Change) -> Result<Vec<bool>, Error> {
        match change {
            Change::Put(batch) => Ok(batch.iter().map(|unknown| self.put(unknown)).collect()),
            Change::Remove(digests) => digests.iter().map(|digest| self.remove(*digest)).collect(),
            Change::Move(batch) => batch.iter().map(|moved| self.move_record(moved)).collect(),
            Change::Forget(removals) => {
                removals.iter().map(|(digest, position)| self.forget(*digest, *position)).collect()
            }
            Change::BeginSegment => Ok(Vec::new()),
        }
    }

    fn put(&mut self, unknown: &'a Unknown) -> bool {
        let Unknown { digest, kind, stored, corrupt } = unknown;
        // Another put may have stored it since this one looked; but a copy that was seen to be corrupt is none.
        let recent = || self.index.find_recent(digest).flatten();
        let is_there = |position: Position| position.is_message() && Some(position) != *corrupt;
        let is_stored = self.stored.get(digest).copied().unwrap_or_else(|| recent().is_some_and(is_there));
        if !is_stored {
            let number = u32::try_from(stored.len()).expect("Store refuses longer messages");
            self.append(Header { kind: *kind, number, time: self.time, digest: *digest }, stored);
            self.more += i64::from(corrupt.is_none());
        }
        !is_stored
    }

    fn remove(&mut self, digest: Digest) -> Result<bool, Error> {
        let is_stored = match self.stored.get(&digest) {
            Some(stored) => *stored,
            None => self.index.get(&digest)?.is_some(),
        };
        if is_stored {
            self.append(Header { kind: Kind::Removal, number: 0, time: self.time, digest }, &[]);
            self.more -= 1;
        }
        Ok(is_stored)
    }

    /// Only a record that the index points to is needed, and only until this group has another of its digest.
    fn move_record(&mut self, moved: &'a Moved) -> Result<bool, Error> {
        let digest = moved.header.digest;
        let is_needed = !self.stored.contains_key(&digest) && self.index.find(&digest)? == Some(moved.position);
        if is_needed {
            self.append(moved.header, &moved.stored);
        }
        Ok(is_needed)
    }

    fn forget(&mut self, digest: Digest, position: Position) -> Result<bool, Error> {
        let is_there = !self.stored.contains_key(&digest) && self.index.find(&digest)? == Some(position);
        self.forgotten.extend(is_there.then_some(digest));
        Ok(is_there)
    }

    fn append(&mut self, header: Header, bytes: &'a [u8]) {
        self.stored.insert(header.digest, header.kind != Kind::Removal);
        self.records.push(Record { header, bytes });
    }
}

const UNBROKEN: &str = "nobody panics while holding this";

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::store::local::opened;

    /// Ends the threads also of a test that fails.
    struct Closing<'a>(&'a Commits);

    impl Drop for Closing<'_> {
        fn drop(&mut self) {
            self.0.close();
        }
    }

    #[test]
    fn the_relief_commits_behind_a_large_group_and_what_is_left_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (log, index, tail) = opened(dir.path(), 1 << 30);
        let appender = Appender::new(log.clone(), &tail).unwrap();
        let commits = Commits::new(dir.path().to_owned(), log.clone(), appender);
        let put = |message: &[u8]| {
            // As if there were others, so that nobody commits for himself.
            commits.queue().crowded = true;
            let (digest, stored) = (Digest::of(message), message.to_vec());
            let unknown = Unknown { digest, kind: Kind::Message, stored, corrupt: None };
            assert_eq!(commits.carry_out(Change::Put(vec![unknown]), &index).unwrap(), [true]);
            let position = index.get(&digest).unwrap().unwrap();
            assert_eq!(log.read(&position).unwrap().unwrap(), message);
        };
        commits.queue().last = *GROUP.start();
        thread::scope(|scope| {
            let _closing = Closing(&commits);
            scope.spawn(|| commits.run(&index, true));
            put(&vec![1; *GROUP.start()]);
            put(b"the last one was large");
            let left = scope.spawn(|| put(b"the last one was small"));
            while commits.queue().groups.is_empty() {
                assert!(!left.is_finished(), "the relief leaves it to the other thread");
                thread::yield_now();
            }
        });
    }
}
