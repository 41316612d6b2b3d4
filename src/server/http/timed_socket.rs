//! Socket I/O in one of two modes. Non-blocking calls are limited in number and then report `WouldBlock`; blocking calls
//! end with `TimedOut` at their deadline. A failed call has no effect and can be repeated.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::socket::{IoMode, Socket, SocketIo};

/// A socket with an I/O mode.
pub(super) struct TimedSocket {
    socket: Arc<Socket>,
    mode: IoMode,
    /// Number of calls left in non-blocking mode.
    calls_left: usize,
    read_timeout: Duration,
    write_timeout: Duration,
}

/// Direction of a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Direction {
    Read,
    Write,
}

impl TimedSocket {
    /// Creates a socket in blocking mode.
    pub(super) const fn new(socket: Arc<Socket>) -> Self {
        Self {
            socket,
            mode: IoMode::Blocking,
            calls_left: 0,
            read_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
        }
    }

    /// Selects non-blocking mode for at most `calls` calls.
    pub(super) const fn set_nonblocking(&mut self, calls: usize) {
        (self.mode, self.calls_left) = (IoMode::NonBlocking, calls);
    }

    /// Selects blocking mode.
    pub(super) const fn set_blocking(&mut self) {
        self.mode = IoMode::Blocking;
    }

    /// Returns a reader and writer that never blocks.
    pub(super) fn nonblocking_io(&self) -> SocketIo<'_> {
        self.socket.io(IoMode::NonBlocking)
    }

    /// Makes the client read end of file after the data that was written.
    pub(super) fn shutdown_write(&self) {
        self.socket.shutdown_write();
    }

    /// Calls `call`, which reads or writes once. In blocking mode, the call is repeated until `deadline`.
    pub(super) fn call<T>(
        &mut self,
        direction: Direction,
        deadline: Instant,
        mut call: impl FnMut(&mut SocketIo<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match self.mode {
                IoMode::NonBlocking if self.calls_left == 0 => return Err(ErrorKind::WouldBlock.into()),
                IoMode::NonBlocking => self.calls_left -= 1,
                IoMode::Blocking => self.set_timeout(direction, timeout_until(deadline)?)?,
            }
            match call(&mut self.socket.io(self.mode)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The timeout of the socket ends before the deadline.
                Err(error)
                    if self.mode == IoMode::Blocking
                        && matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                result => return result,
            }
        }
    }

    /// Sets the timeout of blocking calls, unless it is set already.
    fn set_timeout(&mut self, direction: Direction, timeout: Duration) -> io::Result<()> {
        match direction {
            Direction::Read if self.read_timeout != timeout => {
                self.socket.set_read_timeout(timeout)?;
                self.read_timeout = timeout;
            }
            Direction::Write if self.write_timeout != timeout => {
                self.socket.set_write_timeout(timeout)?;
                self.write_timeout = timeout;
            }
            Direction::Read | Direction::Write => {}
        }
        Ok(())
    }
}

impl AsFd for TimedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Returns a socket timeout that ends before `deadline`. It is rounded down to a power of two, in milliseconds, so that
/// the timeout changes rarely: each change is a system call.
fn timeout_until(deadline: Instant) -> io::Result<Duration> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    if remaining.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    let millis = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX).max(1);
    Ok(Duration::from_millis(1 << millis.ilog2()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_timeout_never_outlasts_its_deadline_and_is_equal_for_near_deadlines() {
        let timeout = |millis| timeout_until(Instant::now() + Duration::from_millis(millis)).unwrap();
        assert_eq!(timeout(15_000), Duration::from_millis(8192));
        assert_eq!(timeout(10_000), Duration::from_millis(8192));
        assert!(timeout(100) <= Duration::from_millis(64));
        assert_eq!(timeout_until(Instant::now()).unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn nonblocking_calls_are_limited_and_blocking_calls_end_at_their_deadline() {
        let (server, _client) = UnixStream::pair().unwrap();
        let mut socket = TimedSocket::new(Arc::new(Socket::Unix(server)));
        let deadline = Instant::now() + Duration::from_millis(20);
        let mut calls = 0;
        let mut call = |socket: &mut TimedSocket| {
            let result = socket.call(Direction::Read, deadline, |io| {
                calls += 1;
                io.recv(&mut [0][..])
            });
            result.unwrap_err().kind()
        };
        socket.set_nonblocking(2);
        for _ in 0..3 {
            assert_eq!(call(&mut socket), ErrorKind::WouldBlock);
        }
        socket.set_blocking();
        assert_eq!(call(&mut socket), ErrorKind::TimedOut);
        assert!(calls > 2 && Instant::now() >= deadline);
    }
}
