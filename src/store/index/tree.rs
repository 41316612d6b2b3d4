//! The sled database under the index; the only file that names sled. Whatever sled does, from an error to a panic,
//! comes out as [`Damaged`], after which this tree is not touched any more: its messages are still in the log.

use std::mem::ManuallyDrop;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::entry::{self, Entry, foreign};
use super::guard::Guard;
use super::mark::{Change, Mark};
use super::panics::guarded;
use crate::digest::Digest;
use crate::store::log::Position;

/// How many entries share a leaf of the tree: large leaves compress well and make opening fast.
const LEAF_FANOUT: usize = 1024;
/// How hard leaves are compressed. They are mostly digests, which do not shrink, however long that is tried.
const LEVEL: i32 = 1;
/// A process that ends may hold its locks for a moment longer than its place in the store.
const DYING: Duration = Duration::from_secs(5);
/// It opens in milliseconds, however large it is; after so long it is taken to hang.
const PATIENCE: Duration = Duration::from_secs(30);
/// Below every digest, since it is shorter.
const MARK_KEY: &[u8] = &[0];

type Db = sled::Db<LEAF_FANOUT>;

/// Why the index cannot be used any more.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub struct Damaged {
    why: String,
    /// Whether it is not its fault, but the disk has no room for it.
    pub is_full: bool,
}

impl Damaged {
    /// For a reason that was found here.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_full: false }
    }
}

impl From<&std::io::Error> for Damaged {
    fn from(error: &std::io::Error) -> Self {
        Self { why: error.to_string(), is_full: error.kind() == std::io::ErrorKind::StorageFull }
    }
}

/// From digests to positions in the log.
pub struct Tree {
    /// sled's handles are for one thread at a time, so each call borrows one. They are large, so they stay where they are.
    handles: Mutex<Vec<ManuallyDrop<Box<Db>>>>,
    guard: Guard,
    damaged: AtomicBool,
}

impl Tree {
    /// Opens the tree in `dir`, or makes one there, with `cache` bytes for its leaves. Answers with its sentinel, too.
    pub fn open(dir: &Path, cache: u64) -> Result<(Self, Option<Mark>), Damaged> {
        let guard = Guard::new(dir);
        guard.before_open()?;
        let (sender, opened) = std::sync::mpsc::sync_channel(1);
        let cache = usize::try_from(cache).unwrap_or(usize::MAX);
        let config = sled::Config::new().path(dir).cache_capacity_bytes(cache).flush_every_ms(None);
        let config = config.zstd_compression_level(LEVEL);
        // In a thread that can be left behind, since sled may never come back from files that it misreads.
        let open = move || {
            let tree = Self::open_files(&config, guard);
            let _ = sender.send(tree.and_then(|tree| tree.mark().map(|mark| (tree, mark))));
        };
        std::thread::Builder::new().spawn(open).map_err(|error| Damaged::from(&error))?;
        let (tree, mark) = opened.recv_timeout(PATIENCE).map_err(|_| Damaged::new("it does not open"))??;
        match tree.guard.after_open(mark.as_ref()) {
            Ok(()) => Ok((tree, mark)),
            Err(damaged) => {
                tree.abandon();
                Err(damaged)
            }
        }
    }

    fn open_files(config: &sled::Config, guard: Guard) -> Result<Self, Damaged> {
        let deadline = Instant::now() + DYING;
        loop {
            match guarded(|| config.open::<LEAF_FANOUT>()) {
                Ok(Ok(db)) => {
                    let handles = Mutex::new(vec![ManuallyDrop::new(Box::new(db))]);
                    return Ok(Self { guard, handles, damaged: AtomicBool::new(false) });
                }
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(Err(error)) => return Err(Damaged::from(&error)),
                Err(damaged) => return Err(damaged),
            }
        }
    }

    /// Where a digest's last record stands, be it a message or a removal.
    pub fn get(&self, digest: &Digest) -> Result<Option<Position>, Damaged> {
        self.with(|db| match db.get(entry::key(digest))? {
            Some(value) => entry::find(digest, &value),
            None => Ok(None),
        })
    }

    /// Sets entries, or takes them out; answers with what that changes in all. For one thread at a time.
    pub fn insert(&self, entries: &[(Digest, Option<Position>)]) -> Result<Change, Damaged> {
        self.with(|db| {
            let mut change = Change::default();
            for (digest, position) in entries {
                let before = Self::set(db, digest, *position)?;
                change.count(before, *position);
            }
            Ok(change)
        })
    }

    /// Sets one entry and leaves those that share its key as they are; answers with what it was before.
    fn set(db: &Db, digest: &Digest, position: Option<Position>) -> std::io::Result<Option<Position>> {
        let key = entry::key(digest);
        let alone = position.map(|position| entry::encode(&[(*digest, position)]));
        // Most are new, and that is the cheapest to find out by setting it.
        let Err(others) = db.compare_and_swap(key, None::<&[u8]>, alone)? else { return Ok(None) };
        let mut entries = others.current.map_or(Ok(Vec::new()), |value| entry::decode(&key, &value))?;
        let before = entries.iter().find(|(its, _)| its == digest).map(|(_, position)| *position);
        entries.retain(|(its, _)| its != digest);
        entries.extend(position.map(|position| (*digest, position)));
        entries.sort_unstable_by_key(|(digest, _)| *digest);
        match entries.is_empty() {
            true => db.remove(key)?,
            false => db.insert(key, entry::encode(&entries))?,
        };
        Ok(before)
    }

    /// At most `limit` messages of a range, in order.
    pub fn range(&self, from: Bound<Digest>, to: Digest, limit: usize) -> Result<Vec<Entry>, Damaged> {
        let first = match from {
            Bound::Included(digest) | Bound::Excluded(digest) => entry::key(&digest),
            Bound::Unbounded => [0; _],
        };
        let is_wanted =
            |(digest, position): &Entry| (from, Bound::Included(to)).contains(digest) && position.is_message();
        self.with(|db| {
            let mut found = Vec::new();
            for item in db.range(first.as_slice()..) {
                let (key, value) = item?;
                // sled does not stop at an upper bound: it would look through all leaves to the end of the tree.
                if found.len() >= limit || key.as_ref() > entry::key(&to).as_slice() {
                    break;
                }
                found.extend(entry::decode(&key, &value)?.into_iter().filter(is_wanted));
            }
            found.truncate(limit);
            Ok(found)
        })
    }

    /// All entries, removals included, that point into one of these segments.
    pub fn entries_in(&self, segments: &[u32]) -> Result<Vec<Entry>, Damaged> {
        self.with(|db| {
            let mut found = Vec::new();
            for item in db.iter() {
                let (key, value) = item?;
                if key.as_ref() != MARK_KEY {
                    let entries = entry::decode(&key, &value)?.into_iter();
                    found.extend(entries.filter(|(_, position)| segments.contains(&position.segment)));
                }
            }
            Ok(found)
        })
    }

    /// The sentinel as of the last [`Tree::flush`]; `None` if there was none.
    fn mark(&self) -> Result<Option<Mark>, Damaged> {
        let decode = |value: sled::InlineArray| Mark::decode(&value).ok_or_else(|| foreign("sentinel"));
        self.with(|db| db.get(MARK_KEY)?.map(decode).transpose())
    }

    /// Makes all entries durable, and the sentinel with them.
    pub fn flush(&self, mark: &Mark) -> Result<(), Damaged> {
        self.with(|db| {
            db.insert(MARK_KEY, mark.encode())?;
            db.flush().map(|_| ())
        })?;
        self.guard.after_flush(mark);
        Ok(())
    }

    /// Gives up the tree without touching its files again.
    pub fn abandon(&self) {
        self.damaged.store(true, Ordering::Release);
    }

    /// Calls `work` with a handle that no other thread has.
    fn with<T>(&self, work: impl FnOnce(&Db) -> std::io::Result<T>) -> Result<T, Damaged> {
        if self.damaged.load(Ordering::Acquire) {
            return Err(Damaged::new("it was given up"));
        }
        let db = {
            let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
            match handles.len() {
                // One stays, to make others from.
                1 => handles[0].clone(),
                _ => handles.pop().expect("there is always one"),
            }
        };
        match guarded(|| work(&db)) {
            Ok(Ok(done)) => {
                self.handles.lock().unwrap_or_else(PoisonError::into_inner).push(db);
                Ok(done)
            }
            Ok(Err(error)) => {
                self.abandon();
                Err(Damaged::from(&error))
            }
            Err(damaged) => {
                self.abandon();
                Err(damaged)
            }
        }
    }
}

impl Drop for Tree {
    /// Closes sled, which flushes; but a damaged one might never come back from that, so it is leaked instead.
    fn drop(&mut self) {
        if !self.damaged.load(Ordering::Acquire) {
            let handles = std::mem::take(self.handles.get_mut().unwrap_or_else(PoisonError::into_inner));
            let _ = guarded(|| handles.into_iter().map(ManuallyDrop::into_inner).for_each(drop));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::log::Kind;

    #[test]
    fn digests_that_begin_alike_come_and_go_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, _) = Tree::open(&dir.path().join("index"), 1 << 20).unwrap();
        let alike = [1, 2, 3].map(|last| {
            let mut bytes = [7; 32];
            bytes[31] = last;
            Digest::from_bytes(bytes)
        });
        let at = |offset| Some(Position { kind: Kind::Message, segment: 1, offset, stored: 9, length: 9, time: 1 });
        let set = |digest, position| tree.insert(&[(digest, position)]).unwrap();
        for (digest, offset) in alike.iter().zip([64, 128, 192]) {
            set(*digest, at(offset));
        }
        set(alike[1], at(256));
        assert_eq!(alike.map(|digest| tree.get(&digest).unwrap()), [at(64), at(256), at(192)]);
        let listed = tree.range(Bound::Unbounded, alike[2], 10).unwrap();
        assert_eq!(listed.iter().map(|(digest, _)| *digest).collect::<Vec<_>>(), alike);
        for (gone, digest) in alike.iter().enumerate() {
            set(*digest, None);
            set(*digest, None);
            let left = alike.map(|digest| tree.get(&digest).unwrap().is_some());
            assert_eq!(left.iter().filter(|there| **there).count(), alike.len() - gone - 1, "{left:?}");
        }
        assert_eq!(tree.range(Bound::Unbounded, alike[2], 10).unwrap(), []);
    }
}
