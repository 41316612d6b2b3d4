//! What is durable in the log but not yet in the table, so that the table is never waited for by a commit.
//! A digest is findable here from before its put is acknowledged until the table has it.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use super::DEFER_ENTRIES;
use super::block::{IndexEntry, Slot};
use crate::digest::Digest;
use crate::store::log::LogPosition;

/// Entries beyond which commits wait for the table to catch up.
const BACKPRESSURE_LIMIT: usize = 1 << 16;
/// Entries that the table takes at a time, unless somebody waits for it: the more, the closer together they go.
const DRAIN_BATCH: usize = 1 << 14;

/// Entries on their way into the table; `None` takes a digest out of it.
pub type EntryMap = Arc<HashMap<Digest, Slot>>;

/// What the thread behind the table has to do next.
pub enum Work {
    /// These go into the table; then it is complete up to this point.
    Insert(EntryMap, LogPosition),
    /// Nothing for a while.
    Idle,
    /// Nothing any more.
    Closed,
}

/// Two maps: one that commits fill, one that moves into the table.
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
    pending: usize,
    /// How many times something was added: in all, up to what is moving, and up to what the table has.
    added_seq: u64,
    draining_seq: u64,
    drained_seq: u64,
    end: Option<LogPosition>,
    /// Whether somebody waits for the table to have it all.
    drain_requested: bool,
    closed: bool,
}

impl WriteBuffer {
    /// What the table will have under a digest, if that is on its way.
    pub fn get(&self, digest: &Digest) -> Option<Slot> {
        self.maps.read().expect(LOCK_POISONED).get(digest)
    }

    /// The same of many.
    pub fn get_all(&self, digests: &[Digest]) -> Vec<Option<Slot>> {
        let maps = self.maps.read().expect(LOCK_POISONED);
        digests.iter().map(|digest| maps.get(digest)).collect()
    }

    /// Adds what was committed; the log now ends at `end`. Waits while there is too much on the way.
    pub fn add(&self, entries: impl Iterator<Item = IndexEntry>, end: LogPosition) {
        let mut state = self.state();
        {
            let mut maps = self.maps.write().expect(LOCK_POISONED);
            maps.active.extend(entries);
            state.pending = maps.active.len();
        }
        state.added_seq += 1;
        state.end = Some(end);
        self.changed.notify_all();
        while state.pending > BACKPRESSURE_LIMIT && !state.closed {
            state = self.changed.wait(state).expect(LOCK_POISONED);
        }
    }

    /// What is to be done, waiting up to `idle` for enough of it.
    pub fn next_work(&self, idle: Duration) -> Work {
        let state = self.state();
        let nothing = |state: &mut State| state.pending < DRAIN_BATCH && !state.drain_requested && !state.closed;
        let (mut state, _) = self.changed.wait_timeout_while(state, idle, nothing).expect(LOCK_POISONED);
        if state.pending == 0 {
            return if state.closed { Work::Closed } else { Work::Idle };
        }
        let mut maps = self.maps.write().expect(LOCK_POISONED);
        maps.draining = Arc::new(std::mem::take(&mut maps.active));
        state.pending = 0;
        state.drain_requested = false;
        state.draining_seq = state.added_seq;
        self.changed.notify_all();
        Work::Insert(maps.draining.clone(), state.end.expect("set with the first entry"))
    }

    /// The tree has what was taken.
    pub fn finish_drain(&self) {
        let mut state = self.state();
        self.maps.write().expect(LOCK_POISONED).draining = EntryMap::default();
        state.drained_seq = state.draining_seq;
        self.changed.notify_all();
    }

    /// Waits until the table has all that was added before this call.
    pub fn wait_drained(&self) {
        let mut state = self.state();
        let target = state.added_seq;
        state.drain_requested = state.pending > 0;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| state.drained_seq < target).expect(LOCK_POISONED));
    }

    /// Whether what waits for the table is [small](is_deferrable).
    pub fn is_small(&self) -> bool {
        let maps = self.maps.read().expect(LOCK_POISONED);
        is_deferrable(maps.active.values())
    }

    /// Whether [`WriteBuffer::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Nothing more is added; [`WriteBuffer::next_work`] says so once all is taken, or at once if the table is to have no more.
    pub fn close(&self, discard: bool) {
        let mut state = self.state();
        state.closed = true;
        if discard {
            state.pending = 0;
        }
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(LOCK_POISONED)
    }
}

/// Whether entries can be left to the next process: few, and messages. What was removed is to give its space back soon.
pub fn is_deferrable<'a>(mut positions: impl ExactSizeIterator<Item = &'a Slot>) -> bool {
    positions.len() <= DEFER_ENTRIES && positions.all(|position| position.is_some_and(|position| position.is_message()))
}

const LOCK_POISONED: &str = "nobody panics while holding this";
