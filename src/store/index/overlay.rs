//! What is durable in the log but not yet in the table, so that the table is never waited for by a commit.
//! A digest is findable here from before its put is acknowledged until the table has it.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use super::FEW;
use super::block::{Entry, Standing};
use crate::digest::Digest;
use crate::store::log::Point;

/// Entries beyond which commits wait for the table to catch up.
const CAPACITY: usize = 1 << 16;
/// Entries that the table takes at a time, unless somebody waits for it: the more, the closer together they go.
const ENOUGH: usize = 1 << 14;

/// Entries on their way into the table; `None` takes a digest out of it.
pub type Entries = Arc<HashMap<Digest, Standing>>;

/// What the thread behind the table has to do next.
pub enum Work {
    /// These go into the table; then it is complete up to this point.
    Insert(Entries, Point),
    /// Nothing for a while.
    Idle,
    /// Nothing any more.
    Closed,
}

/// Two maps: one that commits fill, one that moves into the table.
#[derive(Default)]
pub struct Overlay {
    maps: RwLock<Maps>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct Maps {
    filling: HashMap<Digest, Standing>,
    moving: Entries,
}

impl Maps {
    fn get(&self, digest: &Digest) -> Option<Standing> {
        self.filling.get(digest).or_else(|| self.moving.get(digest)).copied()
    }
}

#[derive(Default)]
struct State {
    waiting: usize,
    /// How many times something was added: in all, up to what is moving, and up to what the table has.
    added: u64,
    moving: u64,
    moved: u64,
    end: Option<Point>,
    /// Whether somebody waits for the table to have it all.
    urgent: bool,
    closed: bool,
}

impl Overlay {
    /// What the table will have under a digest, if that is on its way.
    pub fn get(&self, digest: &Digest) -> Option<Standing> {
        self.maps.read().expect(UNBROKEN).get(digest)
    }

    /// The same of many.
    pub fn get_all(&self, digests: &[Digest]) -> Vec<Option<Standing>> {
        let maps = self.maps.read().expect(UNBROKEN);
        digests.iter().map(|digest| maps.get(digest)).collect()
    }

    /// Adds what was committed; the log now ends at `end`. Waits while there is too much on the way.
    pub fn add(&self, entries: impl Iterator<Item = Entry>, end: Point) {
        let mut state = self.state();
        {
            let mut maps = self.maps.write().expect(UNBROKEN);
            maps.filling.extend(entries);
            state.waiting = maps.filling.len();
        }
        state.added += 1;
        state.end = Some(end);
        self.changed.notify_all();
        while state.waiting > CAPACITY && !state.closed {
            state = self.changed.wait(state).expect(UNBROKEN);
        }
    }

    /// What is to be done, waiting up to `idle` for enough of it.
    pub fn take(&self, idle: Duration) -> Work {
        let state = self.state();
        let nothing = |state: &mut State| state.waiting < ENOUGH && !state.urgent && !state.closed;
        let (mut state, _) = self.changed.wait_timeout_while(state, idle, nothing).expect(UNBROKEN);
        if state.waiting == 0 {
            return if state.closed { Work::Closed } else { Work::Idle };
        }
        let mut maps = self.maps.write().expect(UNBROKEN);
        maps.moving = Arc::new(std::mem::take(&mut maps.filling));
        state.waiting = 0;
        state.urgent = false;
        state.moving = state.added;
        self.changed.notify_all();
        Work::Insert(maps.moving.clone(), state.end.expect("set with the first entry"))
    }

    /// The tree has what was taken.
    pub fn done(&self) {
        let mut state = self.state();
        self.maps.write().expect(UNBROKEN).moving = Entries::default();
        state.moved = state.moving;
        self.changed.notify_all();
    }

    /// Waits until the table has all that was added before this call.
    pub fn settle(&self) {
        let mut state = self.state();
        let target = state.added;
        state.urgent = state.waiting > 0;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| state.moved < target).expect(UNBROKEN));
    }

    /// Whether what waits for the table is [little](is_little).
    pub fn is_little(&self) -> bool {
        let maps = self.maps.read().expect(UNBROKEN);
        is_little(maps.filling.values())
    }

    /// Whether [`Overlay::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Nothing more is added; [`Overlay::take`] says so once all is taken, or at once if the table is to have no more.
    pub fn close(&self, leave: bool) {
        let mut state = self.state();
        state.closed = true;
        if leave {
            state.waiting = 0;
        }
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(UNBROKEN)
    }
}

/// Whether entries can be left to the next process: few, and messages. What was removed is to give its space back soon.
pub fn is_little<'a>(mut positions: impl ExactSizeIterator<Item = &'a Standing>) -> bool {
    positions.len() <= FEW && positions.all(|position| position.is_some_and(|position| position.is_message()))
}

const UNBROKEN: &str = "nobody panics while holding this";
