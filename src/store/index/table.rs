//! The entries of the index: the young ones in memory, all others in runs. Only what is written here changes them, one
//! thread after the other; who reads waits for nobody, and finds every entry in one place or the other.
//!
//! Young entries become a run when they are flushed. Runs of about the same size are merged, a step at a time, so that
//! there are few of them and each entry is written again but seldom: a log-structured merge tree (O'Neil et al., 1996).

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
use super::run::{Group, Run};
use super::tree::{Damaged, Tree};
use crate::digest::{Digest, Prefix};
use crate::store::log::{Point, Position};

/// Young entries beyond which a flush is due.
const YOUNG: usize = 1 << 18;
/// The same in bytes of the log, which would be read again after a crash.
const YOUNG_BYTES: u64 = 1 << 28;
/// Entries that are merged between two flushes of the tree.
const STEP: usize = 1 << 17;
/// Entries that are merged after a flush at the least, for each run that there is.
const LEAST: usize = 1 << 12;
/// Entries that are looked up at a time before they are inserted.
const PART: usize = 1 << 10;
/// What an entry may take on disk.
const ENTRY: u64 = 64;
/// So much room is left on the disk by a flush: sled does not survive a full one.
const SPARE: u64 = 16 << 20;

/// Where each digest's last record stands, and what that is in all.
pub struct Table {
    dir: PathBuf,
    pages: Pages,
    layers: RwLock<Layers>,
    /// Whoever has it writes. It holds the root that was flushed last.
    writing: Mutex<Vec<u8>>,
}

struct Layers {
    young: BTreeMap<Digest, Standing>,
    runs: Arc<Runs>,
    /// Of all entries, and of those in runs.
    mark: Mark,
    flushed: Mark,
}

impl Table {
    /// Opens the table in `dir`, or makes one there, with `cache` bytes for blocks.
    pub fn open(dir: &Path, cache: u64) -> Result<Self, Damaged> {
        let (tree, root) = Tree::open(dir)?;
        let opened = root
            .as_deref()
            .map(catalog::decode)
            .transpose()
            .and_then(|found| Guard::new(dir).after_open(found.as_ref().map(|(mark, ..)| mark)).map(|()| found));
        let (flushed, stamp, runs) = match opened {
            Ok(found) => found.unwrap_or((Mark::EMPTY, 0, Runs::default())),
            Err(damaged) => {
                tree.abandon();
                return Err(damaged);
            }
        };
        let pages = Pages::new(tree, runs.pages(), stamp.wrapping_add(1), cache);
        let layers = Layers { young: BTreeMap::new(), runs: Arc::new(runs), mark: flushed.clone(), flushed };
        let writing = Mutex::new(root.unwrap_or_default());
        Ok(Self { dir: dir.to_owned(), pages, layers: RwLock::new(layers), writing })
    }

    /// Where a digest's last record stands, be it a message or a removal.
    pub fn get(&self, digest: &Digest) -> Result<Standing, Damaged> {
        let layers = self.layers();
        if let Some(position) = layers.young.get(digest) {
            return Ok(*position);
        }
        let runs = layers.runs.clone();
        drop(layers);
        self.find(runs, digest)
    }

    fn find(&self, runs: Arc<Runs>, digest: &Digest) -> Result<Standing, Damaged> {
        self.read(runs, |runs| {
            for run in runs.list.iter().rev() {
                if let Some(found) = run.find(digest, &self.pages)? {
                    return Ok(found);
                }
            }
            Ok(None)
        })
    }

    /// Sets entries, or takes them out; then the table is complete up to `end`. The later of two of a digest counts.
    pub fn insert(&self, entries: &[Entry], end: Point) -> Result<(), Damaged> {
        let _writing = self.writing();
        let mut change = Change::default();
        for part in entries.chunks(PART) {
            let layers = self.layers();
            let runs = layers.runs.clone();
            let is_young: Vec<_> = part.iter().map(|(digest, _)| layers.young.contains_key(digest)).collect();
            drop(layers);
            let old = part.iter().zip(is_young).map(|((digest, _), is_young)| match is_young {
                true => Ok(None),
                false => self.find(runs.clone(), digest),
            });
            let old = old.collect::<Result<Vec<_>, _>>()?;
            let mut layers = self.layers.write().expect(UNBROKEN);
            for ((digest, position), old) in part.iter().zip(old) {
                let before = layers.young.insert(*digest, *position).unwrap_or(old);
                change.count(before, *position);
            }
        }
        let mut layers = self.layers.write().expect(UNBROKEN);
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
        let layers = self.layers();
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
        self.read(runs, |runs| {
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
        let layers = self.layers();
        let young: Vec<_> = layers.young.iter().map(|(digest, position)| (*digest, *position)).collect();
        let runs = layers.runs.clone();
        drop(layers);
        self.read(runs, |runs| {
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
    pub fn is_due(&self) -> bool {
        let Layers { young, mark, flushed, .. } = &*self.layers();
        young.len() >= YOUNG || mark.bytes.saturating_sub(flushed.bytes) >= YOUNG_BYTES
    }

    /// Makes all entries durable, where there is room for them, and merges runs for as long as that is worth.
    pub fn flush(&self) -> Result<(), Damaged> {
        let mut root = self.writing();
        if self.is_flushed() {
            return Ok(());
        }
        let Some(written) = self.write_young(&mut root)? else { return Ok(()) };
        // Each entry is written again about as often as there are runs behind it.
        let mut budget = (written.max(LEAST)) * (self.layers().runs.list.len() + 2);
        while let Some(merged) = self.merge(&mut root)? {
            match budget.checked_sub(merged) {
                Some(left) => budget = left,
                None => break,
            }
        }
        if self.has_room(0) {
            if self.pages.sweep()? {
                let layers = self.layers();
                *root = catalog::encode(&layers.flushed, self.pages.stamp(), &layers.runs);
                self.pages.tree.flush(&root, &layers.flushed)?;
            }
            self.pages.tree.forget_written(&root)?;
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
        if !self.has_room(entries) {
            return Ok(None);
        }
        let young: Vec<_> = layers.young.iter().map(|(digest, position)| (*digest, *position)).collect();
        drop(layers);
        let mut run = Run::default();
        self.extend(&mut run, &young, &small, runs.list.is_empty(), usize::MAX)?;
        runs.list.extend((run.entries > 0).then_some(run));
        let given_up: Vec<_> = small.into_iter().flat_map(|run| run.groups).collect();
        self.publish(root, runs, mark, &given_up)?;
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
        if !self.has_room(STEP) {
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
            let moved = runs.list.drain(moving).flat_map(|run| run.groups).collect();
            runs.list.retain(|run| run.entries > 0);
            moved
        };
        self.publish(root, runs, mark, &given_up)?;
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
    fn publish(&self, root: &mut Vec<u8>, runs: Runs, mark: Mark, given_up: &[Arc<Group>]) -> Result<(), Damaged> {
        *root = catalog::encode(&mark, self.pages.stamp(), &runs);
        self.pages.tree.flush(root, &mark)?;
        let mut layers = self.layers.write().expect(UNBROKEN);
        layers.runs = Arc::new(runs);
        layers.flushed = mark;
        drop(layers);
        self.pages.give_up(given_up.iter().flat_map(|group| group.pages()));
        Ok(())
    }

    /// Entries from `first` on, in order.
    fn merged<'a>(&'a self, young: &'a [Entry], runs: &'a [Run], first: Digest) -> Merged<'a> {
        let young: Box<dyn Iterator<Item = _>> = Box::new(young.iter().copied().map(Ok));
        let runs =
            runs.iter().rev().map(|run| Box::new(run.entries(first, &self.pages)) as Box<dyn Iterator<Item = _>>);
        Merged::of(std::iter::once(young).chain(runs))
    }

    /// Reads in `runs`; or, should pages of them have been given up meanwhile, in those that there are now.
    fn read<T>(&self, mut runs: Arc<Runs>, ask: impl Fn(&Runs) -> Result<T, Damaged>) -> Result<T, Damaged> {
        loop {
            match ask(&runs) {
                Err(why) if why.is_gone => {
                    let now = self.layers().runs.clone();
                    if Arc::ptr_eq(&now, &runs) {
                        return Err(why);
                    }
                    runs = now;
                }
                answer => return answer,
            }
        }
    }

    /// Gives up the table without touching its files again.
    pub fn abandon(&self) {
        self.pages.tree.abandon();
    }

    /// Whether writing so many entries would leave room on the disk.
    fn has_room(&self, entries: usize) -> bool {
        let room = rustix::fs::statvfs(&self.dir).map(|stat| stat.f_bavail * stat.f_frsize);
        room.is_ok_and(|room| room >= entries as u64 * ENTRY + SPARE)
    }

    fn writing(&self) -> MutexGuard<'_, Vec<u8>> {
        self.writing.lock().expect(UNBROKEN)
    }

    fn layers(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().expect(UNBROKEN)
    }
}

/// From which run on they are so small, beside so many young entries, that they are best written again with those.
fn first_small(runs: &Runs, young: usize) -> usize {
    let in_use = runs.merging.map_or(0, |(written, moving)| written + moving + 1);
    let (mut first, mut entries) = (runs.list.len(), young);
    while first > in_use && is_alike(&runs.list[first - 1], entries) && runs.list[first - 1].entries <= STEP {
        first -= 1;
        entries += runs.list[first].entries;
    }
    first
}

/// Decides which runs are merged: the newest, as long as the next is not much larger than all of them.
fn begin_merging(runs: &mut Runs) -> Option<(usize, usize)> {
    let mut first = runs.list.len().checked_sub(1)?;
    let mut entries = runs.list[first].entries;
    while first > 0 && is_alike(&runs.list[first - 1], entries) {
        first -= 1;
        entries += runs.list[first].entries;
    }
    let moving = runs.list.len() - first;
    if moving < 2 {
        return None;
    }
    runs.list.insert(first, Run::default());
    runs.merging = Some((first, moving));
    runs.merging
}

fn is_alike(run: &Run, entries: usize) -> bool {
    run.entries <= entries + entries / 2
}

const UNBROKEN: &str = "nobody panics while holding this";

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
