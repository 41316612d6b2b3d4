//! The local backend: a store in a directory. The log holds the messages, and the index finds them in it. Two threads
//! commit changes, one maintains the index, and one compacts the log.

mod compaction;
mod compactor;
mod group_commit;
mod layout;
mod options;
mod quarantine;
mod repair;
mod shared;
mod verify;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use compactor::Compactor;
use group_commit::{Change, CommitQueue, NewMessage};
pub use options::Options;
use shared::{Shared, StoredMessage};

use crate::digest::Digest;
use crate::message_store::{Cursor, Damage, Entry, Error, ListQuery, Stats, VerifyStep};
use crate::store::Backend;
use crate::store::index::Index;
use crate::store::lock::Lock;
use crate::store::log::{self, Log, RecordKind, RecordLocation, SegmentWriter};
use crate::store::losses::Losses;

/// Maximum length of a segment in bytes: the index stores offsets divided by 8 in 32 bits.
const MAX_SEGMENT_SIZE: u64 = 31 << 30;

/// A store in a directory. Dropping it commits pending changes and closes the index.
pub struct LocalStore {
    shared: Arc<Shared>,
    compression: Option<i32>,
    threads: Vec<JoinHandle<()>>,
    /// Lock on the directory, released after everything else is closed.
    _lock: Lock,
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl LocalStore {
    /// Locks the store, brings its index up to date with the log, and starts its threads. Blocks for up to
    /// [`Options::lock_timeout`] while another process has locked the store, and as long as the log is replayed.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let Options { path, index_cache, segment_size, compression, events, .. } = options;
        let (lock, salt) = layout::open_dir(options)?;
        let io_error = |cause| Error::io(format!("cannot open the log of {}", path.display()), cause);
        let segment_size = (*segment_size).min(MAX_SEGMENT_SIZE);
        let log = Arc::new(Log::open(&path.join("log"), salt, segment_size).map_err(io_error)?);
        let losses = Arc::new(Losses::open(path).map_err(io_error)?);
        let index_dir = path.join("index");
        let (index, log_end) = Index::open(&index_dir, *index_cache, log.clone(), losses.clone(), events.clone())?;
        quarantine::quarantine_tail(path, &log_end, events).map_err(io_error)?;
        let writer = SegmentWriter::new(log.clone(), &log_end).map_err(io_error)?;
        let commit_queue = CommitQueue::new(path.clone(), log.clone(), writer);
        let compactor = Compactor::default();
        let shared = Arc::new(Shared {
            path: path.clone(),
            log,
            index,
            losses,
            commit_queue,
            compactor,
            events: events.clone(),
        });
        let mut store = Self { shared, compression: *compression, threads: Vec::new(), _lock: lock };
        store.shared.reconcile_losses()?;
        store.spawn("commit", |shared| shared.commit_queue.run(&shared.index, false))?;
        store.spawn("commit-2", |shared| shared.commit_queue.run(&shared.index, true))?;
        store.spawn("index", |shared| shared.index.run())?;
        store.spawn("compact", compaction::run)?;
        Ok(store)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce(&Shared) + Send + 'static) -> Result<(), Error> {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared));
        self.threads.push(thread.map_err(|cause| Error::io(format!("cannot start the {name} thread"), cause))?);
        Ok(())
    }

    /// Returns the message to append, or `None` if it is already stored byte for byte. `indexed` is the location that
    /// the index has for the digest.
    fn prepare_put(
        &self,
        digest: Digest,
        message: Vec<u8>,
        indexed: Option<RecordLocation>,
    ) -> Result<Option<NewMessage>, Error> {
        let mut corrupt_copy = None;
        if let Some(StoredMessage { location, message: stored }) = self.shared.fetch_at(&digest, indexed)? {
            // A record with a damaged header is lost when the index is rebuilt, so it is not acknowledged.
            if stored.as_ref() == Some(&message) && self.shared.record_matches(&digest, &location)? {
                return Ok(None);
            }
            corrupt_copy = Some(location);
        }
        let length = |payload: &[u8]| u32::try_from(payload.len()).expect("HashingStore rejects longer messages");
        let (kind, payload) = match self.compression.and_then(|level| log::compress(&message, level)) {
            Some(compressed) => (RecordKind::Compressed { len: length(&compressed) }, compressed),
            None => (RecordKind::Message { len: length(&message) }, message),
        };
        Ok(Some(NewMessage { digest, kind, payload, corrupt_copy }))
    }
}

impl Backend for LocalStore {
    fn put(&self, batch: Vec<(Digest, Vec<u8>)>) -> Result<Vec<bool>, Error> {
        let mut new = vec![false; batch.len()];
        let mut new_messages = Vec::new();
        let mut indices = Vec::new();
        let digests: Vec<_> = batch.iter().map(|(digest, _)| *digest).collect();
        let locations = self.shared.index.get_all(&digests)?;
        for (index, ((digest, message), location)) in batch.into_iter().zip(locations).enumerate() {
            if let Some(new_message) = self.prepare_put(digest, message, location)? {
                new_messages.push(new_message);
                indices.push(index);
            }
        }
        if !new_messages.is_empty() {
            for (index, is_new) in indices.into_iter().zip(self.shared.submit(Change::Put(new_messages))?) {
                new[index] = is_new;
            }
            self.shared.losses.remove_stored(&digests)?;
        }
        Ok(new)
    }

    fn get(&self, digests: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let Some(stored) = self.shared.fetch(&digests[0])? else {
            return self.shared.check_not_lost(&digests[0]).map(|()| vec![None]);
        };
        stored.message.ok_or(Error::Corrupt(digests[0])).map(|message| vec![Some(message)])
    }

    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        Ok(self.shared.index.get_all(digests)?.iter().map(Option::is_some).collect())
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        match self.shared.index.get(digest)? {
            Some(location) => Ok(Some(u64::from(location.message_len))),
            None => self.shared.check_not_lost(digest).map(|()| None),
        }
    }

    fn list(&self, query: &ListQuery) -> Result<Vec<Entry>, Error> {
        let entry = |(digest, location): (Digest, RecordLocation)| Entry {
            digest,
            length: u64::from(location.message_len),
            stored_at: log::to_system_time(location.time),
        };
        Ok(self.shared.index.list_page(query)?.into_iter().map(entry).collect())
    }

    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let removed = self.shared.submit(Change::Remove(digests.to_vec()))?;
        self.shared.compactor.request();
        Ok(removed)
    }

    fn verify(&self, from: Option<&Cursor>) -> Result<VerifyStep, Error> {
        verify::step(&self.shared, from)
    }

    fn repair(&self, damage: &[Damage]) -> Result<(), Error> {
        repair::repair(&self.shared, damage)
    }

    fn accept_loss(&self, losses: &[Damage]) -> Result<(), Error> {
        repair::accept_loss(&self.shared, losses)
    }

    fn stats(&self) -> Result<Stats, Error> {
        let Shared { path, log, index, .. } = &*self.shared;
        let io_error = |cause| Error::io(format!("cannot determine the disk usage of {}", path.display()), cause);
        let (totals, dead) = compaction::garbage(log, index).map_err(io_error)?;
        let (log_disk, index_disk) = (log.disk_usage().map_err(io_error)?, index.disk_usage().map_err(io_error)?);
        let (verified, damaged) =
            verify::last_verification(path).map_or((None, 0), |last| (Some(last.time), last.damaged));
        Ok(Stats {
            messages: totals.messages,
            bytes: totals.bytes,
            disk: log_disk + index_disk,
            dead,
            newest: (totals.newest_time > 0).then(|| log::to_system_time(totals.newest_time)),
            verified,
            damaged,
            lost: self.shared.losses.count(),
        })
    }

    fn health(&self) -> Result<(), Error> {
        match (self.shared.commit_queue.failure(), self.shared.losses.count()) {
            (Some(cause), _) => Err(Error::WriteFailed(cause)),
            (None, 0) => Ok(()),
            (None, lost) => Err(Error::DataLoss(lost)),
        }
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        let mut threads = std::mem::take(&mut self.threads).into_iter();
        let [commit, commit_2, index, compact] = [(); 4].map(|()| threads.next());
        // A thread that panicked has printed its message, and acknowledged changes are in the log.
        let join = |thread: Option<JoinHandle<()>>| drop(thread.map(JoinHandle::join));
        // Compaction submits changes, and commits add to the index, so they are closed in this order.
        self.shared.compactor.close();
        join(compact);
        self.shared.commit_queue.close();
        join(commit);
        join(commit_2);
        self.shared.index.close();
        join(index);
    }
}

/// Creates the log and the index of a new store in `dir`, without threads.
#[cfg(test)]
fn open_log_and_index(dir: &std::path::Path, segment_size: u64) -> (Arc<Log>, Index, log::LogEnd) {
    std::fs::create_dir(dir.join("log")).unwrap();
    let log = Arc::new(Log::open(&dir.join("log"), [7; 16], segment_size).unwrap());
    let losses = Arc::new(Losses::open(dir).unwrap());
    let (index, log_end) = Index::open(&dir.join("index"), 1 << 20, log.clone(), losses, Arc::new(|_| ())).unwrap();
    (log, index, log_end)
}
