//! Young entries become a run when they are flushed. Runs of about the same size are merged, a step at a time, so that
//! there are not many and each entry is written again but seldom: a log-structured merge tree (O'Neil et al., 1996).

use std::sync::Arc;

use super::{Table, UNBROKEN, Writing};
use crate::digest::Prefix;
use crate::store::index::block::Entry;
use crate::store::index::catalog::{self, Runs};
use crate::store::index::mark::Mark;
use crate::store::index::pages::Page;
use crate::store::index::run::Run;
use crate::store::index::tree::Damaged;

/// Entries that are merged between two flushes of the tree.
const STEP: usize = 1 << 16;
/// So many runs of about the same size are merged. With fewer, each entry is written more often; with more, more runs
/// are looked into.
const MANY: usize = 5;
/// Runs below this are of about the same size.
const SMALLEST: usize = 1 << 16;
/// What an entry may take on disk.
const ENTRY: u64 = 64;
/// So much room is left on the disk by a flush: sled does not survive a full one.
const SPARE: u64 = 16 << 20;

impl Table {
    /// Makes all entries durable, where there is room for them, and does a step of the merging that comes of it.
    pub fn flush(&self) -> Result<(), Damaged> {
        let mut writing = self.writing();
        if self.is_flushed() {
            return Ok(());
        }
        let Some(written) = self.write_young(&mut writing.root)? else { return Ok(()) };
        // Enough to be done before as many runs have come again, of every size.
        writing.owed = written * (1 + self.layers().runs.list.len() / 2);
        self.step(&mut writing)
    }

    /// To be called after something was inserted: flushes what is due, or does another step of the merging if that is
    /// owed. So it goes on beside what is inserted, and nobody has to wait for all of it.
    pub fn tend(&self) -> Result<(), Damaged> {
        if self.is_due() {
            return self.flush();
        }
        let mut writing = self.writing();
        if writing.owed > 0 { self.step(&mut writing) } else { Ok(()) }
    }

    pub(super) fn step(&self, writing: &mut Writing) -> Result<(), Damaged> {
        let merged = self.merge(&mut writing.root)?;
        writing.owed = merged.map_or(0, |merged| writing.owed.saturating_sub(merged));
        if self.has_room(0)? {
            if self.pages.sweep()? {
                let layers = self.layers();
                writing.root = catalog::encode(&layers.flushed, self.pages.stamp(), &layers.runs);
                self.pages.tree.flush(&writing.root, &layers.flushed)?;
            }
            self.pages.tree.forget_written(&writing.root)?;
        }
        Ok(())
    }

    /// Makes a run of the young entries, with those of small runs before them; answers with how many they were. `None`
    /// if there is no room.
    fn write_young(&self, root: &mut Vec<u8>) -> Result<Option<usize>, Damaged> {
        let layers = self.layers();
        let mark = layers.mark.clone();
        let mut runs = Runs::clone(&layers.runs);
        let small = runs.list.split_off(first_small(&runs, layers.young.len()));
        let entries = layers.young.len() + small.iter().map(|run| run.entries).sum::<usize>();
        if !self.has_room(entries)? {
            return Ok(None);
        }
        let young: Vec<_> = layers.young.iter().map(|(digest, position)| (*digest, *position)).collect();
        drop(layers);
        let mut run = Run::default();
        self.extend(&mut run, &young, &small, runs.list.is_empty(), usize::MAX)?;
        runs.list.extend((run.entries > 0).then_some(run));
        self.publish(root, runs, mark, small.iter().flat_map(Run::pages))?;
        let old = std::mem::take(&mut self.layers.write().expect(UNBROKEN).young);
        debug_assert_eq!(old.len(), young.len(), "nobody else inserts");
        Ok(Some(young.len()))
    }

    /// Goes on merging runs for a step; answers with how many entries that were. `None` if nothing is to be merged, or
    /// there is no room.
    fn merge(&self, root: &mut Vec<u8>) -> Result<Option<usize>, Damaged> {
        let layers = self.layers();
        let (mut runs, mark) = (Runs::clone(&layers.runs), layers.flushed.clone());
        drop(layers);
        let Some((written, moving)) = runs.merging.or_else(|| begin_merging(&mut runs)) else { return Ok(None) };
        if !self.has_room(STEP)? {
            return Ok(None);
        }
        let moving = written + 1..=written + moving;
        let mut run = std::mem::take(&mut runs.list[written]);
        let before = run.entries;
        let reached = self.extend(&mut run, &[], &runs.list[moving.clone()], written == 0, STEP)?;
        let merged = run.entries - before;
        runs.list[written] = run;
        let given_up: Vec<_> = if let Some(from) = reached {
            runs.list[moving].iter_mut().flat_map(|run| run.move_on(from)).collect()
        } else {
            runs.merging = None;
            let moved = runs.list[moving.clone()].iter().flat_map(Run::pages).collect();
            runs.list.drain(moving);
            runs.list.retain(|run| run.entries > 0);
            moved
        };
        self.publish(root, runs, mark, given_up.into_iter())?;
        Ok(Some(merged))
    }

    /// Writes young entries and those of `runs` to the end of `run`. What only hides older entries is left out if there
    /// are none.
    fn extend(
        &self,
        run: &mut Run,
        young: &[Entry],
        runs: &[Run],
        is_oldest: bool,
        limit: usize,
    ) -> Result<Option<u64>, Damaged> {
        let entries = self.merged(young, runs, *Prefix::ALL.range().start());
        let is_needed = |entry: &Result<Entry, _>| !is_oldest || !matches!(entry, Ok((_, None)));
        run.extend(&mut entries.filter(is_needed).peekable(), limit, &self.pages)
    }

    /// Makes durable what was written, and only then lets it be found, and forgets what it replaces.
    fn publish(
        &self,
        root: &mut Vec<u8>,
        runs: Runs,
        mark: Mark,
        given_up: impl Iterator<Item = Page>,
    ) -> Result<(), Damaged> {
        *root = catalog::encode(&mark, self.pages.stamp(), &runs);
        self.pages.tree.flush(root, &mark)?;
        let mut layers = self.layers.write().expect(UNBROKEN);
        layers.runs = Arc::new(runs);
        layers.flushed = mark;
        drop(layers);
        self.pages.give_up(given_up);
        Ok(())
    }

    /// Whether writing so many entries would leave room on the disk.
    fn has_room(&self, entries: usize) -> Result<bool, Damaged> {
        let stat = rustix::fs::statvfs(&self.dir).map_err(|error| Damaged::from(&error.into()))?;
        Ok(stat.f_bavail * stat.f_frsize >= entries as u64 * ENTRY + SPARE)
    }
}

/// From which run on they are so small, beside so many young entries, that they are best written again with those.
fn first_small(runs: &Runs, young: usize) -> usize {
    let in_use = runs.merging.map_or(0, |(written, moving)| written + moving + 1);
    let (mut first, mut entries) = (runs.list.len(), young);
    while first > in_use && runs.list[first - 1].entries <= STEP.min(entries * 4) {
        first -= 1;
        entries += runs.list[first].entries;
    }
    first
}

/// Decides which runs are merged: the newest below one of the sizes that grow by four, once many come near to it.
fn begin_merging(runs: &mut Runs) -> Option<(usize, usize)> {
    let largest = runs.list.iter().map(|run| run.entries).max()?;
    let sizes = std::iter::successors(Some(SMALLEST), |size| Some(size * 4)).take_while(|size| size / 4 <= largest);
    for size in sizes {
        let first = runs.list.iter().rposition(|run| run.entries >= size).map_or(0, |last| last + 1);
        let near = runs.list[first..].iter().filter(|run| run.entries >= size / 4);
        if near.count() >= MANY {
            runs.merging = Some((first, runs.list.len() - first));
            runs.list.insert(first, Run::default());
            return runs.merging;
        }
    }
    None
}
