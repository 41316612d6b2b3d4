//! The local backend: the log holds the messages, the index finds them, one thread commits and one keeps the index.

mod commit;
mod place;

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use commit::{Commits, Unknown};

use crate::digest::Digest;
use crate::durable;
use crate::messages::{Cursor, Damage, Entry, Error, Page, Stats, Verified};
use crate::store::index::Index;
use crate::store::lock::Lock;
use crate::store::log::{self, Appender, Log, Position, Tail};
use crate::store::{Backend, Note, Notes};

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
    /// Where to say what is found.
    pub notes: Notes,
}

/// Messages in a directory. Dropping it commits what waits and closes the index.
pub struct Local {
    path: PathBuf,
    log: Arc<Log>,
    index: Arc<Index>,
    commits: Arc<Commits>,
    threads: Vec<JoinHandle<()>>,
    /// Let go last.
    _lock: Lock,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Local {
    /// Opens the store: afterwards all that was ever acknowledged can be found.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let Options { path, index_cache, notes, .. } = options;
        let (lock, salt) = place::enter(options)?;
        let failed = |why| Error::io(format!("cannot open the log of {}", path.display()), why);
        let log = Arc::new(Log::open(&path.join("log"), salt).map_err(failed)?);
        let (index, tail) = Index::open(&path.join("index"), *index_cache, log.clone(), notes.clone())?;
        set_aside(path, &tail, notes).map_err(failed)?;
        let appender = Appender::new(log.clone(), &tail).map_err(failed)?;
        let (index, commits) = (Arc::new(index), Arc::new(Commits::new(path.clone())));
        let mut local = Self { path: path.clone(), log, index, commits, threads: Vec::new(), _lock: lock };
        local.spawn("commit", {
            let (commits, index) = (local.commits.clone(), local.index.clone());
            move || commits.run(appender, &index)
        })?;
        local.spawn("index", {
            let index = local.index.clone();
            move || index.run()
        })?;
        Ok(local)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        self.threads.push(thread.map_err(|why| Error::io(format!("cannot start the {name} thread"), why))?);
        Ok(())
    }

    /// `None` if the message is stored as it is given.
    fn unless_known(&self, digest: Digest, message: Vec<u8>) -> Result<Option<Unknown>, Error> {
        let Some(position) = self.index.get(&digest)? else {
            return Ok(Some(Unknown { digest, message, corrupt: None }));
        };
        // To acknowledge what is corrupt would be to promise what cannot be kept.
        if self.read(&position)?.as_ref() == Some(&message) {
            return Ok(None);
        }
        Ok(Some(Unknown { digest, message, corrupt: Some(position) }))
    }

    fn read(&self, position: &Position) -> Result<Option<Vec<u8>>, Error> {
        self.log.read(position).map_err(|why| {
            Error::io(format!("cannot read segment {} of {}", position.segment, self.path.display()), why)
        })
    }
}

impl Backend for Local {
    fn put(&self, batch: Vec<(Digest, Vec<u8>)>) -> Result<Vec<bool>, Error> {
        let mut new = vec![false; batch.len()];
        let mut unknown = Vec::new();
        let mut places = Vec::new();
        for (place, (digest, message)) in batch.into_iter().enumerate() {
            if let Some(put) = self.unless_known(digest, message)? {
                unknown.push(put);
                places.push(place);
            }
        }
        if !unknown.is_empty() {
            for (place, is_new) in places.into_iter().zip(self.commits.put(unknown)?) {
                new[place] = is_new;
            }
        }
        Ok(new)
    }

    fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let Some(position) = self.index.get(digest)? else { return Ok(None) };
        // A segment that is gone or too short has taken the message with it.
        self.read(&position)?.ok_or(Error::Corrupt(*digest)).map(Some)
    }

    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        digests.iter().map(|digest| Ok(self.index.get(digest)?.is_some())).collect()
    }

    fn length(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.index.get(digest)?.map(|position| u64::from(position.length)))
    }

    fn list(&self, page: &Page) -> Result<Vec<Entry>, Error> {
        let entry = |(digest, position): (Digest, Position)| Entry {
            digest,
            length: u64::from(position.length),
            stored_at: log::time(position.time),
        };
        Ok(self.index.page(page)?.into_iter().map(entry).collect())
    }

    fn remove(&self, _: &[Digest]) -> Result<Vec<bool>, Error> {
        unimplemented!("comes next")
    }

    fn verify(&self, _: Option<&Cursor>) -> Result<Verified, Error> {
        unimplemented!("comes next")
    }

    fn repair(&self, _: &[Damage]) -> Result<(), Error> {
        unimplemented!("comes next")
    }

    fn stats(&self) -> Result<Stats, Error> {
        let totals = self.index.totals();
        let disk = self.log.disk().and_then(|log| Ok(log + self.index.disk()?));
        Ok(Stats {
            messages: totals.messages,
            bytes: totals.bytes,
            disk: disk.map_err(|why| Error::io(format!("cannot measure {}", self.path.display()), why))?,
            dead: 0,
            verified: None,
            damaged: 0,
            newest: (totals.newest > 0).then(|| log::time(totals.newest)),
        })
    }

    fn health(&self) -> Result<(), Error> {
        self.commits.failed().map_or(Ok(()), |why| Err(Error::Failed(why)))
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let mut threads = std::mem::take(&mut self.threads).into_iter();
        self.commits.close();
        let commit = threads.next().map(JoinHandle::join);
        self.index.close();
        let index = threads.next().map(JoinHandle::join);
        for ended in [commit, index].into_iter().flatten() {
            // It has said so itself when it panicked; all that was acknowledged is in the log.
            let _ = ended;
        }
    }
}

/// Moves what stands behind the last whole record out of the way, so that it can never be taken for a record later.
fn set_aside(store: &Path, tail: &Tail, notes: &Notes) -> io::Result<()> {
    if tail.end.clean {
        return Ok(());
    }
    let mut segment =
        std::fs::File::options().read(true).write(true).open(log::path(&store.join("log"), tail.segment))?;
    let dir = store.join("quarantine");
    std::fs::create_dir_all(&dir)?;
    let aside = dir.join(format!("{:08}-{}.tail", tail.segment, tail.end.offset));
    segment.seek(SeekFrom::Start(tail.end.offset))?;
    let mut length = 0;
    durable::write_whole(&aside, 0o600, |file| {
        length = io::copy(&mut segment.by_ref(), file)?;
        Ok(())
    })?;
    durable::sync_dir(store)?;
    segment.set_len(tail.end.offset)?;
    segment.sync_all()?;
    notes(Note::Said(format!(
        "the log ended in {length} bytes that are no whole record, from an interrupted put or from damage; they are now in {}",
        aside.display()
    )));
    Ok(())
}
