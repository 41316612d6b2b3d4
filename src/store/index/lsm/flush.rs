//! Flushes and merges. A flush writes the memtable as a sorted run. Runs of similar size are merged step by step, so
//! that there are few runs and each entry is rewritten rarely (O'Neil et al., "The log-structured merge-tree", 1996).

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::{LsmTree, WriterState};
use crate::digest::Prefix;
use crate::store::index::block::IndexEntry;
use crate::store::index::error::IndexError;
use crate::store::index::manifest::{self, ActiveMerge, RunSet};
use crate::store::index::page_store::PageId;
use crate::store::index::sorted_run::SortedRun;
use crate::store::index::totals::Totals;

/// Minimum number of entries that a merge step merges, unless the merge completes earlier.
const MERGE_STEP: usize = 1 << 16;
/// Number of runs of one tier that are merged into one. A smaller number means that each entry is rewritten more often,
/// a larger number that a lookup searches more runs.
const FAN_IN: usize = 5;
/// Upper limit of the smallest tier, in entries per run. The limit of each further tier is four times as large.
const TIER_BASE: usize = 1 << 16;
/// Upper estimate of an entry's size on disk in bytes.
const ENTRY_DISK_ESTIMATE: u64 = 64;
/// Bytes of disk space that a flush must leave free, because sled does not survive a full disk.
const MIN_FREE_SPACE: u64 = 16 << 20;
/// Number of descriptors that a flush may need. sled cannot be used again in this process after a flush that failed.
const FLUSH_DESCRIPTORS: usize = 4;

impl LsmTree {
    /// Makes all entries durable, then executes one merge step. Flushes nothing if the disk is too full.
    pub fn flush(&self) -> Result<(), IndexError> {
        let mut writer = self.writer_state();
        if self.is_flushed() {
            return Ok(());
        }
        let Some(flushed) = self.flush_memtable(&mut writer.manifest)? else { return Ok(()) };
        // Enough for the merges of all tiers to be complete before their next runs are.
        writer.merge_debt = flushed * (1 + self.state().runs.list.len() / 2);
        self.merge_step(&mut writer)
    }

    /// Flushes if a flush is due; otherwise executes one merge step if there is merge debt. Called after inserts, so
    /// that no insert waits for a whole merge.
    pub fn maintain(&self) -> Result<(), IndexError> {
        if self.needs_flush() {
            return self.flush();
        }
        let mut writer = self.writer_state();
        if writer.merge_debt > 0 { self.merge_step(&mut writer) } else { Ok(()) }
    }

    pub(super) fn merge_step(&self, writer: &mut WriterState) -> Result<(), IndexError> {
        let merged = self.merge(&mut writer.manifest)?;
        writer.merge_debt = merged.map_or(0, |merged| writer.merge_debt.saturating_sub(merged));
        if self.has_disk_space(0)? {
            if self.pages.reclaim()? {
                let state = self.state();
                writer.manifest = manifest::encode(&state.flushed_totals, self.pages.generation(), &state.runs);
                self.pages.store.flush(&writer.manifest, &state.flushed_totals)?;
            }
            self.pages.store.reopen_to_free_memory(&writer.manifest)?;
        }
        Ok(())
    }

    /// Writes the memtable and the small runs before it as one run. Returns the number of memtable entries, or `None`
    /// if the disk is too full.
    fn flush_memtable(&self, manifest: &mut Vec<u8>) -> Result<Option<usize>, IndexError> {
        let state = self.state();
        let totals = state.totals.clone();
        let mut runs = RunSet::clone(&state.runs);
        let small_runs = runs.list.split_off(first_small_run(&runs, state.memtable.len()));
        let entry_count = state.memtable.len() + small_runs.iter().map(|run| run.entry_count).sum::<usize>();
        if !self.has_disk_space(entry_count)? {
            return Ok(None);
        }
        let memtable: Vec<_> = state.memtable.iter().map(|(digest, slot)| (*digest, *slot)).collect();
        drop(state);
        let mut run = SortedRun::default();
        self.write_entries(&mut run, &memtable, &small_runs, runs.list.is_empty(), usize::MAX)?;
        runs.list.extend((run.entry_count > 0).then_some(run));
        self.commit_manifest(manifest, runs, totals, small_runs.iter().flat_map(SortedRun::pages))?;
        let flushed = std::mem::take(&mut self.state.write().memtable);
        debug_assert_eq!(flushed.len(), memtable.len(), "only the writer inserts");
        Ok(Some(memtable.len()))
    }

    /// Continues the active merge, or starts one, by one step. Returns the number of merged entries, or `None` if
    /// there is nothing to merge or the disk is too full.
    fn merge(&self, manifest: &mut Vec<u8>) -> Result<Option<usize>, IndexError> {
        let state = self.state();
        let (mut runs, totals) = (RunSet::clone(&state.runs), state.flushed_totals.clone());
        drop(state);
        let Some(active) = runs.active_merge.or_else(|| pick_merge(&mut runs)) else { return Ok(None) };
        if !self.has_disk_space(MERGE_STEP)? {
            return Ok(None);
        }
        let (output, inputs) = (active.output, active.inputs());
        let mut run = std::mem::take(&mut runs.list[output]);
        let before = run.entry_count;
        let next = self.write_entries(&mut run, &[], &runs.list[inputs.clone()], output == 0, MERGE_STEP)?;
        let merged = run.entry_count - before;
        runs.list[output] = run;
        let freed: Vec<_> = if let Some(next) = next {
            runs.list[inputs].iter_mut().flat_map(|run| run.truncate_front(next)).collect()
        } else {
            runs.active_merge = None;
            let pages = runs.list[inputs.clone()].iter().flat_map(SortedRun::pages).collect();
            runs.list.drain(inputs);
            runs.list.retain(|run| run.entry_count > 0);
            pages
        };
        self.commit_manifest(manifest, runs, totals, freed.into_iter())?;
        Ok(Some(merged))
    }

    /// Appends the merged entries of a memtable and of `runs` to `run`, as [`SortedRun::extend`] does. If `run` is the
    /// oldest, entries without a location are dropped, because there is nothing that they hide.
    fn write_entries(
        &self,
        run: &mut SortedRun,
        memtable: &[IndexEntry],
        runs: &[SortedRun],
        is_oldest: bool,
        limit: usize,
    ) -> Result<Option<u64>, IndexError> {
        let entries = self.iter_merged(memtable, runs, *Prefix::ALL.range().start());
        let is_needed = |entry: &Result<IndexEntry, _>| !is_oldest || !matches!(entry, Ok((_, None)));
        run.extend(&mut entries.filter(is_needed).peekable(), limit, &self.pages)
    }

    /// Flushes the written pages with a new manifest. Only then makes `runs` visible and frees the replaced pages.
    fn commit_manifest(
        &self,
        manifest: &mut Vec<u8>,
        runs: RunSet,
        totals: Totals,
        replaced: impl Iterator<Item = PageId>,
    ) -> Result<(), IndexError> {
        *manifest = manifest::encode(&totals, self.pages.generation(), &runs);
        self.pages.store.flush(manifest, &totals)?;
        let mut state = self.state.write();
        state.runs = Arc::new(runs);
        state.flushed_totals = totals;
        drop(state);
        self.pages.free(replaced);
        Ok(())
    }

    /// Returns whether [`MIN_FREE_SPACE`] stays free when `entry_count` entries are written. Fails if there are too few
    /// descriptors.
    fn has_disk_space(&self, entry_count: usize) -> Result<bool, IndexError> {
        let opened = (0..FLUSH_DESCRIPTORS).map(|_| File::open(&self.dir)).collect::<io::Result<Vec<_>>>();
        drop(opened?);
        let stat = rustix::fs::statvfs(&self.dir).map_err(io::Error::from)?;
        Ok(stat.f_bavail * stat.f_frsize >= entry_count as u64 * ENTRY_DISK_ESTIMATE + MIN_FREE_SPACE)
    }
}

/// Returns the index of the first run that is rewritten together with a memtable of this length. Runs from this index
/// on are small in comparison and not part of an active merge.
fn first_small_run(runs: &RunSet, memtable_len: usize) -> usize {
    let merging_end = runs.active_merge.map_or(0, ActiveMerge::end);
    let (mut first, mut entry_count) = (runs.list.len(), memtable_len);
    while first > merging_end && runs.list[first - 1].entry_count <= MERGE_STEP.min(entry_count * 4) {
        first -= 1;
        entry_count += runs.list[first].entry_count;
    }
    first
}

/// Starts a merge of the newest runs if there is a tier with [`FAN_IN`] runs, the smallest such tier first. Inserts an
/// empty output run before the input runs.
fn pick_merge(runs: &mut RunSet) -> Option<ActiveMerge> {
    let largest = runs.list.iter().map(|run| run.entry_count).max()?;
    let limits = std::iter::successors(Some(TIER_BASE), |limit| Some(limit * 4));
    for limit in limits.take_while(|limit| limit / 4 <= largest) {
        let first = runs.list.iter().rposition(|run| run.entry_count >= limit).map_or(0, |last| last + 1);
        let in_tier = runs.list[first..].iter().filter(|run| run.entry_count >= limit / 4);
        if in_tier.count() >= FAN_IN {
            runs.active_merge = Some(ActiveMerge { output: first, input_count: runs.list.len() - first });
            runs.list.insert(first, SortedRun::default());
            return runs.active_merge;
        }
    }
    None
}
