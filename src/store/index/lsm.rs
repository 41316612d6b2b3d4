//! The log-structured merge tree: a memtable and sorted runs. There is one writer at a time. Readers do not wait for a
//! flush or a merge, and find every entry in the memtable or in a run.

mod flush;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

use super::block::{IndexEntry, Slot};
use super::error::IndexError;
use super::manifest::{self, Manifest, RunSet};
use super::merge_iter::MergeIter;
use super::page_store::PageStore;
use super::sled_guard::SledGuard;
use super::sled_store::SledStore;
use super::sorted_run::SortedRun;
use super::totals::{Totals, TotalsDelta};
use crate::digest::{Digest, Prefix};
use crate::store::log::{LogPosition, RecordLocation};

/// Number of memtable entries at which a flush is due.
const MEMTABLE_ENTRIES: usize = 1 << 18;
/// Bytes of messages since the last flush at which a flush is due. A replay after a crash reads them again.
const MEMTABLE_LOG_BYTES: u64 = 1 << 28;
/// Maximum number of memtable entries that are looked up or inserted per acquisition of the lock.
const LOCK_BATCH: usize = 1 << 10;

/// A map from digests to slots, with the totals of all entries.
pub struct LsmTree {
    dir: PathBuf,
    pages: PageStore,
    state: RwLock<LsmState>,
    /// Held by the current writer.
    writer_state: Mutex<WriterState>,
}

struct WriterState {
    /// Encoded manifest of the last flush.
    manifest: Vec<u8>,
    /// Number of entries that should be merged before the next flush.
    merge_debt: usize,
}

struct LsmState {
    memtable: BTreeMap<Digest, Slot>,
    runs: Arc<RunSet>,
    /// Totals of all entries.
    totals: Totals,
    /// Totals of the entries in runs.
    flushed_totals: Totals,
}

impl LsmTree {
    /// Opens the tree in `dir`, or creates it. `cache` is the size of the block cache in bytes.
    pub fn open(dir: &Path, cache: u64) -> Result<Self, IndexError> {
        let (store, manifest) = SledStore::open(dir)?;
        let check = || {
            let decoded = manifest.as_deref().map(manifest::decode).transpose()?;
            SledGuard::new(dir).check_manifest(decoded.as_ref().map(|manifest| &manifest.totals))?;
            Ok(decoded.unwrap_or_default())
        };
        let Manifest { totals: flushed_totals, generation, runs } = check().map_err(|error| store.fail(error))?;
        let pages = PageStore::new(store, runs.pages(), generation.wrapping_add(1), cache);
        let (totals, runs) = (flushed_totals.clone(), Arc::new(runs));
        let state = LsmState { memtable: BTreeMap::new(), runs, totals, flushed_totals };
        let writer_state = Mutex::new(WriterState { manifest: manifest.unwrap_or_default(), merge_debt: 0 });
        Ok(Self { dir: dir.to_owned(), pages, state: RwLock::new(state), writer_state })
    }

    /// Returns the slot of `digest`. Its location may be that of a tombstone.
    pub fn get(&self, digest: &Digest) -> Result<Slot, IndexError> {
        let state = self.active_state()?;
        if let Some(slot) = state.memtable.get(digest) {
            return Ok(*slot);
        }
        let runs = state.runs.clone();
        drop(state);
        self.with_retry(&runs, |runs| {
            for run in runs.list.iter().rev() {
                if let Some(slot) = run.find(digest, &self.pages)? {
                    return Ok(slot);
                }
            }
            Ok(None)
        })
    }

    /// Returns the slots of sorted digests. A batch is cheaper than single lookups.
    pub fn get_all(&self, digests: &[Digest]) -> Result<Vec<Slot>, IndexError> {
        let mut found = Vec::with_capacity(digests.len());
        for batch in digests.chunks(LOCK_BATCH) {
            let state = self.active_state()?;
            found.extend(batch.iter().map(|digest| state.memtable.get(digest).copied()));
        }
        // The runs are taken last: they contain the entries that a flush has meanwhile removed from the memtable.
        let runs = self.active_state()?.runs.clone();
        self.find_all(&runs, digests, found)
    }

    /// Looks up in `runs` the digests whose elements of `found` are `None`.
    fn find_all(
        &self,
        runs: &Arc<RunSet>,
        digests: &[Digest],
        mut found: Vec<Option<Slot>>,
    ) -> Result<Vec<Slot>, IndexError> {
        self.with_retry(runs, |runs| {
            for run in runs.list.iter().rev() {
                run.find_all(digests, &mut found, &self.pages)?;
            }
            Ok(())
        })?;
        Ok(found.into_iter().map(Option::flatten).collect())
    }

    /// Inserts entries that are sorted by digest; of several entries of a digest, the last one counts. Afterwards the
    /// tree is complete up to `end`. Fails if the tree is closed.
    pub fn insert(&self, entries: &[IndexEntry], end: LogPosition) -> Result<(), IndexError> {
        let _writer = self.writer_state();
        let mut delta = TotalsDelta::default();
        for batch in entries.chunks(LOCK_BATCH) {
            let mut state = self.state.write();
            let replaced = batch.iter().map(|(digest, slot)| state.memtable.insert(*digest, *slot));
            let replaced: Vec<_> = replaced.collect();
            let runs = state.runs.clone();
            drop(state);
            let digests: Vec<_> = batch.iter().map(|(digest, _)| *digest).collect();
            for ((_, slot), before) in batch.iter().zip(self.find_all(&runs, &digests, replaced)?) {
                delta.replace(before, *slot);
            }
        }
        let mut state = self.state.write();
        self.pages.store.check_open()?;
        delta.apply(&mut state.totals);
        state.totals.position = end;
        Ok(())
    }

    /// Removes deleted segments from the totals.
    pub fn clear_segment_totals(&self, deleted: &[u32]) {
        let _writer = self.writer_state();
        let mut state = self.state.write();
        state.totals.live_bytes.retain(|number, _| !deleted.contains(number));
    }

    /// Returns at most `limit` messages of a range, sorted by digest.
    pub fn range(
        &self,
        from: Bound<Digest>,
        to: Digest,
        limit: usize,
    ) -> Result<Vec<(Digest, RecordLocation)>, IndexError> {
        let message = |(digest, slot): IndexEntry| Some((digest, slot.filter(RecordLocation::is_message)?));
        let state = self.active_state()?;
        let mut memtable = Vec::new();
        let mut remaining = limit;
        for (digest, slot) in state.memtable.range((from, Bound::Included(to))) {
            if remaining == 0 {
                break;
            }
            memtable.push((*digest, *slot));
            remaining -= usize::from(message((*digest, *slot)).is_some());
        }
        let runs = state.runs.clone();
        drop(state);
        self.with_retry(&runs, |runs| {
            let first = match from {
                Bound::Included(digest) | Bound::Excluded(digest) => digest,
                Bound::Unbounded => *Prefix::ALL.range().start(),
            };
            let mut messages = Vec::new();
            for entry in self.iter_merged(&memtable, &runs.list, first) {
                let entry = entry?;
                if entry.0 > to || messages.len() == limit {
                    break;
                }
                messages.extend(message(entry).filter(|_| from != Bound::Excluded(entry.0)));
            }
            Ok(messages)
        })
    }

    /// Returns all entries, tombstones included, whose records are in one of `segments`.
    pub fn entries_in_segments(&self, segments: &[u32]) -> Result<Vec<(Digest, RecordLocation)>, IndexError> {
        let state = self.active_state()?;
        let memtable: Vec<_> = state.memtable.iter().map(|(digest, slot)| (*digest, *slot)).collect();
        let runs = state.runs.clone();
        drop(state);
        self.with_retry(&runs, |runs| {
            let mut found = Vec::new();
            for entry in self.iter_merged(&memtable, &runs.list, *Prefix::ALL.range().start()) {
                if let (digest, Some(location)) = entry?
                    && segments.contains(&location.segment)
                {
                    found.push((digest, location));
                }
            }
            Ok(found)
        })
    }

    /// Returns the totals of all entries.
    pub fn totals(&self) -> Totals {
        self.state().totals.clone()
    }

    /// Returns the totals of the durable entries.
    pub fn flushed_totals(&self) -> Totals {
        self.state().flushed_totals.clone()
    }

    /// Returns whether all entries are durable.
    pub fn is_flushed(&self) -> bool {
        let state = self.state();
        state.totals == state.flushed_totals
    }

    fn needs_flush(&self) -> bool {
        let LsmState { memtable, totals, flushed_totals, .. } = &*self.state();
        memtable.len() >= MEMTABLE_ENTRIES || totals.bytes.saturating_sub(flushed_totals.bytes) >= MEMTABLE_LOG_BYTES
    }

    /// Merges the entries of a memtable and of runs, from `first` on.
    fn iter_merged<'a>(&'a self, memtable: &'a [IndexEntry], runs: &'a [SortedRun], first: Digest) -> MergeIter<'a> {
        let memtable: Box<dyn Iterator<Item = _>> = Box::new(memtable.iter().copied().map(Ok));
        let runs =
            runs.iter().rev().map(|run| Box::new(run.entries(first, &self.pages)) as Box<dyn Iterator<Item = _>>);
        MergeIter::new(std::iter::once(memtable).chain(runs))
    }

    /// Calls `read` with `runs`. If one of their pages has been replaced meanwhile, calls it again with the current
    /// runs.
    fn with_retry<T>(
        &self,
        runs: &Arc<RunSet>,
        mut read: impl FnMut(&RunSet) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let mut runs = Arc::clone(runs);
        loop {
            match read(&runs) {
                Err(error) if matches!(error, IndexError::PageReplaced) => {
                    let current = self.state().runs.clone();
                    if Arc::ptr_eq(&current, &runs) {
                        return Err(error);
                    }
                    runs = current;
                }
                result => return result,
            }
        }
    }

    /// Closes the tree, waits until no thread uses sled, and returns the final totals. Later calls fail with `reason`. A
    /// concurrent insert is either complete and counted in the totals, or it fails.
    pub fn close(&self, reason: &IndexError) -> Totals {
        let state = self.state.write();
        self.pages.store.retire(reason);
        let totals = state.totals.clone();
        drop(state);
        self.pages.store.close();
        totals
    }

    /// Gives up the tree without touching its files again. See [`SledStore::leak`].
    pub fn leak(&self) {
        self.pages.store.leak();
    }

    /// Returns whether the tree can be used.
    pub fn is_open(&self) -> bool {
        self.pages.store.check_open().is_ok()
    }

    /// Returns whether the directory can be opened again once this tree is closed. See [`SledStore::can_reopen`].
    pub fn can_reopen(&self) -> bool {
        self.pages.store.can_reopen()
    }

    fn writer_state(&self) -> MutexGuard<'_, WriterState> {
        self.writer_state.lock()
    }

    /// Returns the state, or an error if the tree is closed.
    fn active_state(&self) -> Result<RwLockReadGuard<'_, LsmState>, IndexError> {
        let state = self.state();
        self.pages.store.check_open()?;
        Ok(state)
    }

    fn state(&self) -> RwLockReadGuard<'_, LsmState> {
        self.state.read()
    }
}

#[cfg(test)]
mod tests;
