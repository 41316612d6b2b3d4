//! The sled database under the index; no other file names sled. It maps page numbers to bytes, with the operations get,
//! set and flush. Any failure of sled, from an error to a panic, becomes an [`IndexError`]. The database is then not used
//! again, and the index is rebuilt from the log.

use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

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
    /// Reason why the database is closed, once it is.
    closed: OnceLock<IndexError>,
    /// Set if closing sled might never return.
    must_leak: AtomicBool,
}

impl SledStore {
    /// Opens the database in `dir`, or creates it. Also returns the manifest, if there is one.
    pub fn open(dir: &Path) -> Result<(Self, Option<Vec<u8>>), IndexError> {
        let config = sled::Config::new().path(dir).cache_capacity_bytes(SLED_CACHE_BYTES).flush_every_ms(None);
        let config = config.zstd_compression_level(SLED_COMPRESSION_LEVEL);
        let guard = SledGuard::new(dir);
        let (db, manifest) = open_with_timeout(&config, &guard)?;
        let handles = RwLock::new(Mutex::new(vec![db]));
        let (written_bytes, closed, must_leak) = (AtomicUsize::new(0), OnceLock::new(), AtomicBool::new(false));
        Ok((Self { config, guard, handles, written_bytes, closed, must_leak }, manifest))
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
            // Closing sled would wait for the failed flush, which never ends.
            db.flush().inspect_err(|_| self.must_leak.store(true, Ordering::Release))?;
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
        let mut handles = self.handles.write();
        self.check_open()?;
        match close_handles(&mut handles).and_then(|()| open_with_timeout(&self.config, &self.guard)) {
            Ok((db, reopened)) => {
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

    /// Closes the database because of `error` and returns the first such error. Running calls go on. A database that may
    /// be damaged is leaked.
    pub fn fail(&self, error: IndexError) -> IndexError {
        let is_sound = error.is_shortage();
        let reason = self.closed.get_or_init(|| error).clone();
        if !is_sound {
            self.leak();
        }
        reason
    }

    /// Closes the database without closing sled: its files are not touched again, and its memory is leaked.
    pub fn leak(&self) {
        self.closed.get_or_init(|| IndexError::Closed);
        self.must_leak.store(true, Ordering::Release);
    }

    /// Lets all later calls fail with `reason`, unless the database is closed already.
    pub fn retire(&self, reason: &IndexError) {
        self.closed.get_or_init(|| reason.clone());
    }

    /// Closes a retired database. Waits, up to [`CALL_TIMEOUT`], for running calls. Afterwards the directory can be
    /// replaced.
    pub fn close(&self) {
        match self.handles.try_write_for(CALL_TIMEOUT) {
            Some(mut handles) if self.can_reopen() => drop(close_handles(&mut handles)),
            Some(_) => {}
            None => self.leak(),
        }
    }

    /// Returns whether the directory can be opened again once this database is closed. A leaked database keeps it
    /// locked until the process ends.
    pub fn can_reopen(&self) -> bool {
        !self.must_leak.load(Ordering::Acquire)
    }

    /// Fails with the reason why the database is closed, if it is.
    pub fn check_open(&self) -> Result<(), IndexError> {
        self.closed.get().map_or(Ok(()), |reason| Err(reason.clone()))
    }

    /// Calls `work` with a handle that no other call is using.
    fn with_handle<T>(&self, work: impl FnOnce(&Db) -> std::io::Result<T>) -> Result<T, IndexError> {
        let handles = self.handles.read();
        self.check_open()?;
        let db = borrow_handle(&handles);
        match catch_panic(|| work(&db)) {
            Ok(result) => {
                handles.lock().push(db);
                result.map_err(|error| self.fail(error.into()))
            }
            Err(error) => {
                let reason = self.fail(error);
                self.leak();
                Err(reason)
            }
        }
    }
}

impl Drop for SledStore {
    /// Closes sled, unless it must be leaked.
    fn drop(&mut self) {
        if !*self.must_leak.get_mut() {
            let _ = close_handles(self.handles.get_mut());
        }
    }
}

/// Closes sled, which flushes.
fn close_handles(handles: &mut Handles) -> Result<(), IndexError> {
    let handles = std::mem::take(handles.get_mut());
    catch_panic(|| handles.into_iter().map(ManuallyDrop::into_inner).for_each(drop))
}

fn borrow_handle(handles: &Handles) -> Handle {
    let mut handles = handles.lock();
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
            Ok((db, value?.map(|value| unpack(&value)).transpose()?))
        });
        let _ = sender.send(opened);
    };
    let timed_out = |_| IndexError::corrupt(format!("opening sled timed out after {CALL_TIMEOUT:?}"));
    let opened = match std::thread::Builder::new().name("sled-open".into()).spawn(open) {
        Ok(_) => receiver.recv_timeout(CALL_TIMEOUT).map_err(timed_out)?,
        Err(error) => Err(error.into()),
    };
    guard.after_attempt();
    opened
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
