//! Coalescing of small concurrent puts. While one batch is in flight, later puts collect in the next batch, which its
//! first member submits for all. A put that is not reported as stored is executed alone, so coalescing never changes a
//! response. See docs/design.md, "Put coalescing".

use std::iter;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::semaphore::{Permit, Semaphore};
use crate::digest::Digest;

/// Maximum number of batches in flight. With more, the batches would be smaller.
const MAX_BATCHES_IN_FLIGHT: usize = 1;
/// Maximum time that a batch stays open while another one is in flight.
const MAX_BATCH_WAIT: Duration = Duration::from_millis(20);
/// Maximum size of a batch, in bytes.
const MAX_BATCH_BYTES: usize = 128 << 10;

/// Open batch of puts, and the permit to submit a batch.
pub(super) struct PutCoalescer {
    open_batch: Mutex<Batch>,
    batch_permits: Semaphore,
}

/// Completion callback. It receives the digest if the put was stored, or `None` if the put must be executed alone. It
/// runs on the batch leader's thread and must not block.
pub(super) type Completion = Box<dyn FnOnce(Option<Digest>) + Send>;

/// Puts as JSON lines, and their completion callbacks in the same order.
#[derive(Default)]
struct Batch {
    lines: Vec<u8>,
    waiters: Vec<Completion>,
}

/// Result of [`PutCoalescer::enqueue`].
pub(super) enum Enqueued<'a> {
    /// The put is the first of its batch: the caller must submit the batch.
    Leader(BatchLeader<'a>),
    /// The leader of the batch submits the put.
    Follower,
    /// The put does not fit the open batch. The callback is returned.
    Rejected(Completion),
}

/// Leader of a batch. Dropping it completes the remaining puts of the batch with `None`.
pub(super) struct BatchLeader<'a> {
    coalescer: &'a PutCoalescer,
    /// Empty while the batch is open.
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
    /// Creates a coalescer. A batch is submitted after `max_wait`, even if another one is in flight.
    pub(super) fn new(max_wait: Duration) -> Self {
        Self { open_batch: Mutex::default(), batch_permits: Semaphore::new(MAX_BATCHES_IN_FLIGHT, max_wait) }
    }

    /// Adds a put as `line` to the open batch. `completion` is called when the batch is complete.
    pub(super) fn enqueue(&self, line: &[u8], completion: Completion) -> Enqueued<'_> {
        let mut batch = self.open_batch();
        let is_first = batch.waiters.is_empty();
        if !is_first && batch.lines.len() + line.len() > MAX_BATCH_BYTES {
            return Enqueued::Rejected(completion);
        }
        batch.lines.extend_from_slice(line);
        batch.waiters.push(completion);
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
    /// Blocks until no other batch is in flight or the maximum wait is over, closes the batch and returns its lines.
    /// `None`: the batch has one put only, which is not worth a batch request.
    pub(super) fn seal(&mut self) -> Option<Vec<u8>> {
        self.permit = self.coalescer.batch_permits.acquire();
        self.take_open_batch();
        (self.batch.waiters.len() > 1).then(|| mem::take(&mut self.batch.lines))
    }

    /// Completes the puts with `digests`, which are in the order of the lines. A put without a digest must be executed
    /// alone.
    pub(super) fn complete(mut self, digests: Vec<Option<Digest>>) {
        self.complete_all(digests);
    }

    fn complete_all(&mut self, digests: Vec<Option<Digest>>) {
        let digests = digests.into_iter().chain(iter::repeat(None));
        for (completion, digest) in mem::take(&mut self.batch.waiters).into_iter().zip(digests) {
            completion(digest);
        }
    }

    /// Closes the batch: later puts start the next one.
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
