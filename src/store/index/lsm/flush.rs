//! Young entries become a run when they are flushed. Runs of about the same size are merged, a step at a time, so that
//! there are not many and each entry is written again but seldom: a log-structured merge tree (O'Neil et al., 1996).

use std::sync::Arc;

use super::{LOCK_POISONED, LsmTree, WriterState};
use crate::digest::Prefix;
use crate::store::index::block::IndexEntry;
use crate::store::index::manifest::{self, RunSet};
use crate::store::index::page_store::PageId;
use crate::store::index::sled_store::IndexError;
use crate::store::index::sorted_run::SortedRun;
use crate::store::index::totals::Totals;

/// Entries that are merged between two flushes of the tree.
const MERGE_STEP: usize = 1 << 16;
/// So many runs of about the same size are merged. With fewer, each entry is written more often; with more, more runs
/// are looked into.
const FAN_IN: usize = 5;
/// Runs below this are of about the same size.
const TIER_BASE: usize = 1 << 16;
/// What an entry may take on disk.
const ENTRY_DISK_ESTIMATE: u64 = 64;
/// So much room is left on the disk by a flush: sled does not survive a full one.
const MIN_FREE_SPACE: u64 = 16 << 20;

impl LsmTree {
    /// Makes all entries durable, where there is room for them, and does a step of the merging that comes of it.
    pub fn flush(&self) -> Result<(), IndexError> {
        let mut writing = self.writer_state();
        if self.is_flushed() {
            return Ok(());
        }
        let Some(written) = self.flush_memtable(&mut writing.manifest)? else { return Ok(()) };
        // Enough to be done before as many runs have come again, of every size.
        writing.merge_debt = written * (1 + self.state().runs.list.len() / 2);
        self.merge_step(&mut writing)
    }

    /// To be called after something was inserted: flushes what is due, or does another step of the merging if that is
    /// owed. So it goes on beside what is inserted, and nobody has to wait for all of it.
    pub fn maintain(&self) -> Result<(), IndexError> {
        if self.needs_flush() {
            return self.flush();
        }
        let mut writing = self.writer_state();
        if writing.merge_debt > 0 { self.merge_step(&mut writing) } else { Ok(()) }
    }

    pub(super) fn merge_step(&self, writing: &mut WriterState) -> Result<(), IndexError> {
        let merged = self.merge(&mut writing.manifest)?;
        writing.merge_debt = merged.map_or(0, |merged| writing.merge_debt.saturating_sub(merged));
        if self.has_disk_space(0)? {
            if self.pages.reclaim()? {
                let layers = self.state();
                writing.manifest = manifest::encode(&layers.flushed_totals, self.pages.generation(), &layers.runs);
                self.pages.store.flush(&writing.manifest, &layers.flushed_totals)?;
            }
            self.pages.store.reopen_to_free_memory(&writing.manifest)?;
        }
        Ok(())
    }

    /// Makes a run of the young entries, with those of small runs before them; answers with how many they were. `None`
    /// if there is no room.
    fn flush_memtable(&self, root: &mut Vec<u8>) -> Result<Option<usize>, IndexError> {
        let layers = self.state();
        let mark = layers.totals.clone();
        let mut runs = RunSet::clone(&layers.runs);
        let small = runs.list.split_off(first_small_run(&runs, layers.memtable.len()));
        let entries = layers.memtable.len() + small.iter().map(|run| run.entry_count).sum::<usize>();
        if !self.has_disk_space(entries)? {
            return Ok(None);
        }
        let young: Vec<_> = layers.memtable.iter().map(|(digest, position)| (*digest, *position)).collect();
        drop(layers);
        let mut run = SortedRun::default();
        self.write_entries(&mut run, &young, &small, runs.list.is_empty(), usize::MAX)?;
        runs.list.extend((run.entry_count > 0).then_some(run));
        self.commit_manifest(root, runs, mark, small.iter().flat_map(SortedRun::pages))?;
        let old = std::mem::take(&mut self.state.write().expect(LOCK_POISONED).memtable);
        debug_assert_eq!(old.len(), young.len(), "nobody else inserts");
        Ok(Some(young.len()))
    }

    /// Goes on merging runs for a step; answers with how many entries that were. `None` if nothing is to be merged, or
    /// there is no room.
    fn merge(&self, root: &mut Vec<u8>) -> Result<Option<usize>, IndexError> {
        let layers = self.state();
        let (mut runs, mark) = (RunSet::clone(&layers.runs), layers.flushed_totals.clone());
        drop(layers);
        let Some((written, moving)) = runs.active_merge.or_else(|| pick_merge(&mut runs)) else { return Ok(None) };
        if !self.has_disk_space(MERGE_STEP)? {
            return Ok(None);
        }
        let moving = written + 1..=written + moving;
        let mut run = std::mem::take(&mut runs.list[written]);
        let before = run.entry_count;
        let reached = self.write_entries(&mut run, &[], &runs.list[moving.clone()], written == 0, MERGE_STEP)?;
        let merged = run.entry_count - before;
        runs.list[written] = run;
        let given_up: Vec<_> = if let Some(from) = reached {
            runs.list[moving].iter_mut().flat_map(|run| run.truncate_front(from)).collect()
        } else {
            runs.active_merge = None;
            let moved = runs.list[moving.clone()].iter().flat_map(SortedRun::pages).collect();
            runs.list.drain(moving);
            runs.list.retain(|run| run.entry_count > 0);
            moved
        };
        self.commit_manifest(root, runs, mark, given_up.into_iter())?;
        Ok(Some(merged))
    }

    /// Writes young entries and those of `runs` to the end of `run`. What only hides older entries is left out if there
    /// are none.
    fn write_entries(
        &self,
        run: &mut SortedRun,
        young: &[IndexEntry],
        runs: &[SortedRun],
        is_oldest: bool,
        limit: usize,
    ) -> Result<Option<u64>, IndexError> {
        let entries = self.iter_merged(young, runs, *Prefix::ALL.range().start());
        let is_needed = |entry: &Result<IndexEntry, _>| !is_oldest || !matches!(entry, Ok((_, None)));
        run.extend(&mut entries.filter(is_needed).peekable(), limit, &self.pages)
    }

    /// Makes durable what was written, and only then lets it be found, and forgets what it replaces.
    fn commit_manifest(
        &self,
        root: &mut Vec<u8>,
        runs: RunSet,
        mark: Totals,
        given_up: impl Iterator<Item = PageId>,
    ) -> Result<(), IndexError> {
        *root = manifest::encode(&mark, self.pages.generation(), &runs);
        self.pages.store.flush(root, &mark)?;
        let mut layers = self.state.write().expect(LOCK_POISONED);
        layers.runs = Arc::new(runs);
        layers.flushed_totals = mark;
        drop(layers);
        self.pages.free(given_up);
        Ok(())
    }

    /// Whether writing so many entries would leave room on the disk.
    fn has_disk_space(&self, entries: usize) -> Result<bool, IndexError> {
        let stat = rustix::fs::statvfs(&self.dir).map_err(|error| IndexError::from(&error.into()))?;
        Ok(stat.f_bavail * stat.f_frsize >= entries as u64 * ENTRY_DISK_ESTIMATE + MIN_FREE_SPACE)
    }
}

/// From which run on they are so small, beside so many young entries, that they are best written again with those.
fn first_small_run(runs: &RunSet, young: usize) -> usize {
    let in_use = runs.active_merge.map_or(0, |(written, moving)| written + moving + 1);
    let (mut first, mut entries) = (runs.list.len(), young);
    while first > in_use && runs.list[first - 1].entry_count <= MERGE_STEP.min(entries * 4) {
        first -= 1;
        entries += runs.list[first].entry_count;
    }
    first
}

/// Decides which runs are merged: the newest below one of the sizes that grow by four, once many come near to it.
fn pick_merge(runs: &mut RunSet) -> Option<(usize, usize)> {
    let largest = runs.list.iter().map(|run| run.entry_count).max()?;
    let sizes = std::iter::successors(Some(TIER_BASE), |size| Some(size * 4)).take_while(|size| size / 4 <= largest);
    for size in sizes {
        let first = runs.list.iter().rposition(|run| run.entry_count >= size).map_or(0, |last| last + 1);
        let near = runs.list[first..].iter().filter(|run| run.entry_count >= size / 4);
        if near.count() >= FAN_IN {
            runs.active_merge = Some((first, runs.list.len() - first));
            runs.list.insert(first, SortedRun::default());
            return runs.active_merge;
        }
    }
    None
}
