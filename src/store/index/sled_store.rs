//! The sled database under the index; the only file that names sled. It keeps bytes under numbers, and is asked for
//! nothing but to get, to set and to flush. Whatever sled does, from an error to a panic, comes out as [`IndexError`],
//! after which this tree is not touched any more: its messages are still in the log.

use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError};
use std::time::{Duration, Instant};

use super::panics::catch_panic;
use super::sled_guard::SledGuard;
use super::totals::Totals;
use super::value::{pack, unpack};

/// How many values share a leaf of the tree: as few as sled takes, since they are as large as a leaf should be.
const LEAF_FANOUT: usize = 3;
/// How hard sled compresses leaves, as a level of zstd. At the least of all, it looks for nothing: so a leaf is as long
/// as its values, and a little.
const SLED_COMPRESSION_LEVEL: i32 = -(1 << 17);
/// What sled keeps in memory of what it has read; what is read again is kept above it.
const SLED_CACHE_BYTES: usize = 4 << 20;
/// What sled has written it keeps in memory until it is opened anew: so that is done after so many bytes.
const REOPEN_AFTER_BYTES: usize = 32 << 20;
/// A process that ends may hold its locks for a moment longer than its place in the store.
const LOCK_RETRY: Duration = Duration::from_secs(5);
/// It opens in milliseconds, however large it is, and no call takes much longer; after so long it is taken to hang.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait before looking again.
const RETRY_DELAY: Duration = Duration::from_millis(5);
/// Below every number, since it is shorter.
const MANIFEST_KEY: &[u8] = &[0];

type Db = sled::Db<LEAF_FANOUT>;

/// Why the index cannot be used any more.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct IndexError {
    reason: String,
    /// Whether it is not its fault, but the disk has no room for it.
    pub is_disk_full: bool,
    /// Whether it is only that what was looked for has been given up: then it may stand elsewhere now.
    pub is_page_replaced: bool,
}

impl IndexError {
    /// For a reason that was found here.
    pub fn new(why: impl Into<String>) -> Self {
        Self { reason: why.into(), is_disk_full: false, is_page_replaced: false }
    }

    /// For what was given up, since another is to have its place.
    pub fn retired() -> Self {
        Self::new("it was given up")
    }

    /// For what is not where it was.
    pub fn page_replaced(why: impl Into<String>) -> Self {
        Self { is_page_replaced: true, ..Self::new(why) }
    }
}

impl From<&std::io::Error> for IndexError {
    fn from(error: &std::io::Error) -> Self {
        let is_full = error.kind() == std::io::ErrorKind::StorageFull;
        Self { is_disk_full: is_full, ..Self::new(error.to_string()) }
    }
}

/// A handle is for one thread at a time, so each call borrows one; and it is large, so it stays where it is.
type Handle = ManuallyDrop<Box<Db>>;

/// Handles that nobody uses now.
type Handles = Mutex<Vec<Handle>>;

/// From numbers to bytes, and the root, which says what they are for.
pub struct SledStore {
    config: sled::Config,
    guard: SledGuard,
    /// Locked for writing while sled is opened anew, thus while nobody has a handle.
    handles: RwLock<Handles>,
    written_bytes: AtomicUsize,
    is_closed: AtomicBool,
}

impl SledStore {
    /// Opens the tree in `dir`, or makes one there. Answers with its root, too, if it has one.
    pub fn open(dir: &Path) -> Result<(Self, Option<Vec<u8>>), IndexError> {
        let config = sled::Config::new().path(dir).cache_capacity_bytes(SLED_CACHE_BYTES).flush_every_ms(None);
        let config = config.zstd_compression_level(SLED_COMPRESSION_LEVEL);
        let guard = SledGuard::new(dir);
        let (db, root) = open_with_timeout(&config, &guard)?;
        let handles = RwLock::new(Mutex::new(vec![db]));
        let (written, damaged) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok((Self { config, guard, handles, written_bytes: written, is_closed: damaged }, root))
    }

    /// What stands under a number.
    pub fn get(&self, number: u32) -> Result<Option<Vec<u8>>, IndexError> {
        self.with_handle(|db| db.get(number.to_be_bytes()))?.map(|value| unpack(&value)).transpose()
    }

    /// Sets what stands under a number. For one thread at a time, as all that writes.
    pub fn set(&self, number: u32, bytes: &[u8]) -> Result<(), IndexError> {
        let value = pack(bytes);
        self.written_bytes.fetch_add(value.len(), Ordering::Relaxed);
        self.with_handle(|db| db.insert(number.to_be_bytes(), value).map(drop))
    }

    /// Makes all that was set durable together with a new root, which says how far the index goes.
    pub fn flush(&self, root: &[u8], mark: &Totals) -> Result<(), IndexError> {
        self.with_handle(|db| {
            db.insert(MANIFEST_KEY, pack(root))?;
            db.flush()?;
            self.guard.after_flush(mark);
            Ok(())
        })
    }

    /// Has sled let go of the memory that it took for what it wrote, if that is much. To be called after a flush,
    /// with the root that was flushed.
    pub fn reopen_to_free_memory(&self, root: &[u8]) -> Result<(), IndexError> {
        if self.written_bytes.load(Ordering::Relaxed) < REOPEN_AFTER_BYTES {
            return Ok(());
        }
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        self.ensure_open()?;
        match close_handles(&mut handles).and_then(|()| open_with_timeout(&self.config, &self.guard)) {
            Ok((db, found)) => {
                self.guard.after_reopen();
                *handles = Mutex::new(vec![db]);
                self.written_bytes.store(0, Ordering::Relaxed);
                if found.as_deref() == Some(root) {
                    Ok(())
                } else {
                    Err(self.fail(IndexError::new("it lost its root")))
                }
            }
            Err(damaged) => Err(self.fail(damaged)),
        }
    }

    /// Gives up the tree without touching its files again.
    pub fn leak(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Gives up the tree, and waits until nobody is in it: from then on, others may have its place. If it is whole,
    /// sled is closed; else it might never come back from that, so what it has open is leaked.
    pub fn close(&self) {
        let is_whole = !self.is_closed.swap(true, Ordering::AcqRel);
        let deadline = Instant::now() + CALL_TIMEOUT;
        loop {
            match self.handles.try_write() {
                Ok(mut handles) if is_whole => return drop(close_handles(&mut handles)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(RETRY_DELAY),
                _ => return,
            }
        }
    }

    fn fail(&self, damaged: IndexError) -> IndexError {
        self.leak();
        damaged
    }

    fn ensure_open(&self) -> Result<(), IndexError> {
        match self.is_closed.load(Ordering::Acquire) {
            true => Err(IndexError::retired()),
            false => Ok(()),
        }
    }

    /// Calls `work` with a handle that no other thread has.
    fn with_handle<T>(&self, work: impl FnOnce(&Db) -> std::io::Result<T>) -> Result<T, IndexError> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        self.ensure_open()?;
        let db = borrow_handle(&handles);
        match catch_panic(|| work(&db)) {
            Ok(Ok(done)) => {
                handles.lock().unwrap_or_else(PoisonError::into_inner).push(db);
                Ok(done)
            }
            Ok(Err(error)) => Err(self.fail(IndexError::from(&error))),
            Err(damaged) => Err(self.fail(damaged)),
        }
    }
}

impl Drop for SledStore {
    /// A damaged one might never come back from being closed, so it is leaked instead.
    fn drop(&mut self) {
        if self.ensure_open().is_ok() {
            let _ = close_handles(self.handles.get_mut().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Closes sled, which flushes.
fn close_handles(handles: &mut Handles) -> Result<(), IndexError> {
    let handles = std::mem::take(handles.get_mut().unwrap_or_else(PoisonError::into_inner));
    catch_panic(|| handles.into_iter().map(ManuallyDrop::into_inner).for_each(drop))
}

fn borrow_handle(handles: &RwLockReadGuard<'_, Handles>) -> Handle {
    let mut handles = handles.lock().unwrap_or_else(PoisonError::into_inner);
    match handles.len() {
        // One stays, to make others from.
        1 => handles[0].clone(),
        _ => handles.pop().expect("there is always one"),
    }
}

/// Opens sled and reads the root, in a thread that can be left behind, since sled may never come back from files that
/// it misreads.
fn open_with_timeout(config: &sled::Config, guard: &SledGuard) -> Result<(Handle, Option<Vec<u8>>), IndexError> {
    guard.before_open()?;
    let (sender, opened) = std::sync::mpsc::sync_channel(1);
    let config = config.clone();
    let open = move || {
        let opened = open_sled(&config).and_then(|db| {
            let root = catch_panic(|| db.get(MANIFEST_KEY))?.map_err(|error| IndexError::from(&error));
            Ok((root?.map(|root| unpack(&root)).transpose()?, db))
        });
        let _ = sender.send(opened);
    };
    std::thread::Builder::new().spawn(open).map_err(|error| IndexError::from(&error))?;
    let (root, db) = opened.recv_timeout(CALL_TIMEOUT).map_err(|_| IndexError::new("it does not open"))??;
    Ok((db, root))
}

fn open_sled(config: &sled::Config) -> Result<Handle, IndexError> {
    let deadline = Instant::now() + LOCK_RETRY;
    loop {
        match catch_panic(|| config.open::<LEAF_FANOUT>()) {
            Ok(Ok(db)) => return Ok(ManuallyDrop::new(Box::new(db))),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(RETRY_DELAY);
            }
            Ok(Err(error)) => return Err(IndexError::from(&error)),
            Err(damaged) => return Err(damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::incompressible_bytes;
    use super::*;

    #[test]
    fn flushed_pages_are_readable_during_and_after_a_reopen() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, root) = SledStore::open(&dir.path().join("index")).unwrap();
        assert_eq!(root, None);
        let value = |number: u32| incompressible_bytes(1 << 20, number.into());
        (0..40).for_each(|number| tree.set(number, &value(number)).unwrap());
        tree.flush(b"root", &Totals::EMPTY).unwrap();
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                (0..400).for_each(|number| assert_eq!(tree.get(number % 40).unwrap(), Some(value(number % 40))));
            });
            tree.reopen_to_free_memory(b"root").unwrap();
            reading.join().unwrap();
        });
        assert_eq!(tree.written_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(tree.get(40).unwrap(), None);
    }

    #[test]
    fn no_leaf_has_the_length_that_sled_corrupts() {
        const SLAB_SLOT_BYTES: usize = 1 << 16;
        let dir = tempfile::tempdir().unwrap();
        let (tree, _) = SledStore::open(&dir.path().join("index")).unwrap();
        let file = dir.path().join("index/slabs").join(SLAB_SLOT_BYTES.to_string());
        let mut longest = 0;
        for length in 64_900..65_600 {
            tree.set(1, &incompressible_bytes(length, 9)).unwrap();
            tree.flush(b"root", &Totals::EMPTY).unwrap();
            // A place ends with the length of what it holds, and a checksum.
            for place in std::fs::read(&file).unwrap().chunks_exact(SLAB_SLOT_BYTES) {
                let length = u32::from_le_bytes(*place[SLAB_SLOT_BYTES - 8..].first_chunk().unwrap());
                assert_ne!(length, 65_529);
                longest = longest.max(length);
            }
        }
        assert!(longest > 65_000, "{longest}");
    }
}
