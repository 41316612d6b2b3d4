//! The sled database under the index; no other file names sled. It maps page numbers to bytes, with the operations get,
//! set and flush. Any failure of sled, from an error to a panic, becomes an [`IndexError`]. The database is then not used
//! again, and the index is rebuilt from the log.

use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError};
use std::time::{Duration, Instant};

use super::error::IndexError;
use super::panics::catch_panic;
use super::sled_guard::SledGuard;
use super::totals::Totals;
use super::value::{pack, unpack};

/// Number of values per leaf: the minimum that sled permits, because one value is as large as a leaf should be.
const LEAF_FANOUT: usize = 3;
/// zstd level for sled's leaves: the lowest, at which zstd finds no repetitions. Values are compressed already. A leaf
/// is then slightly longer than its values, on which their padding in [`pack`] relies.
const SLED_COMPRESSION_LEVEL: i32 = -(1 << 17);
/// Size of sled's read cache in bytes. It is small because the page store caches blocks.
const SLED_CACHE_BYTES: usize = 4 << 20;
/// Number of written bytes after which sled is reopened, because sled keeps everything that it has written in memory.
const REOPEN_AFTER_BYTES: usize = 32 << 20;
/// Maximum wait for sled's lock: a process that ends may release it later than the lock of the store.
const LOCK_RETRY: Duration = Duration::from_secs(5);
/// Maximum duration of a call of sled, after which sled counts as hung. Opening takes milliseconds, whatever the size.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval between two attempts to acquire a lock.
const RETRY_DELAY: Duration = Duration::from_millis(5);
/// Key of the manifest. It is shorter than a page number, and therefore the first key.
const MANIFEST_KEY: &[u8] = &[0];

type Db = sled::Db<LEAF_FANOUT>;

/// A handle of the database, used by one call at a time. It is boxed because it is large, and closed explicitly only,
/// because closing a damaged database may never return.
type Handle = ManuallyDrop<Box<Db>>;

/// The handles that no call is using.
type Handles = Mutex<Vec<Handle>>;

/// A map from page numbers to bytes, and the manifest.
pub struct SledStore {
    config: sled::Config,
    guard: SledGuard,
    /// Read-locked during each call, write-locked while sled is reopened or closed.
    handles: RwLock<Handles>,
    /// Number of bytes written since sled was opened.
    written_bytes: AtomicUsize,
    is_closed: AtomicBool,
}

impl SledStore {
    /// Opens the database in `dir`, or creates it. Also returns the manifest, if there is one.
    pub fn open(dir: &Path) -> Result<(Self, Option<Vec<u8>>), IndexError> {
        let config = sled::Config::new().path(dir).cache_capacity_bytes(SLED_CACHE_BYTES).flush_every_ms(None);
        let config = config.zstd_compression_level(SLED_COMPRESSION_LEVEL);
        let guard = SledGuard::new(dir);
        let (db, manifest) = open_with_timeout(&config, &guard)?;
        let handles = RwLock::new(Mutex::new(vec![db]));
        let (written_bytes, is_closed) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok((Self { config, guard, handles, written_bytes, is_closed }, manifest))
    }

    /// Returns the bytes of a page, if it was ever set.
    pub fn get(&self, number: u32) -> Result<Option<Vec<u8>>, IndexError> {
        self.with_handle(|db| db.get(number.to_be_bytes()))?.map(|value| unpack(&value)).transpose()
    }

    /// Sets the bytes of a page. Must be called by one thread at a time, like all other methods that write.
    pub fn set(&self, number: u32, bytes: &[u8]) -> Result<(), IndexError> {
        let value = pack(bytes);
        self.written_bytes.fetch_add(value.len(), Ordering::Relaxed);
        self.with_handle(|db| db.insert(number.to_be_bytes(), value).map(drop))
    }

    /// Makes all pages durable together with a new manifest, whose totals are `totals`. Then writes the checkpoint.
    pub fn flush(&self, manifest: &[u8], totals: &Totals) -> Result<(), IndexError> {
        self.with_handle(|db| {
            db.insert(MANIFEST_KEY, pack(manifest))?;
            db.flush()?;
            self.guard.after_flush(totals);
            Ok(())
        })
    }

    /// Reopens sled if it has written much, so that it releases the memory. Called after a flush, with the flushed
    /// manifest.
    pub fn reopen_to_free_memory(&self, manifest: &[u8]) -> Result<(), IndexError> {
        if self.written_bytes.load(Ordering::Relaxed) < REOPEN_AFTER_BYTES {
            return Ok(());
        }
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        self.ensure_open()?;
        match close_handles(&mut handles).and_then(|()| open_with_timeout(&self.config, &self.guard)) {
            Ok((db, reopened)) => {
                self.guard.after_reopen();
                *handles = Mutex::new(vec![db]);
                self.written_bytes.store(0, Ordering::Relaxed);
                if reopened.as_deref() == Some(manifest) {
                    Ok(())
                } else {
                    Err(self.fail(IndexError::corrupt("sled lost the manifest when it was reopened")))
                }
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Marks the database as closed without closing sled: its files are not touched again, and its memory is leaked.
    pub fn leak(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Closes the database and waits, up to [`CALL_TIMEOUT`], for running calls. Afterwards the directory can be
    /// replaced. A damaged database is leaked, because closing it may never return.
    pub fn close(&self) {
        let was_open = !self.is_closed.swap(true, Ordering::AcqRel);
        let deadline = Instant::now() + CALL_TIMEOUT;
        loop {
            match self.handles.try_write() {
                Ok(mut handles) if was_open => return drop(close_handles(&mut handles)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(RETRY_DELAY),
                _ => return,
            }
        }
    }

    fn fail(&self, error: IndexError) -> IndexError {
        self.leak();
        error
    }

    fn ensure_open(&self) -> Result<(), IndexError> {
        match self.is_closed.load(Ordering::Acquire) {
            true => Err(IndexError::Closed),
            false => Ok(()),
        }
    }

    /// Calls `work` with a handle that no other call is using.
    fn with_handle<T>(&self, work: impl FnOnce(&Db) -> std::io::Result<T>) -> Result<T, IndexError> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        self.ensure_open()?;
        let db = borrow_handle(&handles);
        match catch_panic(|| work(&db)) {
            Ok(Ok(output)) => {
                handles.lock().unwrap_or_else(PoisonError::into_inner).push(db);
                Ok(output)
            }
            Ok(Err(error)) => Err(self.fail(error.into())),
            Err(error) => Err(self.fail(error)),
        }
    }
}

impl Drop for SledStore {
    /// Closes sled, unless it was closed or leaked before.
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
        // The last handle stays: further handles are cloned from it.
        1 => handles[0].clone(),
        _ => handles.pop().expect("one handle stays"),
    }
}

/// Opens sled and reads the manifest. Runs in a thread that is abandoned after [`CALL_TIMEOUT`], because sled may never
/// return from opening damaged files.
fn open_with_timeout(config: &sled::Config, guard: &SledGuard) -> Result<(Handle, Option<Vec<u8>>), IndexError> {
    guard.before_open()?;
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let config = config.clone();
    let open = move || {
        let opened = open_sled(&config).and_then(|db| {
            let value = catch_panic(|| db.get(MANIFEST_KEY))?.map_err(IndexError::from);
            Ok((value?.map(|value| unpack(&value)).transpose()?, db))
        });
        let _ = sender.send(opened);
    };
    let thread = std::thread::Builder::new().name("sled-open".into()).spawn(open);
    thread.map_err(IndexError::from)?;
    let timed_out = |_| IndexError::corrupt(format!("opening sled timed out after {CALL_TIMEOUT:?}"));
    let (manifest, db) = receiver.recv_timeout(CALL_TIMEOUT).map_err(timed_out)??;
    Ok((db, manifest))
}

fn open_sled(config: &sled::Config) -> Result<Handle, IndexError> {
    let deadline = Instant::now() + LOCK_RETRY;
    loop {
        match catch_panic(|| config.open::<LEAF_FANOUT>()) {
            Ok(Ok(db)) => return Ok(ManuallyDrop::new(Box::new(db))),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(RETRY_DELAY);
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(error) => return Err(error),
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
        let (store, manifest) = SledStore::open(&dir.path().join("index")).unwrap();
        assert_eq!(manifest, None);
        let value = |number: u32| incompressible_bytes(1 << 20, number.into());
        (0..40).for_each(|number| store.set(number, &value(number)).unwrap());
        store.flush(b"manifest", &Totals::EMPTY).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                (0..400).for_each(|number| assert_eq!(store.get(number % 40).unwrap(), Some(value(number % 40))));
            });
            store.reopen_to_free_memory(b"manifest").unwrap();
            reader.join().unwrap();
        });
        assert_eq!(store.written_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(store.get(40).unwrap(), None);
    }

    #[test]
    fn no_leaf_has_the_length_that_sled_corrupts() {
        const SLAB_SLOT_BYTES: usize = 1 << 16;
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = SledStore::open(&dir.path().join("index")).unwrap();
        let file = dir.path().join("index/slabs").join(SLAB_SLOT_BYTES.to_string());
        let mut longest = 0;
        for length in 64_900..65_600 {
            store.set(1, &incompressible_bytes(length, 9)).unwrap();
            store.flush(b"manifest", &Totals::EMPTY).unwrap();
            // A slot ends with the length of its content, and a checksum.
            for slot in std::fs::read(&file).unwrap().chunks_exact(SLAB_SLOT_BYTES) {
                let length = u32::from_le_bytes(*slot[SLAB_SLOT_BYTES - 8..].first_chunk().unwrap());
                assert_ne!(length, 65_529);
                longest = longest.max(length);
            }
        }
        assert!(longest > 65_000, "{longest}");
    }
}
