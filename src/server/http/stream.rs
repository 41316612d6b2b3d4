//! A client's bytes, in the clear, over plain TCP or TLS. A thread on duty takes and gives what can be moved at once,
//! and is relieved before it waits; every wait is bounded by a deadline. The system is asked for a new time-out only
//! when the one that is set is too long or much too short.

use std::io::{self, BufRead, ErrorKind, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustls::{ServerConfig, ServerConnection};

use super::deadline::{RateDeadline, deadline_after};
use super::reactor::LeaderToken;
use super::socket::Socket;

/// Read at a time.
const READ_CHUNK: usize = 16 << 10;
/// How often a thread on duty reads and writes for one client: then it is relieved, since others want to be served,
/// however fast this one asks, sends and takes.
const IO_BUDGET: usize = 8;
/// How much of what a client still sends is thrown away so that it sees the reply, and for how long.
const LINGER_BYTES: u64 = 4 << 20;
const LINGER: Duration = Duration::from_secs(2);
/// For the words at the end.
const CLOSE_NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection in the clear.
pub(super) struct Stream {
    socket: Arc<Socket>,
    tls: Option<Box<ServerConnection>>,
    read_timeout: Duration,
    write_timeout: Duration,
    /// Of the thread that is at it. Without one, it may wait.
    leader: Option<LeaderToken>,
    /// How often that may still read and write.
    io_budget: usize,
}

impl Stream {
    /// Over `socket`; with `tls`, [`Stream::handshake`] comes next.
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

    /// Who is at it from now on is on duty, or not.
    pub(super) fn set_leader(&mut self, duty: Option<LeaderToken>) {
        (self.leader, self.io_budget) = (duty, IO_BUDGET);
    }

    /// The duty, if it was kept.
    pub(super) const fn take_leader(&mut self) -> Option<LeaderToken> {
        self.leader.take()
    }

    /// From now on, who is at it may wait: for this stream or for anything else.
    pub(super) fn release_leadership(&mut self) {
        self.leader = None;
    }

    /// Agrees on TLS, if that is spoken.
    pub(super) fn handshake(&mut self, deadline: Instant) -> io::Result<()> {
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            self.flush(deadline)?;
            if self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) && !self.read_records(deadline)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        self.flush(deadline)
    }

    /// Adds what comes next to `inbox` and says how much it was. 0 is the end.
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
                // The end without notice: nothing is taken as whole that is not framed as whole.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) => return Err(error),
            }
            self.flush(deadline)?;
            if !self.read_records(deadline)? {
                return Ok(0);
            }
        }
    }

    /// Whether [`Stream::read`] has something to say that the socket does not tell.
    pub(super) fn has_buffered_plaintext(&mut self) -> bool {
        self.tls.as_mut().is_some_and(|tls| match tls.reader().fill_buf() {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        })
    }

    /// Writes both parts, one after the other. The reader must keep the pace.
    pub(super) fn write(&mut self, head: &[u8], body: &[u8], mut pace: RateDeadline) -> io::Result<()> {
        let mut written = 0_usize;
        let total = head.len() + body.len();
        while written < total {
            let (head, body) = (head.get(written..).unwrap_or_default(), &body[written.saturating_sub(head.len())..]);
            written += match &mut self.tls {
                Some(tls) => {
                    let taken = tls.writer().write_vectored(&[IoSlice::new(head), IoSlice::new(body)])?;
                    self.flush_with_progress(pace.deadline(), |count| {
                        pace.record_progress(count);
                        pace.deadline()
                    })?;
                    taken
                }
                None => {
                    let count = self.write_socket(&[head, body], pace.deadline())?;
                    pace.record_progress(count);
                    count
                }
            };
        }
        Ok(())
    }

    /// Says that no more comes, and waits a little for the client to have seen it: closing while it still sends
    /// would have its system throw away what it has not read yet.
    pub(super) fn lingering_close(&mut self) {
        let now = Instant::now();
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            if self.flush(deadline_after(now, CLOSE_NOTIFY_TIMEOUT)).is_err() {
                return;
            }
        }
        self.socket.shutdown_write();
        let (mut left, mut discard) = (LINGER_BYTES, Vec::new());
        while let Ok(count @ 1..) = self.read_socket(&mut discard, deadline_after(now, LINGER)) {
            discard.clear();
            left = left.saturating_sub(count as u64);
            if left == 0 {
                return;
            }
        }
    }

    /// Says that no more comes, if that can be said at once.
    pub(super) fn send_close_notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut self.socket.io(false));
        }
    }

    /// Writes the TLS records that are ready, within a fixed time.
    fn flush(&mut self, deadline: Instant) -> io::Result<()> {
        self.flush_with_progress(deadline, |_| deadline)
    }

    /// Writes the TLS records that are ready. `moved` is told what went, and tells the next deadline.
    fn flush_with_progress(
        &mut self,
        mut deadline: Instant,
        mut moved: impl FnMut(usize) -> Instant,
    ) -> io::Result<()> {
        while self.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
            let waits = self.prepare_write(deadline)?;
            let Some(tls) = &mut self.tls else { break };
            match tls.write_tls(&mut self.socket.io(waits)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => deadline = moved(count),
                Err(error) => self.retry_or_fail(error)?,
            }
        }
        Ok(())
    }

    /// Reads TLS records. `false` is the end.
    fn read_records(&mut self, deadline: Instant) -> io::Result<bool> {
        loop {
            let waits = self.prepare_read(deadline)?;
            let Some(tls) = &mut self.tls else { return Ok(false) };
            match tls.read_tls(&mut self.socket.io(waits)) {
                Ok(0) => return Ok(false),
                Ok(_) => break,
                Err(error) => self.retry_or_fail(error)?,
            }
        }
        let Some(tls) = &mut self.tls else { return Ok(false) };
        if let Err(error) = tls.process_new_packets() {
            // The alert tells the client why.
            let _ = self.flush(deadline_after(Instant::now(), CLOSE_NOTIFY_TIMEOUT));
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(true)
    }

    fn read_socket(&mut self, buf: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
        buf.reserve(READ_CHUNK);
        loop {
            let waits = self.prepare_read(deadline)?;
            match self.socket.io(waits).recv(spare_capacity(buf)) {
                Ok(count) => return Ok(count),
                Err(error) => self.retry_or_fail(error)?,
            }
        }
    }

    fn write_socket(&mut self, parts: &[&[u8]; 2], deadline: Instant) -> io::Result<usize> {
        loop {
            let waits = self.prepare_write(deadline)?;
            match self.socket.io(waits).write_vectored(&parts.map(IoSlice::new)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => return Ok(count),
                Err(error) => self.retry_or_fail(error)?,
            }
        }
    }

    /// Whether a thread on duty is to read or write once more.
    fn take_io_budget(&mut self) -> bool {
        match self.io_budget.checked_sub(1) {
            Some(left) => self.io_budget = left,
            None => self.release_leadership(),
        }
        self.leader.is_some()
    }

    /// Whether to wait for the socket; if so, it is no longer than until `deadline`.
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

    /// The same for writing.
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

    /// Passes over an error after which the same is tried again: nothing moved yet, so from now on it is waited for.
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

/// A time-out that ends before `deadline`, after half of what is left or more: one that holds for many deadlines.
fn timeout_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
    Ok(Duration::from_millis(1 << millis.ilog2()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_never_outlasts_its_deadline_and_is_equal_for_near_deadlines() {
        let soon = |millis| timeout_until(Instant::now() + Duration::from_millis(millis)).unwrap();
        assert_eq!(soon(15_000), Duration::from_millis(8192));
        assert_eq!(soon(10_000), Duration::from_millis(8192));
        assert!(soon(100) <= Duration::from_millis(64));
        assert_eq!(timeout_until(Instant::now()).unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
