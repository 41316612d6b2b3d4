//! The sled database under the index; the only file that names sled. It keeps bytes under numbers, and is asked for
//! nothing but to get, to set and to flush. Whatever sled does, from an error to a panic, comes out as [`Damaged`],
//! after which this tree is not touched any more: its messages are still in the log.

use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError};
use std::time::{Duration, Instant};

use super::guard::Guard;
use super::mark::Mark;
use super::panics::guarded;
use super::value::{pack, unpack};

/// How many values share a leaf of the tree: as few as sled takes, since they are as large as a leaf should be.
const LEAF_FANOUT: usize = 3;
/// How hard sled compresses leaves, as a level of zstd. At the least of all, it looks for nothing: so a leaf is as long
/// as its values, and a little.
const LEVEL: i32 = -(1 << 17);
/// What sled keeps in memory of what it has read; what is read again is kept above it.
const CACHE: usize = 4 << 20;
/// What sled has written it keeps in memory until it is opened anew: so that is done after so many bytes.
const KEPT: usize = 32 << 20;
/// A process that ends may hold its locks for a moment longer than its place in the store.
const DYING: Duration = Duration::from_secs(5);
/// It opens in milliseconds, however large it is, and no call takes much longer; after so long it is taken to hang.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(5);
/// Below every number, since it is shorter.
const ROOT: &[u8] = &[0];

type Db = sled::Db<LEAF_FANOUT>;

/// Why the index cannot be used any more.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub struct Damaged {
    why: String,
    /// Whether it is not its fault, but the disk has no room for it.
    pub is_full: bool,
    /// Whether it is only that what was looked for has been given up: then it may stand elsewhere now.
    pub is_gone: bool,
}

impl Damaged {
    /// For a reason that was found here.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_full: false, is_gone: false }
    }

    /// For what was given up, since another is to have its place.
    pub fn given_up() -> Self {
        Self::new("it was given up")
    }

    /// For what is not where it was.
    pub fn gone(why: impl Into<String>) -> Self {
        Self { is_gone: true, ..Self::new(why) }
    }
}

impl From<&std::io::Error> for Damaged {
    fn from(error: &std::io::Error) -> Self {
        let is_full = error.kind() == std::io::ErrorKind::StorageFull;
        Self { is_full, ..Self::new(error.to_string()) }
    }
}

/// A handle is for one thread at a time, so each call borrows one; and it is large, so it stays where it is.
type Handle = ManuallyDrop<Box<Db>>;

/// Handles that nobody uses now.
type Handles = Mutex<Vec<Handle>>;

/// From numbers to bytes, and the root, which says what they are for.
pub struct Tree {
    config: sled::Config,
    guard: Guard,
    /// Locked for writing while sled is opened anew, thus while nobody has a handle.
    handles: RwLock<Handles>,
    written: AtomicUsize,
    damaged: AtomicBool,
}

impl Tree {
    /// Opens the tree in `dir`, or makes one there. Answers with its root, too, if it has one.
    pub fn open(dir: &Path) -> Result<(Self, Option<Vec<u8>>), Damaged> {
        let config = sled::Config::new().path(dir).cache_capacity_bytes(CACHE).flush_every_ms(None);
        let config = config.zstd_compression_level(LEVEL);
        let guard = Guard::new(dir);
        let (db, root) = open(&config, &guard)?;
        let handles = RwLock::new(Mutex::new(vec![db]));
        let (written, damaged) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok((Self { config, guard, handles, written, damaged }, root))
    }

    /// What stands under a number.
    pub fn get(&self, number: u32) -> Result<Option<Vec<u8>>, Damaged> {
        self.with(|db| db.get(number.to_be_bytes()))?.map(|value| unpack(&value)).transpose()
    }

    /// Sets what stands under a number. For one thread at a time, as all that writes.
    pub fn set(&self, number: u32, bytes: &[u8]) -> Result<(), Damaged> {
        let value = pack(bytes);
        self.written.fetch_add(value.len(), Ordering::Relaxed);
        self.with(|db| db.insert(number.to_be_bytes(), value).map(drop))
    }

    /// Makes all that was set durable together with a new root, which says how far the index goes.
    pub fn flush(&self, root: &[u8], mark: &Mark) -> Result<(), Damaged> {
        self.with(|db| {
            db.insert(ROOT, pack(root))?;
            db.flush()?;
            self.guard.after_flush(mark);
            Ok(())
        })
    }

    /// Has sled let go of the memory that it took for what it wrote, if that is much. To be called after a flush,
    /// with the root that was flushed.
    pub fn forget_written(&self, root: &[u8]) -> Result<(), Damaged> {
        if self.written.load(Ordering::Relaxed) < KEPT {
            return Ok(());
        }
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        match close(&mut handles).and_then(|()| open(&self.config, &self.guard)) {
            Ok((db, found)) => {
                self.guard.after_reopen();
                *handles = Mutex::new(vec![db]);
                self.written.store(0, Ordering::Relaxed);
                if found.as_deref() == Some(root) { Ok(()) } else { Err(self.fail(Damaged::new("it lost its root"))) }
            }
            Err(damaged) => Err(self.fail(damaged)),
        }
    }

    /// Gives up the tree without touching its files again.
    pub fn abandon(&self) {
        self.damaged.store(true, Ordering::Release);
    }

    /// Gives up the tree, and waits until nobody is in it: from then on, others may have its place. If it is whole,
    /// sled is closed; else it might never come back from that, so what it has open is leaked.
    pub fn retire(&self) {
        let is_whole = !self.damaged.swap(true, Ordering::AcqRel);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.handles.try_write() {
                Ok(mut handles) if is_whole => return drop(close(&mut handles)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                _ => return,
            }
        }
    }

    fn fail(&self, damaged: Damaged) -> Damaged {
        self.abandon();
        damaged
    }

    fn check(&self) -> Result<(), Damaged> {
        match self.damaged.load(Ordering::Acquire) {
            true => Err(Damaged::given_up()),
            false => Ok(()),
        }
    }

    /// Calls `work` with a handle that no other thread has.
    fn with<T>(&self, work: impl FnOnce(&Db) -> std::io::Result<T>) -> Result<T, Damaged> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        let db = borrow(&handles);
        match guarded(|| work(&db)) {
            Ok(Ok(done)) => {
                handles.lock().unwrap_or_else(PoisonError::into_inner).push(db);
                Ok(done)
            }
            Ok(Err(error)) => Err(self.fail(Damaged::from(&error))),
            Err(damaged) => Err(self.fail(damaged)),
        }
    }
}

impl Drop for Tree {
    /// A damaged one might never come back from being closed, so it is leaked instead.
    fn drop(&mut self) {
        if self.check().is_ok() {
            let _ = close(self.handles.get_mut().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Closes sled, which flushes.
fn close(handles: &mut Handles) -> Result<(), Damaged> {
    let handles = std::mem::take(handles.get_mut().unwrap_or_else(PoisonError::into_inner));
    guarded(|| handles.into_iter().map(ManuallyDrop::into_inner).for_each(drop))
}

fn borrow(handles: &RwLockReadGuard<'_, Handles>) -> Handle {
    let mut handles = handles.lock().unwrap_or_else(PoisonError::into_inner);
    match handles.len() {
        // One stays, to make others from.
        1 => handles[0].clone(),
        _ => handles.pop().expect("there is always one"),
    }
}

/// Opens sled and reads the root, in a thread that can be left behind, since sled may never come back from files that
/// it misreads.
fn open(config: &sled::Config, guard: &Guard) -> Result<(Handle, Option<Vec<u8>>), Damaged> {
    guard.before_open()?;
    let (sender, opened) = std::sync::mpsc::sync_channel(1);
    let config = config.clone();
    let open = move || {
        let opened = open_files(&config).and_then(|db| {
            let root = guarded(|| db.get(ROOT))?.map_err(|error| Damaged::from(&error));
            Ok((root?.map(|root| unpack(&root)).transpose()?, db))
        });
        let _ = sender.send(opened);
    };
    std::thread::Builder::new().spawn(open).map_err(|error| Damaged::from(&error))?;
    let (root, db) = opened.recv_timeout(PATIENCE).map_err(|_| Damaged::new("it does not open"))??;
    Ok((db, root))
}

fn open_files(config: &sled::Config) -> Result<Handle, Damaged> {
    let deadline = Instant::now() + DYING;
    loop {
        match guarded(|| config.open::<LEAF_FANOUT>()) {
            Ok(Ok(db)) => return Ok(ManuallyDrop::new(Box::new(db))),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            Ok(Err(error)) => return Err(Damaged::from(&error)),
            Err(damaged) => return Err(damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::noise;
    use super::*;

    #[test]
    fn what_was_flushed_is_there_after_sled_was_opened_anew_and_is_read_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, root) = Tree::open(&dir.path().join("index")).unwrap();
        assert_eq!(root, None);
        let value = |number: u32| noise(1 << 20, number.into());
        (0..40).for_each(|number| tree.set(number, &value(number)).unwrap());
        tree.flush(b"root", &Mark::EMPTY).unwrap();
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                (0..400).for_each(|number| assert_eq!(tree.get(number % 40).unwrap(), Some(value(number % 40))));
            });
            tree.forget_written(b"root").unwrap();
            reading.join().unwrap();
        });
        assert_eq!(tree.written.load(Ordering::Relaxed), 0);
        assert_eq!(tree.get(40).unwrap(), None);
    }

    #[test]
    fn no_leaf_has_the_length_that_sled_spoils() {
        const PLACE: usize = 1 << 16;
        let dir = tempfile::tempdir().unwrap();
        let (tree, _) = Tree::open(&dir.path().join("index")).unwrap();
        let file = dir.path().join("index/slabs").join(PLACE.to_string());
        let mut longest = 0;
        for length in 64_900..65_600 {
            tree.set(1, &noise(length, 9)).unwrap();
            tree.flush(b"root", &Mark::EMPTY).unwrap();
            // A place ends with the length of what it holds, and a checksum.
            for place in std::fs::read(&file).unwrap().chunks_exact(PLACE) {
                let length = u32::from_le_bytes(*place[PLACE - 8..].first_chunk().unwrap());
                assert_ne!(length, 65_529);
                longest = longest.max(length);
            }
        }
        assert!(longest > 65_000, "{longest}");
    }
}
