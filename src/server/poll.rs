//! Whether a descriptor is ready: the one question of `poll`, about one.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Whether what `flags` name can be done with `fd` without waiting, be it to see an end or an error. It is waited for
/// so long, without a `time` for ever; `false` also if a signal came.
pub(super) fn poll_fd(fd: impl AsFd, flags: PollFlags, time: Option<Duration>) -> io::Result<bool> {
    match poll(&mut [PollFd::new(&fd, flags)], time.map(timespec).as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// `time` as the system takes it; what is too long for it is a second, after which one looks again.
pub(super) fn timespec(time: Duration) -> Timespec {
    Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
}
