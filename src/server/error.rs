//! Why a server does not start: each error says what was tried, and where there is one, the remedy.

use std::io;
use std::path::PathBuf;

use super::token_file;
use crate::message_store;

/// Why the server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store would not open.
    #[error(transparent)]
    Store(#[from] message_store::Error),
    /// The token file cannot be used.
    #[error(transparent)]
    TokenFile(#[from] token_file::Error),
    /// What was tried, and why it failed.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// A certificate or key that cannot be used.
    #[error("{}: {why}", file.display())]
    Certificate {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The process may not open as many files as connections are wanted.
    #[error(
        "{needed} files may be open at a time with --max-connections {connections}, but the limit is {allowed}; \
         raise it (ulimit -n) or lower --max-connections"
    )]
    FdLimitTooLow {
        /// Connections that are wanted.
        connections: usize,
        /// Files that may have to be open.
        needed: u64,
        /// Files that may be.
        allowed: u64,
    },
}
