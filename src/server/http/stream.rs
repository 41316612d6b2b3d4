//! Plaintext byte stream over TCP or TLS. A leader does non-blocking I/O and gives up leadership before it would block.
//! Every blocking call has a deadline.

use std::io::{self, BufRead, ErrorKind, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustls::{ServerConfig, ServerConnection};

use super::deadline::{RateDeadline, deadline_after};
use super::reactor::LeaderToken;
use super::socket::Socket;

/// Buffer space for one read, in bytes.
const READ_CHUNK: usize = 16 << 10;
/// Number of reads and writes on one connection after which a leader gives up leadership, so that a fast client does not
/// delay other connections.
const IO_BUDGET: usize = 8;
/// Maximum number of bytes that a lingering close discards.
const LINGER_BYTES: u64 = 4 << 20;
/// Maximum duration of a lingering close.
const LINGER: Duration = Duration::from_secs(2);
/// Timeout of writing a TLS `close_notify` or alert.
const CLOSE_NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// A plaintext stream.
pub(super) struct Stream {
    socket: Arc<Socket>,
    tls: Option<Box<ServerConnection>>,
    read_timeout: Duration,
    write_timeout: Duration,
    /// Leader token of the current thread. Without it, the thread may block.
    leader: Option<LeaderToken>,
    /// Number of reads and writes that are left before leadership is given up.
    io_budget: usize,
}

impl Stream {
    /// Creates a stream over `socket`. With `tls`, [`Stream::handshake`] must be called first.
    pub(super) fn new(socket: Arc<Socket>, tls: Option<&Arc<ServerConfig>>) -> Result<Self, rustls::Error> {
        let tls = match tls {
            Some(config) => Some(Box::new(ServerConnection::new(Arc::clone(config))?)),
            None => None,
        };
        Ok(Self {
            socket,
            tls,
            read_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
            leader: None,
            io_budget: 0,
        })
    }

    /// Sets the leader token of the current thread and resets the I/O budget.
    pub(super) fn set_leader(&mut self, leader: Option<LeaderToken>) {
        (self.leader, self.io_budget) = (leader, IO_BUDGET);
    }

    /// Takes the leader token, if leadership was not given up.
    pub(super) const fn take_leader(&mut self) -> Option<LeaderToken> {
        self.leader.take()
    }

    /// Gives up leadership so that the current thread may block. May spawn a thread.
    pub(super) fn release_leadership(&mut self) {
        self.leader = None;
    }

    /// Performs the TLS handshake, if the stream has TLS.
    pub(super) fn handshake(&mut self, deadline: Instant) -> io::Result<()> {
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            self.flush(deadline)?;
            if self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) && !self.read_records(deadline)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        self.flush(deadline)
    }

    /// Appends the next received bytes to `buf` and returns their number. 0: end of file.
    pub(super) fn read(&mut self, buf: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
        loop {
            let Some(tls) = &mut self.tls else { return self.read_socket(buf, deadline) };
            match tls.reader().fill_buf() {
                Ok(bytes) => {
                    let count = bytes.len();
                    buf.extend_from_slice(bytes);
                    tls.reader().consume(count);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // End of file without a close_notify. Truncation cannot go unnoticed, because requests are delimited.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) => return Err(error),
            }
            self.flush(deadline)?;
            if !self.read_records(deadline)? {
                return Ok(0);
            }
        }
    }

    /// Returns whether TLS has decrypted data, an end of file or an error for [`Stream::read`], none of which epoll can
    /// see.
    pub(super) fn has_buffered_plaintext(&mut self) -> bool {
        self.tls.as_mut().is_some_and(|tls| match tls.reader().fill_buf() {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        })
    }

    /// Writes `head`, then `body`. The client must read at the rate of `rate_deadline`.
    pub(super) fn write(&mut self, head: &[u8], body: &[u8], mut rate_deadline: RateDeadline) -> io::Result<()> {
        let mut written = 0_usize;
        let total = head.len() + body.len();
        while written < total {
            let (head, body) = (head.get(written..).unwrap_or_default(), &body[written.saturating_sub(head.len())..]);
            written += match &mut self.tls {
                Some(tls) => {
                    let consumed = tls.writer().write_vectored(&[IoSlice::new(head), IoSlice::new(body)])?;
                    self.flush_with_progress(rate_deadline.deadline(), |count| {
                        rate_deadline.record_progress(count);
                        rate_deadline.deadline()
                    })?;
                    consumed
                }
                None => {
                    let count = self.write_socket(&[head, body], rate_deadline.deadline())?;
                    rate_deadline.record_progress(count);
                    count
                }
            };
        }
        Ok(())
    }

    /// Sends end of file, then discards input until the client closes or a limit is reached. Closing a socket with
    /// unread input sends a reset, and the client could lose the response.
    pub(super) fn lingering_close(&mut self) {
        let now = Instant::now();
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            if self.flush(deadline_after(now, CLOSE_NOTIFY_TIMEOUT)).is_err() {
                return;
            }
        }
        self.socket.shutdown_write();
        let (mut remaining, mut discard) = (LINGER_BYTES, Vec::new());
        while let Ok(count @ 1..) = self.read_socket(&mut discard, deadline_after(now, LINGER)) {
            discard.clear();
            remaining = remaining.saturating_sub(count as u64);
            if remaining == 0 {
                return;
            }
        }
    }

    /// Sends a TLS `close_notify` if that does not block.
    pub(super) fn send_close_notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut self.socket.io(false));
        }
    }

    /// Writes pending TLS records until a fixed deadline.
    fn flush(&mut self, deadline: Instant) -> io::Result<()> {
        self.flush_with_progress(deadline, |_| deadline)
    }

    /// Writes pending TLS records. `on_progress` receives the number of bytes written and returns the next deadline.
    fn flush_with_progress(
        &mut self,
        mut deadline: Instant,
        mut on_progress: impl FnMut(usize) -> Instant,
    ) -> io::Result<()> {
        while self.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
            let blocking = self.prepare_write(deadline)?;
            let Some(tls) = &mut self.tls else { break };
            match tls.write_tls(&mut self.socket.io(blocking)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => deadline = on_progress(count),
                Err(error) => self.retry_or_fail(error)?,
            }
        }
        Ok(())
    }

    /// Reads and decrypts TLS records. Returns `false` at end of file.
    fn read_records(&mut self, deadline: Instant) -> io::Result<bool> {
        loop {
            let blocking = self.prepare_read(deadline)?;
            let Some(tls) = &mut self.tls else { return Ok(false) };
            match tls.read_tls(&mut self.socket.io(blocking)) {
                Ok(0) => return Ok(false),
                Ok(_) => break,
                Err(error) => self.retry_or_fail(error)?,
            }
        }
        let Some(tls) = &mut self.tls else { return Ok(false) };
        if let Err(error) = tls.process_new_packets() {
            // `flush` sends the TLS alert that describes the error.
            let _ = self.flush(deadline_after(Instant::now(), CLOSE_NOTIFY_TIMEOUT));
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(true)
    }

    fn read_socket(&mut self, buf: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
        buf.reserve(READ_CHUNK);
        loop {
            let blocking = self.prepare_read(deadline)?;
            match self.socket.io(blocking).recv(spare_capacity(buf)) {
                Ok(count) => return Ok(count),
                Err(error) => self.retry_or_fail(error)?,
            }
        }
    }

    fn write_socket(&mut self, parts: &[&[u8]; 2], deadline: Instant) -> io::Result<usize> {
        loop {
            let blocking = self.prepare_write(deadline)?;
            match self.socket.io(blocking).write_vectored(&parts.map(IoSlice::new)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => return Ok(count),
                Err(error) => self.retry_or_fail(error)?,
            }
        }
    }

    /// Takes one read or write from the I/O budget. Returns whether the current thread is still a leader.
    fn take_io_budget(&mut self) -> bool {
        match self.io_budget.checked_sub(1) {
            Some(remaining) => self.io_budget = remaining,
            None => self.release_leadership(),
        }
        self.leader.is_some()
    }

    /// Prepares a read. Returns `true` if it may block; a timeout that ends before `deadline` is then set.
    fn prepare_read(&mut self, deadline: Instant) -> io::Result<bool> {
        if self.take_io_budget() {
            return Ok(false);
        }
        let timeout = timeout_until(deadline)?;
        if timeout != self.read_timeout {
            self.socket.set_read_timeout(timeout)?;
            self.read_timeout = timeout;
        }
        Ok(true)
    }

    /// Prepares a write. Returns `true` if it may block; a timeout that ends before `deadline` is then set.
    fn prepare_write(&mut self, deadline: Instant) -> io::Result<bool> {
        if self.take_io_budget() {
            return Ok(false);
        }
        let timeout = timeout_until(deadline)?;
        if timeout != self.write_timeout {
            self.socket.set_write_timeout(timeout)?;
            self.write_timeout = timeout;
        }
        Ok(true)
    }

    /// Returns `Ok` if the call is to be retried. `WouldBlock` gives up leadership, so the retry blocks.
    fn retry_or_fail(&mut self, error: io::Error) -> io::Result<()> {
        match error.kind() {
            ErrorKind::Interrupted => Ok(()),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                self.release_leadership();
                Ok(())
            }
            _ => Err(error),
        }
    }
}

impl AsFd for Stream {
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
    use super::*;

    #[test]
    fn a_timeout_never_outlasts_its_deadline_and_is_equal_for_near_deadlines() {
        let timeout = |millis| timeout_until(Instant::now() + Duration::from_millis(millis)).unwrap();
        assert_eq!(timeout(15_000), Duration::from_millis(8192));
        assert_eq!(timeout(10_000), Duration::from_millis(8192));
        assert!(timeout(100) <= Duration::from_millis(64));
        assert_eq!(timeout_until(Instant::now()).unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
