//! The exit status of the program. Scripts rely on the numbers; docs/cli.md lists them.

use std::io;
use std::process::ExitCode;

use crate::message_store;

/// Exit status of a command that returned no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// Everything was done.
    Success,
    /// A requested message is not stored.
    Absent,
    /// A part failed with this exit code and was reported; the other parts were done.
    Reported(u8),
}

impl ExitStatus {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Absent => 1,
            Self::Reported(code) => code,
        }
    }

    /// Returns the status with the higher exit code.
    pub(super) fn worst(self, other: Self) -> Self {
        if other.code() > self.code() { other } else { self }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

/// Error in the arguments or in digests on stdin; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub(super) String);

/// Returns the exit code for an error. A closed pipe is not an error.
pub(super) fn exit_code(error: &anyhow::Error) -> u8 {
    let closed_pipe = error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe);
    match error.downcast_ref() {
        _ if closed_pipe => 0,
        _ if error.is::<UsageError>() => 2,
        Some(message_store::Error::Corrupt(_) | message_store::Error::Lost(_)) => 4,
        Some(message_store::Error::NotPermitted { .. }) => 5,
        _ => 3,
    }
}
