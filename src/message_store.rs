//! The contract of everything that keeps messages: commands and the HTTP API know nothing below it.
//! Batches are the primitive; one message is a batch of one. Absent is an answer, never an error.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Prefix};
use crate::json_message::rfc3339;

/// The longest message that is kept unless the user says otherwise, in bytes.
pub const DEFAULT_MAX_MESSAGE: u64 = 64 << 20;

/// Keeps messages by their digest.
pub trait MessageStore: Send + Sync {
    /// Stores a batch, durably when this returns, and answers with a receipt for each message, in order.
    ///
    /// On an error nothing is acknowledged; some of the batch may be stored all the same.
    fn put(&self, batch: Vec<Vec<u8>>) -> Result<Vec<Receipt>, Error>;

    /// The messages of `digests`, in order and fetched as the iterator is advanced. `None` is absent.
    ///
    /// Bytes that do not hash to their digest are never handed out: they are [`Error::Corrupt`].
    fn get<'a>(&'a self, digests: &'a [Digest]) -> Box<dyn Iterator<Item = Result<Option<Vec<u8>>, Error>> + 'a>;

    /// Hears that `digests` are about to be got, and may fetch them together.
    fn prefetch(&self, _digests: &[Digest]) {}

    /// Whether each of `digests` is stored, in order.
    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error>;

    /// The length of a message in bytes, `None` if it is absent. The message itself is not read.
    fn size(&self, digest: Digest) -> Result<Option<u64>, Error>;

    /// One page of what is stored, in the order of the digests. An empty page is the end.
    fn list(&self, page: &ListQuery) -> Result<Vec<Entry>, Error>;

    /// Removes messages, durably when this returns. Answers which of them were stored, in order.
    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error>;

    /// Takes one step of verifying everything: reads and hashes again a part of what is stored, some tens of MiB.
    ///
    /// `from` is `None` for the first step, then what the step before answered with as [`VerifyStep::next`].
    fn verify(&self, from: Option<&Cursor>) -> Result<VerifyStep, Error>;

    /// Puts out of the way what [`MessageStore::verify`] found: what is corrupt is kept in quarantine and absent from now
    /// on, and everything that is whole can be found again.
    fn repair(&self, damage: &[Damage]) -> Result<(), Error>;

    /// What there is, counted.
    fn stats(&self) -> Result<Stats, Error>;

    /// The reason if nothing can be put any more. Asked often, so it must be cheap.
    fn health(&self) -> Result<(), Error>;

    /// The message of one digest.
    fn get_one(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        self.get(&[digest]).next().expect("one answer for one digest")
    }
}

/// The acknowledgement of one message: it is stored, and stays stored after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// What to get it by.
    pub digest: Digest,
    /// Whether it was absent before.
    pub new: bool,
}

/// Which digests to list.
#[derive(Debug, Clone, Copy)]
pub struct ListQuery {
    /// Only digests that begin so.
    pub prefix: Prefix,
    /// Only digests greater than this one.
    pub after: Option<Digest>,
    /// At most so many.
    pub limit: usize,
}

/// A line of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The digest of the message.
    pub digest: Digest,
    /// The length of the message in bytes.
    pub length: u64,
    /// When it was stored, to the second.
    #[serde(with = "rfc3339")]
    pub stored_at: SystemTime,
}

/// How far a verification got; it means something only to what made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub String);

/// What a step of a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyStep {
    /// Where the next step begins; `None`: everything is verified.
    pub next: Option<Cursor>,
    /// How many messages were found whole in this step.
    pub messages: u64,
    /// The sum of their lengths in bytes.
    pub bytes: u64,
    /// How far all steps got, in bytes of what `total` counts.
    pub done: u64,
    /// How much there is to read in all steps together, in bytes.
    pub total: u64,
    /// What is not as it should be.
    pub damage: Vec<Damage>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "damage", rename_all = "lowercase")]
pub enum Damage {
    /// The stored bytes do not hash to the digest.
    Corrupt {
        /// Of the message.
        digest: Digest,
    },
    /// It is known to be stored, but its bytes are gone.
    Lost {
        /// Of the message.
        digest: Digest,
    },
    /// It is stored and whole, but cannot be found.
    Unindexed {
        /// Of the message.
        digest: Digest,
    },
    /// Bytes that are nothing known; what stood there is lost.
    Gap {
        /// The number of the segment.
        segment: u32,
        /// In the segment.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
}

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// How many messages.
    pub messages: u64,
    /// The sum of their lengths in bytes.
    pub bytes: u64,
    /// What they take on disk in bytes, index included.
    pub disk: u64,
    /// How much of that is taken by what was removed or stored anew, in bytes.
    pub dead: u64,
    /// When the newest was stored.
    #[serde(with = "rfc3339::option")]
    pub newest: Option<SystemTime>,
    /// When everything was last verified to the end.
    #[serde(with = "rfc3339::option")]
    pub verified: Option<SystemTime>,
    /// How much damage was found then.
    pub damaged: u64,
}

/// Why a request could not be carried out. One error may answer many waiting puts, so it is `Clone`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The stored bytes no longer hash to their digest.
    #[error("{0} is corrupt: its stored bytes no longer hash to it; putting the message again repairs it")]
    Corrupt(Digest),
    /// The message is longer than the store takes.
    #[error("a message of {length} bytes is over the limit of {limit}; --max-message raises it")]
    TooLarge {
        /// Of the message, in bytes.
        length: u64,
        /// The most that is taken, in bytes.
        limit: u64,
    },
    /// No room on the disk; writing works again once there is.
    #[error("no space left for {0}; free some and try again")]
    NoSpace(PathBuf),
    /// Another process has the store.
    #[error("the store {path} is held by {owner}; --wait waits longer than {waited:?}")]
    Locked {
        /// The store.
        path: PathBuf,
        /// Who has it.
        owner: String,
        /// For how long it was tried.
        waited: std::time::Duration,
    },
    /// Writing has stopped for good, until the store is opened anew; reads go on.
    #[error("writing has stopped, since what was written may not be on disk: {0}; stop, check the disk, start again")]
    WriteFailed(Arc<str>),
    /// A database cannot be reached, or cannot do it now; later it may.
    #[error("{server} cannot be asked: {cause}; is it running, and is this the right place?")]
    Unavailable {
        /// Its URL, without password.
        server: String,
        /// What came back, or did not.
        cause: String,
    },
    /// A database takes no changes: it is a standby, or was told so.
    #[error("{0} takes no changes, since it is read-only; name the one that is not")]
    ReadOnly(String),
    /// The operating system refused.
    #[error("{operation}: {cause}")]
    Io {
        /// What was tried, naming the file.
        operation: String,
        /// What came back.
        cause: Arc<std::io::Error>,
    },
    /// The place cannot be used as a store.
    #[error("{0}")]
    Unusable(String),
    /// A server cannot be reached, or its answer is none.
    #[error("{server}: {cause}")]
    Server {
        /// Its URL.
        server: String,
        /// What came back, or did not.
        cause: String,
    },
    /// A server permits us less than this takes.
    #[error("{server} does not permit this: {cause}")]
    NotPermitted {
        /// Its URL.
        server: String,
        /// What it says.
        cause: String,
    },
}

impl Error {
    /// Says what was tried when the operating system refused.
    pub fn io(what: impl Into<String>, why: std::io::Error) -> Self {
        Self::Io { operation: what.into(), cause: Arc::new(why) }
    }
}
