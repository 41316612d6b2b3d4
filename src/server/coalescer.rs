//! Small puts that come while others are on their way gather, and go together as one request: who is there first asks
//! for all. Nobody gets another answer for it than alone: what does not come back as stored is for each to ask for.

use std::iter;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::semaphore::{Permit, Semaphore};
use crate::digest::Digest;

/// How many groups are on their way at a time: with more, they would be small.
const MAX_BATCHES_IN_FLIGHT: usize = 1;
/// How long a group gathers at the most: what is on its way may be held up by what has nothing to do with this one.
const MAX_BATCH_WAIT: Duration = Duration::from_millis(20);
/// How long a group gets, in bytes.
const MAX_BATCH_BYTES: usize = 128 << 10;

/// Puts that gather.
pub(super) struct PutCoalescer {
    open_batch: Mutex<Batch>,
    batch_permits: Semaphore,
}

/// How it goes on with one who came, once it is known what is stored. `None`: the message has to be asked for alone.
/// It is called by who asked, who does not wait: neither may this.
pub(super) type Completion = Box<dyn FnOnce(Option<Digest>) + Send>;

/// Lines that go together, and whose they are.
#[derive(Default)]
struct Batch {
    lines: Vec<u8>,
    waiters: Vec<Completion>,
}

/// What came of joining.
pub(super) enum Enqueued<'a> {
    /// Whoever joined is the first: to lead is up to this thread.
    Leader(BatchLeader<'a>),
    /// Another asks for all.
    Follower,
    /// There is no room.
    Rejected(Completion),
}

/// Who asks for a group. If it goes without a word, each asks alone.
pub(super) struct BatchLeader<'a> {
    coalescer: &'a PutCoalescer,
    /// Nobody yet, while it gathers.
    batch: Batch,
    is_open: bool,
    permit: Option<Permit<'a>>,
}

impl Default for PutCoalescer {
    fn default() -> Self {
        Self::new(MAX_BATCH_WAIT)
    }
}

impl PutCoalescer {
    /// None yet. A group that gathered for so long goes, whatever is on its way.
    pub(super) fn new(patience: Duration) -> Self {
        Self { open_batch: Mutex::default(), batch_permits: Semaphore::new(MAX_BATCHES_IN_FLIGHT, patience) }
    }

    /// Joins those who gather with `line`; `then` is called when it is known what is stored.
    pub(super) fn enqueue(&self, line: &[u8], then: Completion) -> Enqueued<'_> {
        let mut gathering = self.open_batch();
        let is_first = gathering.waiters.is_empty();
        if !is_first && gathering.lines.len() + line.len() > MAX_BATCH_BYTES {
            return Enqueued::Rejected(then);
        }
        gathering.lines.extend_from_slice(line);
        gathering.waiters.push(then);
        match is_first {
            true => {
                Enqueued::Leader(BatchLeader { coalescer: self, batch: Batch::default(), is_open: true, permit: None })
            }
            false => Enqueued::Follower,
        }
    }

    fn open_batch(&self) -> MutexGuard<'_, Batch> {
        self.open_batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BatchLeader<'_> {
    /// Waits until it is time to ask, and answers with what to ask for; `None` if nobody else came.
    pub(super) fn seal(&mut self) -> Option<Vec<u8>> {
        self.permit = self.coalescer.batch_permits.acquire();
        self.take_open_batch();
        (self.batch.waiters.len() > 1).then(|| mem::take(&mut self.batch.lines))
    }

    /// Tells each what is stored, by their places.
    pub(super) fn complete(mut self, stored: Vec<Option<Digest>>) {
        self.complete_all(stored);
    }

    fn complete_all(&mut self, stored: Vec<Option<Digest>>) {
        let stored = stored.into_iter().chain(iter::repeat(None));
        for (then, stored) in mem::take(&mut self.batch.waiters).into_iter().zip(stored) {
            then(stored);
        }
    }

    /// Nobody joins any more.
    fn take_open_batch(&mut self) {
        if mem::take(&mut self.is_open) {
            self.batch = mem::take(&mut *self.coalescer.open_batch());
        }
    }
}

impl Drop for BatchLeader<'_> {
    fn drop(&mut self) {
        self.take_open_batch();
        self.complete_all(Vec::new());
        self.permit = None;
    }
}

#[cfg(test)]
#[path = "coalescer_tests.rs"]
pub(super) mod tests;
