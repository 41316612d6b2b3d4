//! The store layer. [`HashingStore`] hashes every message that is put, and again every message that is read, so that
//! the [`Backend`] below it need not be trusted.

pub mod caching;
pub mod local;
#[cfg(feature = "postgres")]
pub mod postgres;

#[cfg(any(test, fuzzing))]
mod fuzz;
mod index;
mod lock;
mod log;
mod losses;

use std::sync::Arc;

#[cfg(fuzzing)]
pub use fuzz::check_log;
#[cfg(fuzzing)]
pub use index::check_index;

use crate::digest::Digest;
use crate::message_store::{Cursor, Damage, Entry, Error, ListQuery, MessageStore, Receipt, Stats, VerifyStep};

/// A map from digest to bytes.
pub trait Backend: Send + Sync {
    /// Stores messages under their digests and blocks until they are durable. Returns, for each message in order,
    /// whether it was written.
    ///
    /// A message that is already stored byte for byte is not written again. A corrupt copy is replaced.
    fn put(&self, batch: Vec<(Digest, Vec<u8>)>) -> Result<Vec<bool>, Error>;

    /// Returns the stored bytes of the first digests, without hashing them. `None` is an absent message.
    ///
    /// The result has at least one element, and as many as are cheap to read together and fit in memory. `digests` must
    /// not be empty.
    fn get(&self, digests: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Error>;

    /// Returns, for each digest in order, whether a message is stored under it.
    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error>;

    /// See [`MessageStore::size`].
    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error>;

    /// See [`MessageStore::list`].
    fn list(&self, query: &ListQuery) -> Result<Vec<Entry>, Error>;

    /// See [`MessageStore::remove`].
    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error>;

    /// See [`MessageStore::verify`].
    fn verify(&self, from: Option<&Cursor>) -> Result<VerifyStep, Error>;

    /// See [`MessageStore::repair`].
    fn repair(&self, damage: &[Damage]) -> Result<(), Error>;

    /// See [`MessageStore::accept_loss`].
    fn accept_loss(&self, _losses: &[Damage]) -> Result<(), Error> {
        Ok(())
    }

    /// See [`MessageStore::stats`].
    fn stats(&self) -> Result<Stats, Error>;

    /// See [`MessageStore::health`].
    fn health(&self) -> Result<(), Error>;
}

/// A [`MessageStore`] that hashes messages over an untrusted backend and limits their length.
#[derive(Debug)]
pub struct HashingStore<B> {
    backend: B,
    max_message: u64,
}

impl<B: Backend> HashingStore<B> {
    /// Creates a store that accepts messages of up to `max_message` bytes, capped at 4 GiB - 1.
    pub fn new(backend: B, max_message: u64) -> Self {
        Self { backend, max_message: max_message.min(u64::from(u32::MAX)) }
    }

    /// Returns the backend without the hashing layer.
    pub fn into_backend(self) -> B {
        self.backend
    }
}

impl<B: Backend> MessageStore for HashingStore<B> {
    fn put(&self, batch: Vec<Vec<u8>>) -> Result<Vec<Receipt>, Error> {
        if let Some(oversized) = batch.iter().find(|message| message.len() as u64 > self.max_message) {
            return Err(Error::TooLarge { length: oversized.len() as u64, limit: self.max_message });
        }
        let batch: Vec<_> = batch.into_iter().map(|message| (Digest::compute(&message), message)).collect();
        let digests: Vec<_> = batch.iter().map(|(digest, _)| *digest).collect();
        let new = self.backend.put(batch)?;
        Ok(digests.into_iter().zip(new).map(|(digest, new)| Receipt { digest, new }).collect())
    }

    fn get<'a>(&'a self, digests: &'a [Digest]) -> Box<dyn Iterator<Item = Result<Option<Vec<u8>>, Error>> + 'a> {
        let mut fetched = Vec::new().into_iter();
        Box::new(digests.iter().enumerate().map(move |(index, digest)| {
            if fetched.len() == 0 {
                fetched = self.backend.get(&digests[index..])?.into_iter();
            }
            match fetched.next().expect("a backend returns at least one result") {
                Some(bytes) if digest.matches(&bytes) => Ok(Some(bytes)),
                Some(_) => Err(Error::Corrupt(*digest)),
                None => Ok(None),
            }
        }))
    }

    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        self.backend.has(digests)
    }

    fn size(&self, digest: Digest) -> Result<Option<u64>, Error> {
        self.backend.size(&digest)
    }

    fn list(&self, query: &ListQuery) -> Result<Vec<Entry>, Error> {
        self.backend.list(query)
    }

    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        self.backend.remove(digests)
    }

    fn verify(&self, from: Option<&Cursor>) -> Result<VerifyStep, Error> {
        self.backend.verify(from)
    }

    fn repair(&self, damage: &[Damage]) -> Result<(), Error> {
        self.backend.repair(damage)
    }

    fn accept_loss(&self, losses: &[Damage]) -> Result<(), Error> {
        self.backend.accept_loss(losses)
    }

    fn stats(&self) -> Result<Stats, Error> {
        self.backend.stats()
    }

    fn health(&self) -> Result<(), Error> {
        self.backend.health()
    }
}

/// Event that a store reports to the user beside the results of its calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreEvent {
    /// Text line for the user about something that the store did.
    Message(String),
    /// Text line for the user about a loss or a problem. It is printed with `--quiet`, too.
    Warning(String),
    /// Progress of replaying the log into the index.
    ReplayProgress {
        /// Bytes read so far.
        done: u64,
        /// Bytes to read in total.
        total: u64,
    },
}

/// Callback that receives store events. Any thread may call it.
pub type EventSink = Arc<dyn Fn(StoreEvent) + Send + Sync>;
