//! Small puts that come while others are on their way gather, and go together as one request: who is there first asks
//! for all. Nobody gets another answer for it than alone: what does not come back as stored is for each to ask for.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::turns::{Turn, Turns};
use crate::digest::Digest;

/// How many groups are on their way at a time: with more, they would be small.
const AT_A_TIME: usize = 1;
/// How long a group gathers at the most: what is on its way may be held up by what has nothing to do with this one.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long a group gets, in bytes.
const FULL: usize = 128 << 10;

/// Puts that gather.
pub(super) struct Together {
    gathering: Mutex<Group>,
    turns: Turns,
}

/// Lines that go together.
#[derive(Default)]
struct Group {
    lines: Vec<u8>,
    count: usize,
    outcome: Outcome,
}

/// What is stored, by the places in the group. One for all who wait for it, so that one call wakes them.
type Outcome = Arc<OnceLock<Vec<Option<Digest>>>>;

/// How it goes on for one who came.
pub(super) enum Part<'a> {
    /// It asks, for all that gathered.
    First(Lead<'a>),
    /// Another asked: the message is stored, or has to be asked for alone.
    Other(Option<Digest>),
}

/// Who asks for a group. If it goes without a word, each asks alone.
pub(super) struct Lead<'a> {
    group: Group,
    _turn: Option<Turn<'a>>,
}

impl Default for Together {
    fn default() -> Self {
        Self::new(PATIENCE)
    }
}

impl Together {
    /// None yet. A group that gathered for so long goes, whatever is on its way.
    pub(super) fn new(patience: Duration) -> Self {
        Self { gathering: Mutex::default(), turns: Turns::new(AT_A_TIME, patience) }
    }

    /// Joins those who gather with `line`, and waits until it is time to ask for all, or another has done so.
    pub(super) fn join(&self, line: &[u8]) -> Part<'_> {
        let mut gathering = self.gathering();
        let place = gathering.count;
        if place > 0 && gathering.lines.len() + line.len() > FULL {
            return Part::Other(None);
        }
        gathering.lines.extend_from_slice(line);
        gathering.count += 1;
        if place > 0 {
            let outcome = Arc::clone(&gathering.outcome);
            drop(gathering);
            return Part::Other(outcome.wait().get(place).copied().flatten());
        }
        drop(gathering);
        let turn = self.turns.take();
        Part::First(Lead { group: mem::take(&mut *self.gathering()), _turn: turn })
    }

    fn gathering(&self) -> MutexGuard<'_, Group> {
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead<'_> {
    /// Whether nobody else came.
    pub(super) const fn is_alone(&self) -> bool {
        self.group.count == 1
    }

    /// What to ask for, once.
    pub(super) fn lines(&mut self) -> Vec<u8> {
        mem::take(&mut self.group.lines)
    }

    /// Tells all what is stored; answers with what that is for the first.
    pub(super) fn tell(self, stored: Vec<Option<Digest>>) -> Option<Digest> {
        let first = stored.first().copied().flatten();
        // It was empty: nothing else is ever told.
        let _ = self.group.outcome.set(stored);
        first
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let _ = self.group.outcome.set(Vec::new());
    }
}

#[cfg(test)]
#[path = "together_tests.rs"]
pub(super) mod tests;
