//! Group commit: what waits is appended together and synced once, before any of it is acknowledged.
//! A failed sync is final: what is on disk is not known then, so nothing is acknowledged any more.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

use crate::digest::Digest;
use crate::messages::Error;
use crate::store::index::Index;
use crate::store::log::{AppendError, Appender, Position};

/// Bytes after which a group takes no further puts.
const GROUP: usize = 16 << 20;

/// Puts that wait, and why there can be no more of them.
#[derive(Debug)]
pub struct Commits {
    /// The store, for errors to name.
    dir: PathBuf,
    queue: Mutex<Queue>,
    waiting: Condvar,
    failed: OnceLock<Arc<str>>,
}

#[derive(Debug, Default)]
struct Queue {
    puts: Vec<Put>,
    closed: bool,
}

/// A message that was not found in the store, or not as it should be.
#[derive(Debug)]
pub struct Unknown {
    /// Of the message.
    pub digest: Digest,
    /// The bytes.
    pub message: Vec<u8>,
    /// Where a copy stands that is corrupt.
    pub corrupt: Option<Position>,
}

/// Messages of one caller, and where it waits for the answer.
#[derive(Debug)]
struct Put {
    batch: Vec<Unknown>,
    done: SyncSender<Result<Vec<bool>, Error>>,
}

impl Commits {
    /// None yet.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, queue: Mutex::default(), waiting: Condvar::new(), failed: OnceLock::new() }
    }

    /// Waits until the messages are durable; answers which of them were not stored by a put beside this one.
    pub fn put(&self, batch: Vec<Unknown>) -> Result<Vec<bool>, Error> {
        let (done, answer) = sync_channel(1);
        self.queue().puts.push(Put { batch, done });
        self.waiting.notify_one();
        answer.recv().expect("the commit thread answers every put")
    }

    /// Why writing has stopped, if it has.
    pub fn failed(&self) -> Option<Arc<str>> {
        self.failed.get().cloned()
    }

    /// Ends [`Commits::run`] once all that waits is committed.
    pub fn close(&self) {
        self.queue().closed = true;
        self.waiting.notify_one();
    }

    /// Commits until [`Commits::close`]; for a thread of its own.
    pub fn run(&self, mut appender: Appender, index: &Index) {
        while let Some(puts) = self.next_group() {
            let group = Group::of(&puts, index);
            let committed = match self.failed() {
                Some(why) => Err(Error::Failed(why)),
                None if group.messages.is_empty() => Ok(()),
                None => self.commit(&mut appender, &group.messages, index),
            };
            for (put, new) in puts.iter().zip(group.new) {
                // A caller that is gone needs no answer.
                let _ = put.done.send(committed.clone().map(|()| new));
            }
        }
    }

    fn commit(&self, appender: &mut Appender, group: &[(Digest, &[u8])], index: &Index) -> Result<(), Error> {
        match appender.append(group) {
            Ok(positions) => {
                index.add(group.iter().map(|(digest, _)| *digest).zip(positions), appender.end());
                Ok(())
            }
            Err(AppendError::Full) => Err(Error::Full(self.dir.clone())),
            Err(AppendError::Failed(error)) => {
                let why: Arc<str> = error.to_string().into();
                Err(Error::Failed(self.failed.get_or_init(|| why).clone()))
            }
        }
    }

    fn next_group(&self) -> Option<Vec<Put>> {
        let idle = |queue: &mut Queue| queue.puts.is_empty() && !queue.closed;
        let mut queue = self.waiting.wait_while(self.queue(), idle).expect(UNBROKEN);
        let mut bytes = 0;
        let taken = queue.puts.iter().take_while(|put| {
            let fits = bytes < GROUP;
            bytes += put.batch.iter().map(|unknown| unknown.message.len()).sum::<usize>();
            fits
        });
        let taken = taken.count();
        let rest = queue.puts.split_off(taken);
        let group = std::mem::replace(&mut queue.puts, rest);
        (!group.is_empty()).then_some(group)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect(UNBROKEN)
    }
}

/// What a group appends: each message once, however many put it.
struct Group<'a> {
    messages: Vec<(Digest, &'a [u8])>,
    /// For each put, which of its messages are appended for it.
    new: Vec<Vec<bool>>,
}

impl<'a> Group<'a> {
    fn of(puts: &'a [Put], index: &Index) -> Self {
        let mut seen = HashSet::new();
        let mut messages = Vec::new();
        let mut append = |unknown: &'a Unknown| {
            // Another put may have stored it since this one looked; but a copy that was seen to be corrupt is none.
            let stored = index.get_recent(&unknown.digest).filter(|position| Some(*position) != unknown.corrupt);
            let new = stored.is_none() && seen.insert(unknown.digest);
            if new {
                messages.push((unknown.digest, unknown.message.as_slice()));
            }
            new
        };
        let new = puts.iter().map(|put| put.batch.iter().map(&mut append).collect()).collect();
        Self { messages, new }
    }
}

const UNBROKEN: &str = "nobody panics while holding this";
