//! The local backend: the log holds the messages, the index finds them. One thread commits, and has a relief; one keeps
//! the index.

mod commit;
mod compact;
mod place;
mod quarantine;
mod repair;
mod verify;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use commit::{Change, Commits, Unknown};
use compact::Compactions;

use crate::digest::Digest;
use crate::messages::{Cursor, Damage, Entry, Error, Page, Stats, Verified};
use crate::store::index::Index;
use crate::store::lock::Lock;
use crate::store::log::{self, Appender, Kind, Log, Position};
use crate::store::{Backend, Notes};

/// The index counts offsets in eights, in 32 bits.
const LONGEST_SEGMENT: u64 = 31 << 30;

/// How to open a local store.
#[derive(Clone)]
pub struct Options {
    /// Its directory.
    pub path: PathBuf,
    /// Whether to make it if it is not there.
    pub create: bool,
    /// How long to wait for a process that holds it.
    pub wait: Duration,
    /// What this process is, for others who find the store held; it must be no secret.
    pub me: String,
    /// Bytes of memory for the index.
    pub index_cache: u64,
    /// The length of a segment of the log in bytes, less than 32 GiB.
    pub segment_size: u64,
    /// How hard to compress what is put, as a level of zstd; `None`: not at all.
    pub compression: Option<i32>,
    /// Where to say what is found.
    pub notes: Notes,
}

/// Messages in a directory. Dropping it commits what waits and closes the index.
pub struct Local {
    core: Arc<Core>,
    compression: Option<i32>,
    threads: Vec<JoinHandle<()>>,
    /// Let go last.
    _lock: Lock,
}

/// What the threads of a store share.
struct Core {
    path: PathBuf,
    log: Arc<Log>,
    index: Index,
    commits: Commits,
    compactions: Compactions,
    notes: Notes,
}

/// A message that is stored.
struct Fetched {
    position: Position,
    /// Its bytes, if so many are there.
    message: Option<Vec<u8>>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("path", &self.core.path).finish_non_exhaustive()
    }
}

impl Local {
    /// Opens the store: afterwards all that was ever acknowledged can be found.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let Options { path, index_cache, segment_size, compression, notes, .. } = options;
        let (lock, salt) = place::enter(options)?;
        let failed = |why| Error::io(format!("cannot open the log of {}", path.display()), why);
        let log = Arc::new(Log::open(&path.join("log"), salt, (*segment_size).min(LONGEST_SEGMENT)).map_err(failed)?);
        let (index, tail) = Index::open(&path.join("index"), *index_cache, log.clone(), notes.clone())?;
        quarantine::set_aside(path, &tail, notes).map_err(failed)?;
        let appender = Appender::new(log.clone(), &tail).map_err(failed)?;
        let commits = Commits::new(path.clone(), log.clone(), appender);
        let compactions = Compactions::default();
        let core = Arc::new(Core { path: path.clone(), log, index, commits, compactions, notes: notes.clone() });
        let mut local = Self { core, compression: *compression, threads: Vec::new(), _lock: lock };
        local.spawn("commit", |core| core.commits.run(&core.index, false))?;
        local.spawn("relief", |core| core.commits.run(&core.index, true))?;
        local.spawn("index", |core| core.index.run())?;
        local.spawn("compact", |core| core.compactions.run(core))?;
        Ok(local)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce(&Core) + Send + 'static) -> Result<(), Error> {
        let core = self.core.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&core));
        self.threads.push(thread.map_err(|why| Error::io(format!("cannot start the {name} thread"), why))?);
        Ok(())
    }

    /// `None` if the message is stored as it is given. `found`: where the index has just said that it stands.
    fn unless_known(
        &self,
        digest: Digest,
        message: Vec<u8>,
        found: Option<Position>,
    ) -> Result<Option<Unknown>, Error> {
        let mut corrupt = None;
        if let Some(Fetched { position, message: stored }) = self.core.fetch_from(&digest, found)? {
            // To acknowledge what is corrupt would be to promise what cannot be kept.
            if stored.as_ref() == Some(&message) && self.core.has_header(&digest, &position)? {
                return Ok(None);
            }
            corrupt = Some(position);
        }
        let compressed = self.compression.and_then(|level| log::compress(&message, level));
        let (kind, stored) = compressed.map_or((Kind::Message, message), |stored| (Kind::Compressed, stored));
        Ok(Some(Unknown { digest, kind, stored, corrupt }))
    }
}

impl Core {
    /// The message of a digest; `None` if it is absent.
    fn fetch(&self, digest: &Digest) -> Result<Option<Fetched>, Error> {
        self.fetch_from(digest, self.index.get(digest)?)
    }

    /// The same, where the index has just said that it stands.
    fn fetch_from(&self, digest: &Digest, mut found: Option<Position>) -> Result<Option<Fetched>, Error> {
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
                Kind::Compressed => stored.and_then(|stored| log::decompress(&stored)),
                Kind::Message | Kind::Removal => stored,
            };
            return Ok(Some(Fetched { position, message }));
        }
        Ok(None)
    }

    /// Waits until the change is durable; answers as [`Change`] says.
    fn carry_out(&self, change: Change) -> Result<Vec<bool>, Error> {
        self.commits.carry_out(change, &self.index)
    }

    /// Whether the record at a position can be found in the log without the index.
    fn has_header(&self, digest: &Digest, position: &Position) -> Result<bool, Error> {
        let header = self.log.header(position).map_err(|why| self.unreadable(position.segment, why))?;
        let Position { kind, stored, .. } = *position;
        Ok(header.is_some_and(|header| (header.digest, header.kind, header.stored()) == (*digest, kind, stored)))
    }

    fn read(&self, position: &Position) -> Result<Option<Vec<u8>>, Error> {
        self.log.read(position).map_err(|why| self.unreadable(position.segment, why))
    }

    fn unreadable(&self, segment: u32, why: io::Error) -> Error {
        Error::io(format!("cannot read segment {segment} of {}", self.path.display()), why)
    }
}

impl Backend for Local {
    fn put(&self, batch: Vec<(Digest, Vec<u8>)>) -> Result<Vec<bool>, Error> {
        let mut new = vec![false; batch.len()];
        let mut unknown = Vec::new();
        let mut places = Vec::new();
        let digests: Vec<_> = batch.iter().map(|(digest, _)| *digest).collect();
        let found = self.core.index.get_all(&digests)?;
        for (place, ((digest, message), found)) in batch.into_iter().zip(found).enumerate() {
            if let Some(put) = self.unless_known(digest, message, found)? {
                unknown.push(put);
                places.push(place);
            }
        }
        if !unknown.is_empty() {
            for (place, is_new) in places.into_iter().zip(self.core.carry_out(Change::Put(unknown))?) {
                new[place] = is_new;
            }
        }
        Ok(new)
    }

    fn get(&self, digests: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let Some(fetched) = self.core.fetch(&digests[0])? else { return Ok(vec![None]) };
        // A segment that is gone or too short has taken the message with it.
        fetched.message.ok_or(Error::Corrupt(digests[0])).map(|message| vec![Some(message)])
    }

    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        Ok(self.core.index.get_all(digests)?.iter().map(Option::is_some).collect())
    }

    fn length(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.core.index.get(digest)?.map(|position| u64::from(position.length)))
    }

    fn list(&self, page: &Page) -> Result<Vec<Entry>, Error> {
        let entry = |(digest, position): (Digest, Position)| Entry {
            digest,
            length: u64::from(position.length),
            stored_at: log::time(position.time),
        };
        Ok(self.core.index.page(page)?.into_iter().map(entry).collect())
    }

    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let removed = self.core.carry_out(Change::Remove(digests.to_vec()))?;
        self.core.compactions.want();
        Ok(removed)
    }

    fn verify(&self, from: Option<&Cursor>) -> Result<Verified, Error> {
        verify::step(&self.core, from)
    }

    fn repair(&self, damage: &[Damage]) -> Result<(), Error> {
        repair::repair(&self.core, damage)
    }

    fn stats(&self) -> Result<Stats, Error> {
        let Core { path, log, index, .. } = &*self.core;
        let failed = |why| Error::io(format!("cannot measure {}", path.display()), why);
        let (totals, dead) = compact::dead(log, index).map_err(failed)?;
        let (log_disk, index_disk) = (log.disk().map_err(failed)?, index.disk().map_err(failed)?);
        let (verified, damaged) = verify::last(path).map_or((None, 0), |last| (Some(last.time), last.damaged));
        Ok(Stats {
            messages: totals.messages,
            bytes: totals.bytes,
            disk: log_disk + index_disk,
            dead,
            newest: (totals.newest > 0).then(|| log::time(totals.newest)),
            verified,
            damaged,
        })
    }

    fn health(&self) -> Result<(), Error> {
        self.core.commits.failed().map_or(Ok(()), |why| Err(Error::Failed(why)))
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let mut threads = std::mem::take(&mut self.threads).into_iter();
        let [commit, relief, index, compact] = [(); 4].map(|()| threads.next());
        // One that panicked has said so itself; all that was acknowledged is in the log.
        let join = |thread: Option<JoinHandle<()>>| drop(thread.map(JoinHandle::join));
        // Compaction commits, and commits fill the index.
        self.core.compactions.close();
        join(compact);
        self.core.commits.close();
        join(commit);
        join(relief);
        self.core.index.close();
        join(index);
    }
}

/// The log and the index of a new store, for tests of what stands on them.
#[cfg(test)]
fn opened(dir: &std::path::Path, segment_size: u64) -> (Arc<Log>, Index, log::Tail) {
    std::fs::create_dir(dir.join("log")).unwrap();
    let log = Arc::new(Log::open(&dir.join("log"), [7; 16], segment_size).unwrap());
    let (index, tail) = Index::open(&dir.join("index"), 1 << 20, log.clone(), Arc::new(|_| ())).unwrap();
    (log, index, tail)
}
