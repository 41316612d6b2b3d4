//! The entries of the index: the young ones in memory, all others in runs. One thread after the other changes them; who
//! reads waits for nobody, and finds every entry in one place or the other.

mod flush;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};

use super::block::{Entry, Standing};
use super::catalog::{self, Runs};
use super::guard::Guard;
use super::mark::{Change, Mark};
use super::merged::Merged;
use super::pages::Pages;
use super::run::Run;
use super::tree::{Damaged, Tree};
use crate::digest::{Digest, Prefix};
use crate::store::log::{Point, Position};

/// Young entries beyond which a flush is due.
const YOUNG: usize = 1 << 18;
/// The same in bytes of the log, which would be read again after a crash.
const YOUNG_BYTES: u64 = 1 << 28;
/// Young entries that are looked up or inserted at a time, while others wait.
const PART: usize = 1 << 10;

/// Where each digest's last record stands, and what that is in all.
pub struct Table {
    dir: PathBuf,
    pages: Pages,
    layers: RwLock<Layers>,
    /// Whoever has it writes.
    writing: Mutex<Writing>,
}

struct Writing {
    /// As it was flushed last.
    root: Vec<u8>,
    /// How many entries are to be merged before the next flush.
    owed: usize,
}

struct Layers {
    young: BTreeMap<Digest, Standing>,
    runs: Arc<Runs>,
    /// Of all entries, and of those in runs.
    mark: Mark,
    flushed: Mark,
    /// Nothing is inserted any more, so nothing is to be read.
    is_retired: bool,
}

impl Table {
    /// Opens the table in `dir`, or makes one there, with `cache` bytes for blocks.
    pub fn open(dir: &Path, cache: u64) -> Result<Self, Damaged> {
        let (tree, root) = Tree::open(dir)?;
        let check = || {
            let found = root.as_deref().map(catalog::decode).transpose()?;
            Guard::new(dir).after_open(found.as_ref().map(|(mark, ..)| mark))?;
            Ok(found.unwrap_or((Mark::EMPTY, 0, Runs::default())))
        };
        let (flushed, stamp, runs) = check().inspect_err(|_: &Damaged| tree.abandon())?;
        let pages = Pages::new(tree, runs.pages(), stamp.wrapping_add(1), cache);
        let (mark, runs) = (flushed.clone(), Arc::new(runs));
        let layers = Layers { young: BTreeMap::new(), runs, mark, flushed, is_retired: false };
        let writing = Mutex::new(Writing { root: root.unwrap_or_default(), owed: 0 });
        Ok(Self { dir: dir.to_owned(), pages, layers: RwLock::new(layers), writing })
    }

    /// Where a digest's last record stands, be it a message or a removal.
    pub fn get(&self, digest: &Digest) -> Result<Standing, Damaged> {
        let layers = self.in_use()?;
        if let Some(position) = layers.young.get(digest) {
            return Ok(*position);
        }
        let runs = layers.runs.clone();
        drop(layers);
        self.read(&runs, |runs| {
            for run in runs.list.iter().rev() {
                if let Some(found) = run.find(digest, &self.pages)? {
                    return Ok(found);
                }
            }
            Ok(None)
        })
    }

    /// The same of many in their order, which makes it cheap.
    pub fn get_all(&self, digests: &[Digest]) -> Result<Vec<Standing>, Damaged> {
        let mut young = Vec::with_capacity(digests.len());
        for part in digests.chunks(PART) {
            let layers = self.in_use()?;
            young.extend(part.iter().map(|digest| layers.young.get(digest).copied()));
        }
        // Taken last: what was young until then may be in a run by now.
        let runs = self.in_use()?.runs.clone();
        self.find_all(&runs, digests, young)
    }

    /// Looks for those in the runs that are not found yet.
    fn find_all(
        &self,
        runs: &Arc<Runs>,
        digests: &[Digest],
        mut found: Vec<Option<Standing>>,
    ) -> Result<Vec<Standing>, Damaged> {
        self.read(runs, |runs| {
            for run in runs.list.iter().rev() {
                run.find_all(digests, &mut found, &self.pages)?;
            }
            Ok(())
        })?;
        Ok(found.into_iter().map(Option::flatten).collect())
    }

    /// Sets entries, or takes them out, in the order of their digests; then the table is complete up to `end`. The later
    /// of two of a digest counts.
    pub fn insert(&self, entries: &[Entry], end: Point) -> Result<(), Damaged> {
        let _writing = self.writing();
        let mut change = Change::default();
        for part in entries.chunks(PART) {
            let mut layers = self.layers.write().expect(UNBROKEN);
            let before = part.iter().map(|(digest, position)| layers.young.insert(*digest, *position));
            let before: Vec<_> = before.collect();
            let runs = layers.runs.clone();
            drop(layers);
            let digests: Vec<_> = part.iter().map(|(digest, _)| *digest).collect();
            for ((_, position), before) in part.iter().zip(self.find_all(&runs, &digests, before)?) {
                change.count(before, *position);
            }
        }
        let mut layers = self.layers.write().expect(UNBROKEN);
        if layers.is_retired {
            return Err(Damaged::given_up());
        }
        change.apply(&mut layers.mark);
        layers.mark.point = end;
        Ok(())
    }

    /// Forgets that anything was needed of segments that are gone.
    pub fn forget_segments(&self, gone: &[u32]) {
        let _writing = self.writing();
        let mut layers = self.layers.write().expect(UNBROKEN);
        layers.mark.live.retain(|number, _| !gone.contains(number));
    }

    /// At most `limit` messages of a range, in order.
    pub fn range(&self, from: Bound<Digest>, to: Digest, limit: usize) -> Result<Vec<(Digest, Position)>, Damaged> {
        let is_message = |(digest, position): Entry| Some((digest, position.filter(Position::is_message)?));
        let layers = self.in_use()?;
        let mut young = Vec::new();
        let mut left = limit;
        for (digest, position) in layers.young.range((from, Bound::Included(to))) {
            if left == 0 {
                break;
            }
            young.push((*digest, *position));
            left -= usize::from(is_message((*digest, *position)).is_some());
        }
        let runs = layers.runs.clone();
        drop(layers);
        self.read(&runs, |runs| {
            let first = match from {
                Bound::Included(digest) | Bound::Excluded(digest) => digest,
                Bound::Unbounded => *Prefix::ALL.range().start(),
            };
            let mut found = Vec::new();
            for entry in self.merged(&young, &runs.list, first) {
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
    pub fn entries_in(&self, segments: &[u32]) -> Result<Vec<(Digest, Position)>, Damaged> {
        let layers = self.in_use()?;
        let young: Vec<_> = layers.young.iter().map(|(digest, position)| (*digest, *position)).collect();
        let runs = layers.runs.clone();
        drop(layers);
        self.read(&runs, |runs| {
            let all = self.merged(&young, &runs.list, *Prefix::ALL.range().start());
            let there = all.map(|entry| entry.map(|(digest, position)| Some((digest, position?))));
            let wanted = there.filter_map(Result::transpose);
            let in_segments = |entry: &Result<(_, Position), _>| {
                entry.as_ref().map_or(true, |(_, position)| segments.contains(&position.segment))
            };
            wanted.filter(in_segments).collect()
        })
    }

    /// What the entries are in all.
    pub fn mark(&self) -> Mark {
        self.layers().mark.clone()
    }

    /// What of that is durable.
    pub fn flushed(&self) -> Mark {
        self.layers().flushed.clone()
    }

    /// Whether all of it is.
    pub fn is_flushed(&self) -> bool {
        let layers = self.layers();
        layers.mark == layers.flushed
    }

    /// Whether so much is not durable that it should be.
    fn is_due(&self) -> bool {
        let Layers { young, mark, flushed, .. } = &*self.layers();
        young.len() >= YOUNG || mark.bytes.saturating_sub(flushed.bytes) >= YOUNG_BYTES
    }

    /// Entries from `first` on, in order.
    fn merged<'a>(&'a self, young: &'a [Entry], runs: &'a [Run], first: Digest) -> Merged<'a> {
        let young: Box<dyn Iterator<Item = _>> = Box::new(young.iter().copied().map(Ok));
        let runs =
            runs.iter().rev().map(|run| Box::new(run.entries(first, &self.pages)) as Box<dyn Iterator<Item = _>>);
        Merged::of(std::iter::once(young).chain(runs))
    }

    /// Reads in `runs`; or, should pages of them have been given up meanwhile, in those that there are now.
    fn read<T>(&self, runs: &Arc<Runs>, mut ask: impl FnMut(&Runs) -> Result<T, Damaged>) -> Result<T, Damaged> {
        let mut runs = Cow::Borrowed(runs);
        loop {
            match ask(&runs) {
                Err(why) if why.is_gone => {
                    let now = self.layers().runs.clone();
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
    pub fn retire(&self) -> Mark {
        let mut layers = self.layers.write().expect(UNBROKEN);
        layers.is_retired = true;
        let mark = layers.mark.clone();
        drop(layers);
        self.pages.tree.retire();
        mark
    }

    /// Gives up the table without touching its files again.
    pub fn abandon(&self) {
        self.pages.tree.abandon();
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().expect(UNBROKEN)
    }

    /// The layers, unless what they have is not kept up any more.
    fn in_use(&self) -> Result<RwLockReadGuard<'_, Layers>, Damaged> {
        let layers = self.layers();
        if layers.is_retired { Err(Damaged::given_up()) } else { Ok(layers) }
    }

    fn layers(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().expect(UNBROKEN)
    }
}

const UNBROKEN: &str = "nobody panics while holding this";

#[cfg(test)]
mod tests;
