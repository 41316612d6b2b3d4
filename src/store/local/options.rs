//! Options for opening a local store.

use std::path::PathBuf;
use std::time::Duration;

use crate::store::EventSink;

/// Options for opening a local store.
#[derive(Clone)]
pub struct Options {
    /// Directory of the store.
    pub path: PathBuf,
    /// Creates the store if it does not exist. Otherwise a missing store is an error.
    pub create: bool,
    /// Maximum time to wait for another process that has locked the store.
    pub lock_timeout: Duration,
    /// Description of this process, shown to other processes that find the store locked. Must not contain a secret.
    pub owner: String,
    /// Memory for the blocks of the index, in bytes.
    pub index_cache: u64,
    /// Maximum length of a log segment in bytes, capped at 31 GiB.
    pub segment_size: u64,
    /// zstd level for new messages; `None` stores them uncompressed.
    pub compression: Option<i32>,
    /// Receiver of the store's events.
    pub events: EventSink,
}
