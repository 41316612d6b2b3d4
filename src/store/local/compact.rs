//! Compaction gives space back: of a segment that is more than half dead, what is needed is appended again, then its
//! file is removed. Nothing goes before what takes its place is durable; interrupted anywhere, it just begins again.

mod segment;

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::Core;
use crate::messages::Error;
use crate::store::Note;
use crate::store::index::{Index, Mark};
use crate::store::log::{FIRST_RECORD, Log, Point};
use segment::{Stopped, compact};

/// Less is not worth a compaction, in bytes, unless that is most of a segment.
const LEAST: u64 = 1 << 20;
/// After removing something, a store that is closed first finishes what is due, for so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often to look even if nothing was removed: what is stored anew makes the old dead, too.
const RARELY: Duration = Duration::from_secs(3600);
/// After a failure, it is tried again so much later.
const AGAIN: Duration = Duration::from_secs(60);

/// When to compact.
#[derive(Debug, Default)]
pub struct Compactions {
    state: Mutex<State>,
    changed: Condvar,
    /// One at a time.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Something was removed since the last look.
    wanted: bool,
    /// Something was removed at all.
    removed: bool,
    closed: Option<Instant>,
}

impl Compactions {
    /// Something was removed.
    pub fn want(&self) {
        let mut state = self.state();
        state.wanted = true;
        state.removed = true;
        self.changed.notify_all();
    }

    /// Ends [`Compactions::run`].
    pub fn close(&self) {
        self.state().closed = Some(Instant::now());
        self.changed.notify_all();
    }

    /// Compacts what is due, again and again; for a thread of its own.
    pub fn run(&self, core: &Core) {
        let mut damaged = Vec::new();
        let mut said = false;
        loop {
            let pause = match self.compact_all(core, &mut damaged) {
                Ok(()) => RARELY,
                Err(error) => {
                    if !said {
                        (core.notes)(Note::Said(format!("the log cannot be compacted now: {error}")));
                    }
                    said = true;
                    AGAIN
                }
            };
            let idle = |state: &mut State| !state.wanted && state.closed.is_none();
            let waited = self.changed.wait_timeout_while(self.state(), pause, idle);
            let (mut state, _) = waited.expect(UNBROKEN);
            if state.closed.is_some() && !state.wanted {
                return;
            }
            state.wanted = false;
        }
    }

    fn compact_all(&self, core: &Core, damaged: &mut Vec<u32>) -> Result<(), Error> {
        while let Some(number) = self.next(core, damaged)? {
            let stop = || {
                let state = self.state();
                state.closed.is_some_and(|closed| !state.removed || closed.elapsed() > PATIENCE)
            };
            match compact(core, number, false, &stop) {
                Ok(()) => {}
                Err(Stopped::Closed) => return Ok(()),
                Err(Stopped::Failed(error)) => return Err(error),
                Err(Stopped::Damaged) => {
                    damaged.push(number);
                    let text = format!("segment {number} is damaged and is not compacted; `verify --repair` mends it");
                    (core.notes)(Note::Said(text));
                }
            }
        }
        Ok(())
    }

    /// The segment that is due. Where nothing was removed, the tree is not made to take what is new only to find none.
    fn next(&self, core: &Core, damaged: &[u32]) -> Result<Option<u32>, Error> {
        if !self.state().removed && due(core, damaged, Index::counted)?.is_none() {
            return Ok(None);
        }
        due(core, damaged, Index::totals)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(UNBROKEN)
    }
}

/// Empties a segment whatever there is in it, and keeps what is no record in quarantine.
pub fn empty(core: &Core, number: u32) -> Result<(), Error> {
    match compact(core, number, true, &|| false) {
        Err(Stopped::Failed(error)) => Err(error),
        Ok(()) | Err(Stopped::Closed | Stopped::Damaged) => Ok(()),
    }
}

/// What there is in all, and how many bytes of the log nothing points to any more.
pub fn dead(log: &Log, index: &Index) -> io::Result<(Mark, u64)> {
    let (end, totals) = (log.end(), index.totals());
    let dead = log.numbers().into_iter().map(|number| Ok(dead_in(log, end, &totals, number)?.0)).sum::<io::Result<_>>();
    Ok((totals, dead?))
}

/// How many bytes of a segment are dead, and how many are not.
///
/// `end`: where the log ended before the totals were taken; what is put meanwhile is not taken for dead.
fn dead_in(log: &Log, end: Point, totals: &Mark, number: u32) -> io::Result<(u64, u64)> {
    let used = if number == end.segment { end.offset } else { log.length(number)?.unwrap_or(0) };
    let live = totals.live.get(&number).copied().unwrap_or(0);
    Ok((used.saturating_sub(FIRST_RECORD).saturating_sub(live), live))
}

/// The segment that gives back most, if one is worth it.
fn due(core: &Core, damaged: &[u32], count: fn(&Index) -> Mark) -> Result<Option<u32>, Error> {
    let (end, totals) = (core.log.end(), count(&core.index));
    let least = LEAST.min(core.log.segment_size() / 2);
    let mut best = None;
    // Behind the end, a group is being written that nothing points to yet.
    let is_complete = |number: &u32| *number <= end.segment && !damaged.contains(number);
    for number in core.log.numbers().into_iter().filter(is_complete) {
        let (dead, live) = dead_in(&core.log, end, &totals, number).map_err(|why| core.unreadable(number, why))?;
        if dead >= least && dead > live {
            best = best.max(Some((dead, number)));
        }
    }
    Ok(best.map(|(_, number)| number))
}

const UNBROKEN: &str = "nobody panics while holding this";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::digest::Digest;
    use crate::store::local::{Commits, opened};
    use crate::store::log::{Appender, Kind, Position};

    fn appended(appender: &mut Appender, message: &[u8]) -> (Digest, Position) {
        let digest = Digest::of(message);
        (digest, appender.append_one(Kind::Message, digest, message))
    }

    #[test]
    fn a_segment_that_a_group_is_being_written_to_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (log, index, tail) = opened(dir.path(), 1 << 12);
        let mut appender = Appender::new(log.clone(), &tail).unwrap();
        let path = dir.path().to_owned();
        let unused = Appender::new(log.clone(), &tail).unwrap();
        let commits = Commits::new(path.clone(), log.clone(), unused);
        let compactions = Compactions::default();
        let core = Arc::new(Core { path, log, index, commits, compactions, notes: Arc::new(|_| ()) });
        let index = core.clone();
        let index = std::thread::spawn(move || index.index.run());
        let (known, position) = appended(&mut appender, &[1; 3000]);
        core.index.add([(known, Some(position))].into_iter(), appender.end(), 1);
        core.log.ends_at(appender.end());
        let (digest, position) = appended(&mut appender, &[2; 3000]);
        assert_eq!(position.segment, 2);

        // It is durable, and nothing points to it yet: all of it seems to be dead.
        assert_eq!(due(&core, &[], Index::totals).unwrap(), None);
        assert!(compact(&core, 2, false, &|| false).is_ok());
        core.index.add([(digest, Some(position))].into_iter(), appender.end(), 1);
        core.log.ends_at(appender.end());
        assert_eq!(core.fetch(&digest).unwrap().unwrap().message.unwrap(), [2; 3000]);
        core.index.close();
        index.join().unwrap();
    }
}
