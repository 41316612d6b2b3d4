//! Small puts that come while others are on their way gather, and go together as one request: who is there first asks
//! for all. Nobody gets another answer for it than alone: what does not come back as stored is for each to ask for.

use std::iter;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// How it goes on with one who came, once it is known what is stored. `None`: the message has to be asked for alone.
/// It is called by who asked, who does not wait: neither may this.
pub(super) type Then = Box<dyn FnOnce(Option<Digest>) + Send>;

/// Lines that go together, and whose they are.
#[derive(Default)]
struct Group {
    lines: Vec<u8>,
    members: Vec<Then>,
}

/// What came of joining.
pub(super) enum Joined<'a> {
    /// Whoever joined is the first: to lead is up to this thread.
    First(Lead<'a>),
    /// Another asks for all.
    Later,
    /// There is no room.
    Full(Then),
}

/// Who asks for a group. If it goes without a word, each asks alone.
pub(super) struct Lead<'a> {
    together: &'a Together,
    /// Nobody yet, while it gathers.
    group: Group,
    gathers: bool,
    turn: Option<Turn<'a>>,
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

    /// Joins those who gather with `line`; `then` is called when it is known what is stored.
    pub(super) fn join(&self, line: &[u8], then: Then) -> Joined<'_> {
        let mut gathering = self.gathering();
        let is_first = gathering.members.is_empty();
        if !is_first && gathering.lines.len() + line.len() > FULL {
            return Joined::Full(then);
        }
        gathering.lines.extend_from_slice(line);
        gathering.members.push(then);
        match is_first {
            true => Joined::First(Lead { together: self, group: Group::default(), gathers: true, turn: None }),
            false => Joined::Later,
        }
    }

    fn gathering(&self) -> MutexGuard<'_, Group> {
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead<'_> {
    /// Waits until it is time to ask, and answers with what to ask for; `None` if nobody else came.
    pub(super) fn gather(&mut self) -> Option<Vec<u8>> {
        self.turn = self.together.turns.take();
        self.close();
        (self.group.members.len() > 1).then(|| mem::take(&mut self.group.lines))
    }

    /// Tells each what is stored, by their places.
    pub(super) fn tell(mut self, stored: Vec<Option<Digest>>) {
        self.tell_all(stored);
    }

    fn tell_all(&mut self, stored: Vec<Option<Digest>>) {
        let stored = stored.into_iter().chain(iter::repeat(None));
        for (then, stored) in mem::take(&mut self.group.members).into_iter().zip(stored) {
            then(stored);
        }
    }

    /// Nobody joins any more.
    fn close(&mut self) {
        if mem::take(&mut self.gathers) {
            self.group = mem::take(&mut *self.together.gathering());
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.close();
        self.tell_all(Vec::new());
        self.turn = None;
    }
}

#[cfg(test)]
#[path = "together_tests.rs"]
pub(super) mod tests;
