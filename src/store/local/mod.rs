//! The local backend: the log holds the messages, the index finds them. One thread commits, and has a relief; one keeps
//! the index.

mod compaction;
mod group_commit;
mod layout;
mod quarantine;
mod repair;
mod verify;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use compaction::Compactor;
use group_commit::{Change, CommitQueue, NewMessage};

use crate::digest::Digest;
use crate::message_store::{Cursor, Damage, Entry, Error, ListQuery, Stats, VerifyStep};
use crate::store::index::Index;
use crate::store::lock::Lock;
use crate::store::log::{self, Log, RecordKind, RecordLocation, SegmentWriter};
use crate::store::{Backend, EventSink};

/// The index counts offsets in eights, in 32 bits.
const MAX_SEGMENT_SIZE: u64 = 31 << 30;

/// How to open a local store.
#[derive(Clone)]
pub struct Options {
    /// Its directory.
    pub path: PathBuf,
    /// Whether to make it if it is not there.
    pub create: bool,
    /// How long to wait for a process that holds it.
    pub lock_timeout: Duration,
    /// What this process is, for others who find the store held; it must be no secret.
    pub owner: String,
    /// Bytes of memory for the index.
    pub index_cache: u64,
    /// The length of a segment of the log in bytes, less than 32 GiB.
    pub segment_size: u64,
    /// How hard to compress what is put, as a level of zstd; `None`: not at all.
    pub compression: Option<i32>,
    /// Where to say what is found.
    pub events: EventSink,
}

/// Messages in a directory. Dropping it commits what waits and closes the index.
pub struct LocalStore {
    shared: Arc<Shared>,
    compression: Option<i32>,
    threads: Vec<JoinHandle<()>>,
    /// Let go last.
    _lock: Lock,
}

/// What the threads of a store share.
struct Shared {
    path: PathBuf,
    log: Arc<Log>,
    index: Index,
    commit_queue: CommitQueue,
    compactor: Compactor,
    events: EventSink,
}

/// A message that is stored.
struct StoredMessage {
    location: RecordLocation,
    /// Its bytes, if so many are there.
    message: Option<Vec<u8>>,
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl LocalStore {
    /// Opens the store: afterwards all that was ever acknowledged can be found.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let Options { path, index_cache, segment_size, compression, events: notes, .. } = options;
        let (lock, salt) = layout::open_dir(options)?;
        let failed = |why| Error::io(format!("cannot open the log of {}", path.display()), why);
        let log = Arc::new(Log::open(&path.join("log"), salt, (*segment_size).min(MAX_SEGMENT_SIZE)).map_err(failed)?);
        let (index, tail) = Index::open(&path.join("index"), *index_cache, log.clone(), notes.clone())?;
        quarantine::quarantine_tail(path, &tail, notes).map_err(failed)?;
        let appender = SegmentWriter::new(log.clone(), &tail).map_err(failed)?;
        let commits = CommitQueue::new(path.clone(), log.clone(), appender);
        let compactions = Compactor::default();
        let core = Arc::new(Shared {
            path: path.clone(),
            log,
            index,
            commit_queue: commits,
            compactor: compactions,
            events: notes.clone(),
        });
        let mut local = Self { shared: core, compression: *compression, threads: Vec::new(), _lock: lock };
        local.spawn("commit", |core| core.commit_queue.run(&core.index, false))?;
        local.spawn("commit-2", |core| core.commit_queue.run(&core.index, true))?;
        local.spawn("index", |core| core.index.run())?;
        local.spawn("compact", |core| core.compactor.run(core))?;
        Ok(local)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce(&Shared) + Send + 'static) -> Result<(), Error> {
        let core = self.shared.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&core));
        self.threads.push(thread.map_err(|why| Error::io(format!("cannot start the {name} thread"), why))?);
        Ok(())
    }

    /// `None` if the message is stored as it is given. `found`: where the index has just said that it stands.
    fn prepare_put(
        &self,
        digest: Digest,
        message: Vec<u8>,
        found: Option<RecordLocation>,
    ) -> Result<Option<NewMessage>, Error> {
        let mut corrupt = None;
        if let Some(StoredMessage { location: position, message: stored }) = self.shared.fetch_at(&digest, found)? {
            // To acknowledge what is corrupt would be to promise what cannot be kept.
            if stored.as_ref() == Some(&message) && self.shared.record_matches(&digest, &position)? {
                return Ok(None);
            }
            corrupt = Some(position);
        }
        let compressed = self.compression.and_then(|level| log::compress(&message, level));
        let (kind, stored) =
            compressed.map_or((RecordKind::Message, message), |stored| (RecordKind::Compressed, stored));
        Ok(Some(NewMessage { digest, kind, payload: stored, corrupt_copy: corrupt }))
    }
}

impl Shared {
    /// The message of a digest; `None` if it is absent.
    fn fetch(&self, digest: &Digest) -> Result<Option<StoredMessage>, Error> {
        self.fetch_at(digest, self.index.get(digest)?)
    }

    /// The same, where the index has just said that it stands.
    fn fetch_at(&self, digest: &Digest, mut found: Option<RecordLocation>) -> Result<Option<StoredMessage>, Error> {
        while let Some(position) = found {
            let stored = self.read(&position)?;
            if stored.is_none() {
                found = self.index.get(digest)?;
                if found != Some(position) {
                    // It was moved in the meantime, and its old segment removed.
                    continue;
                }
            }
            let message = match position.kind {
                RecordKind::Compressed => stored.and_then(|stored| log::decompress(&stored)),
                RecordKind::Message | RecordKind::Tombstone => stored,
            };
            return Ok(Some(StoredMessage { location: position, message }));
        }
        Ok(None)
    }

    /// Waits until the change is durable; answers as [`Change`] says.
    fn submit(&self, change: Change) -> Result<Vec<bool>, Error> {
        self.commit_queue.submit(change, &self.index)
    }

    /// Whether the record at a position can be found in the log without the index.
    fn record_matches(&self, digest: &Digest, position: &RecordLocation) -> Result<bool, Error> {
        let header = self.log.read_header(position).map_err(|why| self.read_error(position.segment, why))?;
        let RecordLocation { kind, payload_len: stored, .. } = *position;
        Ok(header.is_some_and(|header| (header.digest, header.kind, header.payload_len()) == (*digest, kind, stored)))
    }

    fn read(&self, position: &RecordLocation) -> Result<Option<Vec<u8>>, Error> {
        self.log.read(position).map_err(|why| self.read_error(position.segment, why))
    }

    fn read_error(&self, segment: u32, why: io::Error) -> Error {
        Error::io(format!("cannot read segment {segment} of {}", self.path.display()), why)
    }
}

impl Backend for LocalStore {
    fn put(&self, batch: Vec<(Digest, Vec<u8>)>) -> Result<Vec<bool>, Error> {
        let mut new = vec![false; batch.len()];
        let mut unknown = Vec::new();
        let mut places = Vec::new();
        let digests: Vec<_> = batch.iter().map(|(digest, _)| *digest).collect();
        let found = self.shared.index.get_all(&digests)?;
        for (place, ((digest, message), found)) in batch.into_iter().zip(found).enumerate() {
            if let Some(put) = self.prepare_put(digest, message, found)? {
                unknown.push(put);
                places.push(place);
            }
        }
        if !unknown.is_empty() {
            for (place, is_new) in places.into_iter().zip(self.shared.submit(Change::Put(unknown))?) {
                new[place] = is_new;
            }
        }
        Ok(new)
    }

    fn get(&self, digests: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let Some(fetched) = self.shared.fetch(&digests[0])? else { return Ok(vec![None]) };
        // A segment that is gone or too short has taken the message with it.
        fetched.message.ok_or(Error::Corrupt(digests[0])).map(|message| vec![Some(message)])
    }

    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        Ok(self.shared.index.get_all(digests)?.iter().map(Option::is_some).collect())
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.shared.index.get(digest)?.map(|position| u64::from(position.message_len)))
    }

    fn list(&self, page: &ListQuery) -> Result<Vec<Entry>, Error> {
        let entry = |(digest, position): (Digest, RecordLocation)| Entry {
            digest,
            length: u64::from(position.message_len),
            stored_at: log::to_system_time(position.time),
        };
        Ok(self.shared.index.list_page(page)?.into_iter().map(entry).collect())
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

    fn stats(&self) -> Result<Stats, Error> {
        let Shared { path, log, index, .. } = &*self.shared;
        let failed = |why| Error::io(format!("cannot measure {}", path.display()), why);
        let (totals, dead) = compaction::garbage(log, index).map_err(failed)?;
        let (log_disk, index_disk) = (log.disk_usage().map_err(failed)?, index.disk_usage().map_err(failed)?);
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
        })
    }

    fn health(&self) -> Result<(), Error> {
        self.shared.commit_queue.failure().map_or(Ok(()), |why| Err(Error::WriteFailed(why)))
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        let mut threads = std::mem::take(&mut self.threads).into_iter();
        let [commit, relief, index, compact] = [(); 4].map(|()| threads.next());
        // One that panicked has said so itself; all that was acknowledged is in the log.
        let join = |thread: Option<JoinHandle<()>>| drop(thread.map(JoinHandle::join));
        // Compaction commits, and commits fill the index.
        self.shared.compactor.close();
        join(compact);
        self.shared.commit_queue.close();
        join(commit);
        join(relief);
        self.shared.index.close();
        join(index);
    }
}

/// The log and the index of a new store, for tests of what stands on them.
#[cfg(test)]
fn open_log_and_index(dir: &std::path::Path, segment_size: u64) -> (Arc<Log>, Index, log::LogEnd) {
    std::fs::create_dir(dir.join("log")).unwrap();
    let log = Arc::new(Log::open(&dir.join("log"), [7; 16], segment_size).unwrap());
    let (index, tail) = Index::open(&dir.join("index"), 1 << 20, log.clone(), Arc::new(|_| ())).unwrap();
    (log, index, tail)
}
