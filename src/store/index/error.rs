//! The error of every operation on the index. Its variant decides what happens next: a damaged index is rebuilt from
//! the log, a shortage is returned to the caller and changes nothing.

use std::io;

use rustix::io::Errno;

/// Reason why an operation on the index failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IndexError {
    /// The index is damaged or does not match the log.
    #[error("{0}")]
    Corrupt(String),
    /// The disk is full, or the quota is used up.
    #[error("no space left on device")]
    DiskFull,
    /// The process or the machine has too few descriptors or threads, or too little memory.
    #[error("{}", io::Error::from(*.0))]
    Exhausted(Errno),
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

    /// Creates an error from the text of an error or a panic of sled. sled puts its source path before the text of the
    /// operating system, and drops the error number except in the text.
    pub fn from_sled(text: &str) -> Self {
        let cause = text.rsplit(" -> ").next().unwrap_or(text);
        let number = ["(os error ", "Os { code: "].iter().find_map(|start| {
            let digits = cause.split_once(start)?.1;
            digits[..digits.find(|letter: char| !letter.is_ascii_digit())?].parse().ok()
        });
        number.map_or_else(|| Self::corrupt(cause), |number| Self::from(Errno::from_raw_os_error(number)))
    }

    /// Returns whether the index is sound, and the operation succeeds again when there are enough resources.
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::DiskFull | Self::Exhausted(_))
    }
}

impl From<Errno> for IndexError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOSPC | Errno::DQUOT => Self::DiskFull,
            Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM => Self::Exhausted(errno),
            _ => Self::corrupt(io::Error::from(errno).to_string()),
        }
    }
}

impl From<io::Error> for IndexError {
    fn from(error: io::Error) -> Self {
        Errno::from_io_error(&error).map_or_else(|| Self::from_sled(&error.to_string()), Self::from)
    }
}
