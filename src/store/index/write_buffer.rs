//! The write buffer: entries that are committed in the log and not yet in the LSM tree, so that no commit waits for the
//! tree. An entry can be found here from before its change is acknowledged until the tree has it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

use super::block::{IndexEntry, Slot};
use crate::digest::Digest;
use crate::store::log::LogPosition;

/// Number of entries above which commits wait until the buffer is drained.
const BACKPRESSURE_LIMIT: usize = 1 << 16;
/// Number of entries at which the buffer is drained without further delay. Larger batches write fewer pages.
const DRAIN_BATCH: usize = 1 << 14;
/// Maximum number of entries that are left for the next process to replay, which is cheaper than a flush.
const DEFER_ENTRIES: usize = 256;

/// Entries of the buffer. A slot that is `None` removes the digest from the index.
pub type EntryMap = Arc<HashMap<Digest, Slot>>;

/// Next task of the index thread.
pub enum Work {
    /// Insert the entries into the tree, which is then complete up to the position.
    Insert(EntryMap, LogPosition),
    /// Nothing was added for the idle time, and the buffer is empty.
    Idle,
    /// The buffer is closed and empty.
    Closed,
}

/// Two maps: the active one receives committed entries, the draining one is being inserted into the tree.
#[derive(Default)]
pub struct WriteBuffer {
    maps: RwLock<Maps>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct Maps {
    active: HashMap<Digest, Slot>,
    draining: EntryMap,
}

impl Maps {
    fn get(&self, digest: &Digest) -> Option<Slot> {
        self.active.get(digest).or_else(|| self.draining.get(digest)).copied()
    }
}

#[derive(Default)]
struct State {
    /// Number of entries in the active map.
    pending: usize,
    /// Number of calls of `add`.
    added_seq: u64,
    /// Value of `added_seq` when the current drain began.
    draining_seq: u64,
    /// Value of `added_seq` up to which the tree has all entries.
    drained_seq: u64,
    /// End of the log after the last call of `add`.
    end: Option<LogPosition>,
    /// Set while a caller waits for the buffer to be drained.
    drain_requested: bool,
    closed: bool,
}

impl WriteBuffer {
    /// Returns the slot of `digest`, or `None` if the buffer has no entry for it.
    pub fn get(&self, digest: &Digest) -> Option<Slot> {
        self.maps.read().get(digest)
    }

    /// Returns the slots of all digests, as [`WriteBuffer::get`] does.
    pub fn get_all(&self, digests: &[Digest]) -> Vec<Option<Slot>> {
        let maps = self.maps.read();
        digests.iter().map(|digest| maps.get(digest)).collect()
    }

    /// Adds committed entries, after which the log ends at `end`. Blocks while there are more than [`BACKPRESSURE_LIMIT`]
    /// entries.
    pub fn add(&self, entries: impl Iterator<Item = IndexEntry>, end: LogPosition) {
        let mut state = self.state();
        {
            let mut maps = self.maps.write();
            maps.active.extend(entries);
            state.pending = maps.active.len();
        }
        state.added_seq += 1;
        state.end = Some(end);
        self.changed.notify_all();
        while state.pending > BACKPRESSURE_LIMIT && !state.closed {
            self.changed.wait(&mut state);
        }
    }

    /// Returns the next task. Blocks for up to `idle` until a drain is due. After [`Work::Insert`], the caller must call
    /// [`WriteBuffer::finish_drain`].
    pub fn next_work(&self, idle: Duration) -> Work {
        let mut state = self.state();
        let is_idle = |state: &mut State| state.pending < DRAIN_BATCH && !state.drain_requested && !state.closed;
        self.changed.wait_while_for(&mut state, is_idle, idle);
        if state.pending == 0 {
            return if state.closed { Work::Closed } else { Work::Idle };
        }
        let mut maps = self.maps.write();
        maps.draining = Arc::new(std::mem::take(&mut maps.active));
        state.pending = 0;
        state.drain_requested = false;
        state.draining_seq = state.added_seq;
        self.changed.notify_all();
        Work::Insert(maps.draining.clone(), state.end.expect("`add` sets the end"))
    }

    /// Removes the drained entries, which the tree has now.
    pub fn finish_drain(&self) {
        let mut state = self.state();
        self.maps.write().draining = EntryMap::default();
        state.drained_seq = state.draining_seq;
        self.changed.notify_all();
    }

    /// Blocks until the tree has all entries that were added before this call.
    pub fn wait_drained(&self) {
        let mut state = self.state();
        let target = state.added_seq;
        state.drain_requested = state.pending > 0;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.drained_seq < target);
    }

    /// Returns whether the active entries are [deferrable](is_deferrable).
    pub fn is_small(&self) -> bool {
        let maps = self.maps.read();
        is_deferrable(maps.active.values())
    }

    /// Returns whether [`WriteBuffer::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Closes the buffer, to which nothing must be added any more. Its entries are still drained.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Closes the buffer without draining it: the next process replays its entries from the log.
    pub fn discard(&self) {
        self.state().pending = 0;
        self.close();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Returns whether the next process can replay the entries: there are few, and all are messages. Removals are inserted,
/// so that compaction can give their space back soon.
pub fn is_deferrable<'a>(mut slots: impl ExactSizeIterator<Item = &'a Slot>) -> bool {
    slots.len() <= DEFER_ENTRIES && slots.all(|slot| slot.is_some_and(|location| location.is_message()))
}
