//! The store: hashes on the way in, re-hashes on the way out, over a [`Backend`] that only keeps bytes.

pub mod caching;
pub mod local;
#[cfg(feature = "postgres")]
pub mod postgres;

mod index;
mod lock;
mod log;

use std::sync::Arc;

use crate::digest::Digest;
use crate::message_store::{Cursor, Damage, Entry, Error, ListQuery, MessageStore, Receipt, Stats, VerifyStep};

/// A plain map from digest to bytes.
pub trait Backend: Send + Sync {
    /// Stores messages under their digests, durably when this returns. Answers which are new, in order.
    ///
    /// A digest whose message is stored as it is given is known, and nothing is written for it; one whose stored
    /// bytes are others is stored afresh.
    fn put(&self, batch: Vec<(Digest, Vec<u8>)>) -> Result<Vec<bool>, Error>;

    /// The bytes that are stored under the first of `digests`, as they are: under as many as are cheap to get together
    /// and fit in memory, at least one. `digests` is not empty.
    fn get(&self, digests: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Error>;

    /// Whether something is stored under each of the digests, in order.
    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error>;

    /// See [`MessageStore::size`].
    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error>;

    /// See [`MessageStore::list`].
    fn list(&self, page: &ListQuery) -> Result<Vec<Entry>, Error>;

    /// See [`MessageStore::remove`].
    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error>;

    /// See [`MessageStore::verify`].
    fn verify(&self, from: Option<&Cursor>) -> Result<VerifyStep, Error>;

    /// See [`MessageStore::repair`].
    fn repair(&self, damage: &[Damage]) -> Result<(), Error>;

    /// See [`MessageStore::stats`].
    fn stats(&self) -> Result<Stats, Error>;

    /// See [`MessageStore::health`].
    fn health(&self) -> Result<(), Error>;
}

/// Messages over a backend that is not trusted with the truth.
#[derive(Debug)]
pub struct HashingStore<B> {
    backend: B,
    max_message: u64,
}

impl<B: Backend> HashingStore<B> {
    /// Takes messages of up to `max_message` bytes, 4 GiB at the most.
    pub fn new(backend: B, max_message: u64) -> Self {
        Self { backend, max_message: max_message.min(u64::from(u32::MAX)) }
    }

    /// The backend alone.
    pub fn into_backend(self) -> B {
        self.backend
    }
}

impl<B: Backend> MessageStore for HashingStore<B> {
    fn put(&self, batch: Vec<Vec<u8>>) -> Result<Vec<Receipt>, Error> {
        if let Some(long) = batch.iter().find(|message| message.len() as u64 > self.max_message) {
            return Err(Error::TooLarge { length: long.len() as u64, limit: self.max_message });
        }
        let batch: Vec<_> = batch.into_iter().map(|message| (Digest::compute(&message), message)).collect();
        let digests: Vec<_> = batch.iter().map(|(digest, _)| *digest).collect();
        let new = self.backend.put(batch)?;
        Ok(digests.into_iter().zip(new).map(|(digest, new)| Receipt { digest, new }).collect())
    }

    fn get<'a>(&'a self, digests: &'a [Digest]) -> Box<dyn Iterator<Item = Result<Option<Vec<u8>>, Error>> + 'a> {
        let mut ahead = Vec::new().into_iter();
        Box::new(digests.iter().enumerate().map(move |(at, digest)| {
            if ahead.len() == 0 {
                ahead = self.backend.get(&digests[at..])?.into_iter();
            }
            match ahead.next().expect("a backend answers at least once") {
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

    fn list(&self, page: &ListQuery) -> Result<Vec<Entry>, Error> {
        self.backend.list(page)
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

    fn stats(&self) -> Result<Stats, Error> {
        self.backend.stats()
    }

    fn health(&self) -> Result<(), Error> {
        self.backend.health()
    }
}

/// What a store has to say beside its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreEvent {
    /// A line for the user: what was found, and what was done about it.
    Message(String),
    /// The index is being made from the log: so many bytes of so many are read.
    ReplayProgress {
        /// Bytes that are read.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
}

/// Where notes go.
pub type EventSink = Arc<dyn Fn(StoreEvent) + Send + Sync>;
