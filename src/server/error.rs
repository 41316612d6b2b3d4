//! Errors that keep a server from starting. Each message names the action that failed and its cause.

use std::io;
use std::path::PathBuf;

use super::auth::token_file;
use crate::message_store;

/// An error that keeps the server from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] message_store::Error),
    /// The token file is unreadable or invalid.
    #[error(transparent)]
    TokenFile(#[from] token_file::Error),
    /// An I/O error, with the action that failed.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// A certificate or key is unreadable or invalid.
    #[error("{}: {cause}", file.display())]
    Certificate {
        /// Path of the file.
        file: PathBuf,
        /// Problem with the file.
        cause: String,
    },
    /// The limit of open files is too low for the maximum number of connections.
    #[error(
        "the limit of open files is too low: --max-connections {connections} needs {needed}, but the limit is \
         {allowed}; raise it (ulimit -n) or lower --max-connections"
    )]
    FdLimitTooLow {
        /// Maximum number of client connections.
        connections: usize,
        /// Number of file descriptors that may be needed.
        needed: u64,
        /// Hard limit of file descriptors.
        allowed: u64,
    },
}
