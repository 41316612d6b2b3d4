//! Compaction gives space back: of a segment that is more than half dead, what is needed is appended again, then its
//! file is removed. Nothing goes before what takes its place is durable; interrupted anywhere, it just begins again.

mod rewriter;

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::Shared;
use crate::message_store::Error;
use crate::store::StoreEvent;
use crate::store::index::{Index, Totals};
use crate::store::log::{Log, LogPosition, SEGMENT_HEADER_LEN};
use rewriter::{CompactionError, compact};

/// Less is not worth a compaction, in bytes, unless that is most of a segment.
const MIN_DEAD_BYTES: u64 = 1 << 20;
/// After removing something, a store that is closed first finishes what is due, for so long.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// How often to look even if nothing was removed: what is stored anew makes the old dead, too.
const POLL_INTERVAL: Duration = Duration::from_secs(3600);
/// After a failure, it is tried again so much later.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// When to compact.
#[derive(Debug, Default)]
pub struct Compactor {
    state: Mutex<State>,
    changed: Condvar,
    /// One at a time.
    running: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Something was removed since the last look.
    requested: bool,
    /// Something was removed at all.
    had_removal: bool,
    closed_at: Option<Instant>,
}

impl Compactor {
    /// Something was removed.
    pub fn request(&self) {
        let mut state = self.state();
        state.requested = true;
        state.had_removal = true;
        self.changed.notify_all();
    }

    /// Ends [`Compactor::run`].
    pub fn close(&self) {
        self.state().closed_at = Some(Instant::now());
        self.changed.notify_all();
    }

    /// Compacts what is due, again and again; for a thread of its own.
    pub fn run(&self, core: &Shared) {
        let mut damaged = Vec::new();
        let mut said = false;
        loop {
            let pause = match self.compact_all(core, &mut damaged) {
                Ok(()) => POLL_INTERVAL,
                Err(error) => {
                    if !said {
                        (core.events)(StoreEvent::Message(format!("the log cannot be compacted now: {error}")));
                    }
                    said = true;
                    RETRY_INTERVAL
                }
            };
            let idle = |state: &mut State| !state.requested && state.closed_at.is_none();
            let waited = self.changed.wait_timeout_while(self.state(), pause, idle);
            let (mut state, _) = waited.expect(LOCK_POISONED);
            if state.closed_at.is_some() && !state.requested {
                return;
            }
            state.requested = false;
        }
    }

    fn compact_all(&self, core: &Shared, damaged: &mut Vec<u32>) -> Result<(), Error> {
        while let Some(number) = self.pick_segment(core, damaged)? {
            let stop = || {
                let state = self.state();
                state.closed_at.is_some_and(|closed| !state.had_removal || closed.elapsed() > CLOSE_GRACE)
            };
            match compact(core, number, false, &stop) {
                Ok(()) => {}
                Err(CompactionError::Closed) => return Ok(()),
                Err(CompactionError::Failed(error)) => return Err(error),
                Err(CompactionError::Damaged) => {
                    damaged.push(number);
                    let text = format!("segment {number} is damaged and is not compacted; `verify --repair` mends it");
                    (core.events)(StoreEvent::Message(text));
                }
            }
        }
        Ok(())
    }

    /// The segment that is due. Where nothing was removed, the tree is not made to take what is new only to find none.
    fn pick_segment(&self, core: &Shared, damaged: &[u32]) -> Result<Option<u32>, Error> {
        if !self.state().had_removal && most_garbage(core, damaged, Index::cached_totals)?.is_none() {
            return Ok(None);
        }
        most_garbage(core, damaged, Index::wait_totals)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(LOCK_POISONED)
    }
}

/// Empties a segment whatever there is in it, and keeps what is no record in quarantine.
pub fn evacuate(core: &Shared, number: u32) -> Result<(), Error> {
    match compact(core, number, true, &|| false) {
        Err(CompactionError::Failed(error)) => Err(error),
        Ok(()) | Err(CompactionError::Closed | CompactionError::Damaged) => Ok(()),
    }
}

/// What there is in all, and how many bytes of the log nothing points to any more.
pub fn garbage(log: &Log, index: &Index) -> io::Result<(Totals, u64)> {
    let (end, totals) = (log.durable_end(), index.wait_totals());
    let garbage = log
        .segment_ids()
        .into_iter()
        .map(|number| Ok(segment_garbage(log, end, &totals, number)?.0))
        .sum::<io::Result<_>>();
    Ok((totals, garbage?))
}

/// How many bytes of a segment are dead, and how many are not.
///
/// `end`: where the log ended before the totals were taken; what is put meanwhile is not taken for dead.
fn segment_garbage(log: &Log, end: LogPosition, totals: &Totals, number: u32) -> io::Result<(u64, u64)> {
    let used = if number == end.segment { end.offset } else { log.segment_len(number)?.unwrap_or(0) };
    let live = totals.live_bytes.get(&number).copied().unwrap_or(0);
    Ok((used.saturating_sub(SEGMENT_HEADER_LEN).saturating_sub(live), live))
}

/// The segment that gives back most, if one is worth it.
fn most_garbage(core: &Shared, damaged: &[u32], count: fn(&Index) -> Totals) -> Result<Option<u32>, Error> {
    let (end, totals) = (core.log.durable_end(), count(&core.index));
    let least = MIN_DEAD_BYTES.min(core.log.segment_size() / 2);
    let mut best = None;
    // Behind the end, a group is being written that nothing points to yet.
    let is_complete = |number: &u32| *number <= end.segment && !damaged.contains(number);
    for number in core.log.segment_ids().into_iter().filter(is_complete) {
        let (garbage, live) =
            segment_garbage(&core.log, end, &totals, number).map_err(|why| core.read_error(number, why))?;
        if garbage >= least && garbage > live {
            best = best.max(Some((garbage, number)));
        }
    }
    Ok(best.map(|(_, number)| number))
}

const LOCK_POISONED: &str = "nobody panics while holding this";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::digest::Digest;
    use crate::store::local::{CommitQueue, open_log_and_index};
    use crate::store::log::{RecordKind, RecordLocation, SegmentWriter};

    fn append_to_log(appender: &mut SegmentWriter, message: &[u8]) -> (Digest, RecordLocation) {
        let digest = Digest::compute(message);
        (digest, appender.append_one(RecordKind::Message, digest, message))
    }

    #[test]
    fn compaction_skips_a_segment_with_an_unindexed_batch() {
        let dir = tempfile::tempdir().unwrap();
        let (log, index, tail) = open_log_and_index(dir.path(), 1 << 12);
        let mut appender = SegmentWriter::new(log.clone(), &tail).unwrap();
        let path = dir.path().to_owned();
        let unused = SegmentWriter::new(log.clone(), &tail).unwrap();
        let commits = CommitQueue::new(path.clone(), log.clone(), unused);
        let compactions = Compactor::default();
        let core = Arc::new(Shared {
            path,
            log,
            index,
            commit_queue: commits,
            compactor: compactions,
            events: Arc::new(|_| ()),
        });
        let index = core.clone();
        let index = std::thread::spawn(move || index.index.run());
        let (known, position) = append_to_log(&mut appender, &[1; 3000]);
        core.index.add([(known, Some(position))].into_iter(), appender.end(), 1);
        core.log.set_durable_end(appender.end());
        let (digest, position) = append_to_log(&mut appender, &[2; 3000]);
        assert_eq!(position.segment, 2);

        // It is durable, and nothing points to it yet: all of it seems to be dead.
        assert_eq!(most_garbage(&core, &[], Index::wait_totals).unwrap(), None);
        assert!(compact(&core, 2, false, &|| false).is_ok());
        core.index.add([(digest, Some(position))].into_iter(), appender.end(), 1);
        core.log.set_durable_end(appender.end());
        assert_eq!(core.fetch(&digest).unwrap().unwrap().message.unwrap(), [2; 3000]);
        core.index.close();
        index.join().unwrap();
    }
}
