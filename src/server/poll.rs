//! `poll(2)` on a single file descriptor.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Waits up to `timeout` (`None`: forever) until `fd` is ready for `flags`. End of file and errors count as ready.
/// Returns `false` on timeout and if a signal interrupts the call.
pub(super) fn poll_fd(fd: impl AsFd, flags: PollFlags, timeout: Option<Duration>) -> io::Result<bool> {
    match poll(&mut [PollFd::new(&fd, flags)], timeout.map(timespec).as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Converts `timeout` for a system call. A value that does not fit becomes 1 second; callers poll again after a
/// timeout.
pub(super) fn timespec(timeout: Duration) -> Timespec {
    Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
}
