//! The interface of every message store: the commands and the HTTP API access stores through this trait only.
//! Messages are put, fetched and removed in batches. An absent message is a result, not an error.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Prefix};
use crate::json_message::rfc3339;

/// A store that finds messages by their digest. All methods block.
pub trait MessageStore: Send + Sync {
    /// Stores a batch and returns a receipt for each message, in order. The messages are durable when this returns.
    ///
    /// On an error, no message is acknowledged, but some messages of the batch may be stored.
    fn put(&self, batch: Vec<Vec<u8>>) -> Result<Vec<Receipt>, Error>;

    /// Returns the messages of `digests` in order, `None` for an absent one. They are fetched as the iterator advances.
    ///
    /// Bytes that do not hash to their digest are never returned: the item is [`Error::Corrupt`].
    fn get<'a>(&'a self, digests: &'a [Digest]) -> Box<dyn Iterator<Item = Result<Option<Vec<u8>>, Error>> + 'a>;

    /// Announces that `digests` will be requested soon, so that the store may fetch them together.
    fn prefetch(&self, _digests: &[Digest]) {}

    /// Returns for each digest whether its message is stored, in order.
    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error>;

    /// Returns the length of a message in bytes, `None` if it is absent. Does not read the message.
    fn size(&self, digest: Digest) -> Result<Option<u64>, Error>;

    /// Returns one page of the stored messages in the order of their digests. An empty page is the end.
    fn list(&self, page: &ListQuery) -> Result<Vec<Entry>, Error>;

    /// Removes messages and returns for each digest whether it was stored, in order. The removal is durable when this
    /// returns.
    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error>;

    /// Verifies a part of the store, some tens of MiB: reads the messages and hashes them again.
    ///
    /// `from` is `None` in the first step, and [`VerifyStep::next`] of the previous step in all others.
    fn verify(&self, from: Option<&Cursor>) -> Result<VerifyStep, Error>;

    /// Repairs damage that [`MessageStore::verify`] found. Corrupt messages are moved to quarantine and are absent from
    /// then on; intact messages that were not in the index are found again.
    fn repair(&self, damage: &[Damage]) -> Result<(), Error>;

    /// Accepts losses that [`MessageStore::verify`] found, so that they are not reported any more.
    fn accept_loss(&self, _losses: &[Damage]) -> Result<(), Error> {
        Ok(())
    }

    /// Counts the contents of the store.
    fn stats(&self) -> Result<Stats, Error>;

    /// Returns the error that prevents puts, or [`Error::DataLoss`] if a loss is recorded. Called often, so it must be
    /// cheap.
    fn health(&self) -> Result<(), Error>;

    /// Returns the message of one digest, `None` if it is absent.
    fn get_one(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        self.get(&[digest]).next().expect("one result for one digest")
    }
}

/// Acknowledgement of one message: it is stored and survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Digest of the message.
    pub digest: Digest,
    /// `true` if the message was absent before.
    pub new: bool,
}

/// Selection of the digests in a listing.
#[derive(Debug, Clone, Copy)]
pub struct ListQuery {
    /// Prefix of all listed digests.
    pub prefix: Prefix,
    /// Exclusive lower bound of the listed digests.
    pub after: Option<Digest>,
    /// Maximum number of entries.
    pub limit: usize,
}

/// One message in a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Digest of the message.
    pub digest: Digest,
    /// Length of the message in bytes.
    pub length: u64,
    /// Time when the message was stored, in whole seconds.
    #[serde(with = "rfc3339")]
    pub stored_at: SystemTime,
}

/// Position of a verification. The content is opaque to all but the store that created it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub String);

/// Result of one step of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyStep {
    /// Start of the next step; `None` if the verification is complete.
    pub next: Option<Cursor>,
    /// Number of intact messages in this step.
    pub messages: u64,
    /// Sum of the lengths of these messages, in bytes.
    pub bytes: u64,
    /// Bytes that all steps so far have read, out of `total`.
    pub done: u64,
    /// Bytes that all steps together have to read.
    pub total: u64,
    /// Damage found in this step.
    pub damage: Vec<Damage>,
}

impl VerifyStep {
    /// A step without any result.
    pub const EMPTY: Self = Self { next: None, messages: 0, bytes: 0, done: 0, total: 0, damage: Vec::new() };
}

/// One piece of damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "damage", rename_all = "lowercase")]
pub enum Damage {
    /// The stored bytes do not hash to the digest.
    Corrupt {
        /// Digest of the message.
        digest: Digest,
    },
    /// The message was stored, but its bytes are missing.
    Lost {
        /// Digest of the message.
        digest: Digest,
    },
    /// Messages were stored and are missing. Their digests are unknown.
    #[serde(rename = "lost-unknown")]
    LostUnknown {
        /// Number of messages.
        messages: u64,
    },
    /// The message is stored and intact, but not in the index.
    Unindexed {
        /// Digest of the message.
        digest: Digest,
    },
    /// Bytes of the log that are not a record. The records that were there are lost.
    Gap {
        /// Number of the segment.
        segment: u32,
        /// Offset in the segment, in bytes.
        offset: u64,
        /// Length in bytes.
        length: u64,
    },
}

/// Statistics of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Number of messages.
    pub messages: u64,
    /// Sum of the lengths of the messages, in bytes.
    pub bytes: u64,
    /// Disk usage in bytes, including the index.
    pub disk: u64,
    /// Part of the disk usage that belongs to removed or replaced messages, in bytes.
    pub dead: u64,
    /// Time when the newest message was stored.
    #[serde(with = "rfc3339::option")]
    pub newest: Option<SystemTime>,
    /// Time of the last complete verification.
    #[serde(with = "rfc3339::option")]
    pub verified: Option<SystemTime>,
    /// Number of pieces of damage that the last complete verification found.
    pub damaged: u64,
    /// Number of lost messages that are recorded.
    #[serde(default)]
    pub lost: u64,
}

/// Error of a store operation. It is `Clone` because all puts of a batch get the same error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The stored bytes do not hash to their digest.
    #[error("message {0} is corrupt: the stored bytes do not match the digest; put the message again to repair it")]
    Corrupt(Digest),
    /// The message was stored, and the store has lost it.
    #[error("message {0} is lost: it was stored and is missing from the store; put the message again")]
    Lost(Digest),
    /// The store has lost this number of messages.
    #[error("data loss: number of lost messages: {0}; `sha-api verify` lists them and --accept-loss accepts the loss")]
    DataLoss(u64),
    /// The message is longer than the store accepts.
    #[error("cannot store a message of {length} bytes: over the limit of {limit} bytes; raise --max-message")]
    TooLarge {
        /// Length of the message in bytes.
        length: u64,
        /// Maximum length in bytes.
        limit: u64,
    },
    /// The disk is full. Puts work again when space is available.
    #[error("cannot write to {0}: no space left on device; free some space and try again")]
    NoSpace(PathBuf),
    /// Another process holds the lock of the store.
    #[error(
        "cannot open the store {path} within {waited:?}: locked by {owner}; stop that process or raise --lock-timeout"
    )]
    Locked {
        /// Directory of the store.
        path: PathBuf,
        /// Description of the process that holds the lock.
        owner: String,
        /// Time spent waiting for the lock.
        waited: std::time::Duration,
    },
    /// A write failed. Puts fail until the store is opened again; reads still work.
    #[error("writing has stopped after a failed write: {0}; check the disk, then restart")]
    WriteFailed(Arc<str>),
    /// A database cannot be reached, or cannot execute the statement at this time. A later attempt may succeed.
    #[error("{server} is unavailable: {cause}")]
    Unavailable {
        /// URL of the database, without password.
        server: String,
        /// Cause of the failure.
        cause: String,
    },
    /// The database accepts no changes: it is a standby, or read-only by its configuration or by the rights of the role.
    #[error("cannot write to {0}: the database is read-only for this role; use the primary server, or grant INSERT")]
    ReadOnly(String),
    /// The operating system reported an error.
    #[error("{operation}: {cause}")]
    Io {
        /// Description of the failed operation, with the file name.
        operation: String,
        /// Error of the operating system.
        cause: Arc<std::io::Error>,
    },
    /// An argument, a file, or the state of the store cannot be used. The text names it and the cause.
    #[error("{0}")]
    Unusable(String),
    /// A server cannot be reached, or its response is invalid or an error.
    #[error("{server}: {cause}")]
    Server {
        /// URL of the server.
        server: String,
        /// Cause of the failure.
        cause: String,
    },
    /// The server does not permit the operation.
    #[error("operation not permitted by {server}: {cause}")]
    NotPermitted {
        /// URL of the server.
        server: String,
        /// Error message of the server.
        cause: String,
    },
}

impl Error {
    /// Creates an error of the operating system. `operation` says what failed and names the file.
    pub fn io(operation: impl Into<String>, cause: std::io::Error) -> Self {
        Self::Io { operation: operation.into(), cause: Arc::new(cause) }
    }
}
