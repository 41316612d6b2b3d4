//! The entries of the index: the young ones in memory, all others in runs. One thread after the other changes them; who
//! reads waits for nobody, and finds every entry in one place or the other.

mod flush;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};

use super::block::{IndexEntry, Slot};
use super::manifest::{self, RunSet};
use super::merge_iter::MergeIter;
use super::page_store::PageStore;
use super::sled_guard::SledGuard;
use super::sled_store::{IndexError, SledStore};
use super::sorted_run::SortedRun;
use super::totals::{Totals, TotalsDelta};
use crate::digest::{Digest, Prefix};
use crate::store::log::{LogPosition, RecordLocation};

/// Young entries beyond which a flush is due.
const MEMTABLE_ENTRIES: usize = 1 << 18;
/// The same in bytes of the log, which would be read again after a crash.
const MEMTABLE_LOG_BYTES: u64 = 1 << 28;
/// Young entries that are looked up or inserted at a time, while others wait.
const LOCK_BATCH: usize = 1 << 10;

/// Where each digest's last record stands, and what that is in all.
pub struct LsmTree {
    dir: PathBuf,
    pages: PageStore,
    state: RwLock<LsmState>,
    /// Whoever has it writes.
    writer_state: Mutex<WriterState>,
}

struct WriterState {
    /// As it was flushed last.
    manifest: Vec<u8>,
    /// How many entries are to be merged before the next flush.
    merge_debt: usize,
}

struct LsmState {
    memtable: BTreeMap<Digest, Slot>,
    runs: Arc<RunSet>,
    /// Of all entries, and of those in runs.
    totals: Totals,
    flushed_totals: Totals,
    /// Nothing is inserted any more, so nothing is to be read.
    is_closed: bool,
}

impl LsmTree {
    /// Opens the table in `dir`, or makes one there, with `cache` bytes for blocks.
    pub fn open(dir: &Path, cache: u64) -> Result<Self, IndexError> {
        let (tree, root) = SledStore::open(dir)?;
        let check = || {
            let found = root.as_deref().map(manifest::decode).transpose()?;
            SledGuard::new(dir).after_open(found.as_ref().map(|(mark, ..)| mark))?;
            Ok(found.unwrap_or((Totals::EMPTY, 0, RunSet::default())))
        };
        let (flushed, stamp, runs) = check().inspect_err(|_: &IndexError| tree.leak())?;
        let pages = PageStore::new(tree, runs.pages(), stamp.wrapping_add(1), cache);
        let (mark, runs) = (flushed.clone(), Arc::new(runs));
        let layers =
            LsmState { memtable: BTreeMap::new(), runs, totals: mark, flushed_totals: flushed, is_closed: false };
        let writing = Mutex::new(WriterState { manifest: root.unwrap_or_default(), merge_debt: 0 });
        Ok(Self { dir: dir.to_owned(), pages, state: RwLock::new(layers), writer_state: writing })
    }

    /// Where a digest's last record stands, be it a message or a removal.
    pub fn get(&self, digest: &Digest) -> Result<Slot, IndexError> {
        let layers = self.active_state()?;
        if let Some(position) = layers.memtable.get(digest) {
            return Ok(*position);
        }
        let runs = layers.runs.clone();
        drop(layers);
        self.with_retry(&runs, |runs| {
            for run in runs.list.iter().rev() {
                if let Some(found) = run.find(digest, &self.pages)? {
                    return Ok(found);
                }
            }
            Ok(None)
        })
    }

    /// The same of many in their order, which makes it cheap.
    pub fn get_all(&self, digests: &[Digest]) -> Result<Vec<Slot>, IndexError> {
        let mut young = Vec::with_capacity(digests.len());
        for part in digests.chunks(LOCK_BATCH) {
            let layers = self.active_state()?;
            young.extend(part.iter().map(|digest| layers.memtable.get(digest).copied()));
        }
        // Taken last: what was young until then may be in a run by now.
        let runs = self.active_state()?.runs.clone();
        self.find_all(&runs, digests, young)
    }

    /// Looks for those in the runs that are not found yet.
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

    /// Sets entries, or takes them out, in the order of their digests; then the table is complete up to `end`. The later
    /// of two of a digest counts.
    pub fn insert(&self, entries: &[IndexEntry], end: LogPosition) -> Result<(), IndexError> {
        let _writing = self.writer_state();
        let mut change = TotalsDelta::default();
        for part in entries.chunks(LOCK_BATCH) {
            let mut layers = self.state.write().expect(LOCK_POISONED);
            let before = part.iter().map(|(digest, position)| layers.memtable.insert(*digest, *position));
            let before: Vec<_> = before.collect();
            let runs = layers.runs.clone();
            drop(layers);
            let digests: Vec<_> = part.iter().map(|(digest, _)| *digest).collect();
            for ((_, position), before) in part.iter().zip(self.find_all(&runs, &digests, before)?) {
                change.replace(before, *position);
            }
        }
        let mut layers = self.state.write().expect(LOCK_POISONED);
        if layers.is_closed {
            return Err(IndexError::retired());
        }
        change.apply(&mut layers.totals);
        layers.totals.position = end;
        Ok(())
    }

    /// Forgets that anything was needed of segments that are gone.
    pub fn clear_segment_totals(&self, gone: &[u32]) {
        let _writing = self.writer_state();
        let mut layers = self.state.write().expect(LOCK_POISONED);
        layers.totals.live_bytes.retain(|number, _| !gone.contains(number));
    }

    /// At most `limit` messages of a range, in order.
    pub fn range(
        &self,
        from: Bound<Digest>,
        to: Digest,
        limit: usize,
    ) -> Result<Vec<(Digest, RecordLocation)>, IndexError> {
        let is_message = |(digest, position): IndexEntry| Some((digest, position.filter(RecordLocation::is_message)?));
        let layers = self.active_state()?;
        let mut young = Vec::new();
        let mut left = limit;
        for (digest, position) in layers.memtable.range((from, Bound::Included(to))) {
            if left == 0 {
                break;
            }
            young.push((*digest, *position));
            left -= usize::from(is_message((*digest, *position)).is_some());
        }
        let runs = layers.runs.clone();
        drop(layers);
        self.with_retry(&runs, |runs| {
            let first = match from {
                Bound::Included(digest) | Bound::Excluded(digest) => digest,
                Bound::Unbounded => *Prefix::ALL.range().start(),
            };
            let mut found = Vec::new();
            for entry in self.iter_merged(&young, &runs.list, first) {
                let entry = entry?;
                if entry.0 > to || found.len() == limit {
                    break;
                }
                found.extend(is_message(entry).filter(|_| from != Bound::Excluded(entry.0)));
            }
            Ok(found)
        })
    }

    /// All entries, removals included, that point into one of these segments.
    pub fn entries_in_segments(&self, segments: &[u32]) -> Result<Vec<(Digest, RecordLocation)>, IndexError> {
        let layers = self.active_state()?;
        let young: Vec<_> = layers.memtable.iter().map(|(digest, position)| (*digest, *position)).collect();
        let runs = layers.runs.clone();
        drop(layers);
        self.with_retry(&runs, |runs| {
            let all = self.iter_merged(&young, &runs.list, *Prefix::ALL.range().start());
            let there = all.map(|entry| entry.map(|(digest, position)| Some((digest, position?))));
            let wanted = there.filter_map(Result::transpose);
            let in_segments = |entry: &Result<(_, RecordLocation), _>| {
                entry.as_ref().map_or(true, |(_, position)| segments.contains(&position.segment))
            };
            wanted.filter(in_segments).collect()
        })
    }

    /// What the entries are in all.
    pub fn totals(&self) -> Totals {
        self.state().totals.clone()
    }

    /// What of that is durable.
    pub fn flushed_totals(&self) -> Totals {
        self.state().flushed_totals.clone()
    }

    /// Whether all of it is.
    pub fn is_flushed(&self) -> bool {
        let layers = self.state();
        layers.totals == layers.flushed_totals
    }

    /// Whether so much is not durable that it should be.
    fn needs_flush(&self) -> bool {
        let LsmState { memtable: young, totals: mark, flushed_totals: flushed, .. } = &*self.state();
        young.len() >= MEMTABLE_ENTRIES || mark.bytes.saturating_sub(flushed.bytes) >= MEMTABLE_LOG_BYTES
    }

    /// Entries from `first` on, in order.
    fn iter_merged<'a>(&'a self, young: &'a [IndexEntry], runs: &'a [SortedRun], first: Digest) -> MergeIter<'a> {
        let young: Box<dyn Iterator<Item = _>> = Box::new(young.iter().copied().map(Ok));
        let runs =
            runs.iter().rev().map(|run| Box::new(run.entries(first, &self.pages)) as Box<dyn Iterator<Item = _>>);
        MergeIter::new(std::iter::once(young).chain(runs))
    }

    /// Reads in `runs`; or, should pages of them have been given up meanwhile, in those that there are now.
    fn with_retry<T>(
        &self,
        runs: &Arc<RunSet>,
        mut ask: impl FnMut(&RunSet) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let mut runs = Cow::Borrowed(runs);
        loop {
            match ask(&runs) {
                Err(why) if why.is_page_replaced => {
                    let now = self.state().runs.clone();
                    if Arc::ptr_eq(&now, &runs) {
                        return Err(why);
                    }
                    runs = Cow::Owned(now);
                }
                answer => return answer,
            }
        }
    }

    /// Gives up the table for another in its place, once nobody is in it; answers with what it had come to. What is
    /// inserted at the same time counts for that, or is an error.
    pub fn close(&self) -> Totals {
        let mut layers = self.state.write().expect(LOCK_POISONED);
        layers.is_closed = true;
        let mark = layers.totals.clone();
        drop(layers);
        self.pages.store.close();
        mark
    }

    /// Gives up the table without touching its files again.
    pub fn leak(&self) {
        self.pages.store.leak();
    }

    fn writer_state(&self) -> MutexGuard<'_, WriterState> {
        self.writer_state.lock().expect(LOCK_POISONED)
    }

    /// The layers, unless what they have is not kept up any more.
    fn active_state(&self) -> Result<RwLockReadGuard<'_, LsmState>, IndexError> {
        let layers = self.state();
        if layers.is_closed { Err(IndexError::retired()) } else { Ok(layers) }
    }

    fn state(&self) -> RwLockReadGuard<'_, LsmState> {
        self.state.read().expect(LOCK_POISONED)
    }
}

const LOCK_POISONED: &str = "nobody panics while holding this";

#[cfg(test)]
mod tests;
