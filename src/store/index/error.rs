//! The error of every operation on the index. Its variant decides whether the index has to be rebuilt.

use std::io;

/// Reason why an operation on the index failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IndexError {
    /// The index is damaged or does not match the log.
    #[error("{0}")]
    Corrupt(String),
    /// The disk is full. The index is not damaged.
    #[error("no space left on device")]
    DiskFull,
    /// The page has been replaced. Its entries may be in other pages of the current runs.
    #[error("a page of the index is missing")]
    PageReplaced,
    /// The index is closed.
    #[error("the index is closed")]
    Closed,
}

impl IndexError {
    /// Creates the error of a damaged index.
    pub fn corrupt(reason: impl Into<String>) -> Self {
        Self::Corrupt(reason.into())
    }
}

impl From<io::Error> for IndexError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull => Self::DiskFull,
            _ => Self::corrupt(error.to_string()),
        }
    }
}
