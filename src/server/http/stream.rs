//! Plaintext byte stream over TCP or TLS. An operation that fails with `WouldBlock` keeps its progress and is continued
//! by the same call.

use std::io::{self, BufRead, ErrorKind, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustls::{ServerConfig, ServerConnection};

use super::socket::Socket;
use super::timed_socket::{Direction, TimedSocket};

/// Buffer space for one read, in bytes.
const READ_CHUNK: usize = 16 << 10;

/// A plaintext stream.
pub(super) struct Stream {
    socket: TimedSocket,
    tls: Option<Box<ServerConnection>>,
}

/// Data that a stream has not accepted yet.
pub(super) struct Unsent<'a> {
    pub(super) head: &'a [u8],
    pub(super) body: &'a [u8],
}

impl<'a> Unsent<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.head.is_empty() && self.body.is_empty()
    }

    fn slices(&self) -> [IoSlice<'a>; 2] {
        [IoSlice::new(self.head), IoSlice::new(self.body)]
    }

    fn advance(&mut self, count: usize) {
        let from_head = count.min(self.head.len());
        self.head = &self.head[from_head..];
        self.body = &self.body[count - from_head..];
    }
}

impl Stream {
    /// Creates a stream over `socket`, in blocking mode. With `tls`, [`Stream::handshake`] must be called first.
    pub(super) fn new(socket: Arc<Socket>, tls: Option<&Arc<ServerConfig>>) -> Result<Self, rustls::Error> {
        let tls = match tls {
            Some(config) => Some(Box::new(ServerConnection::new(Arc::clone(config))?)),
            None => None,
        };
        Ok(Self { socket: TimedSocket::new(socket), tls })
    }

    /// Selects non-blocking mode: after `calls` reads and writes, and before, operations fail with `WouldBlock`.
    pub(super) const fn set_nonblocking(&mut self, calls: usize) {
        self.socket.set_nonblocking(calls);
    }

    /// Selects blocking mode: operations block until their deadline and then fail with `TimedOut`.
    pub(super) const fn set_blocking(&mut self) {
        self.socket.set_blocking();
    }

    /// Performs the TLS handshake, if the stream has TLS.
    pub(super) fn handshake(&mut self, deadline: Instant) -> io::Result<()> {
        while self.is_handshaking() {
            self.flush(deadline)?;
            if self.is_handshaking() && !self.read_records(deadline)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        self.flush(deadline)
    }

    fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Appends the next received bytes to `buf` and returns their number. 0: end of file.
    pub(super) fn read(&mut self, buf: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
        loop {
            let Some(tls) = &mut self.tls else { return self.read_raw(buf, deadline) };
            match tls.reader().fill_buf() {
                Ok(bytes) => {
                    let count = bytes.len();
                    buf.extend_from_slice(bytes);
                    tls.reader().consume(count);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // End of file without a `close_notify`. Truncation cannot go unnoticed, because requests are delimited.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) => return Err(error),
            }
            self.flush(deadline)?;
            if !self.read_records(deadline)? {
                return Ok(0);
            }
        }
    }

    /// Appends the next received bytes to `buf` without decrypting them, and returns their number. 0: end of file.
    pub(super) fn read_raw(&mut self, buf: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
        buf.reserve(READ_CHUNK);
        self.socket.call(Direction::Read, deadline, |io| io.recv(spare_capacity(buf)))
    }

    /// Returns whether TLS has decrypted data, an end of file or an error for [`Stream::read`], none of which epoll can
    /// see.
    pub(super) fn has_buffered_plaintext(&mut self) -> bool {
        self.tls.as_mut().is_some_and(|tls| match tls.reader().fill_buf() {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        })
    }

    /// Writes once and returns the number of bytes sent. Accepted plaintext is removed from `unsent`, even if sending
    /// its records then fails with `WouldBlock`.
    ///
    /// All is written when `unsent` is empty and [`Stream::has_pending_records`] returns `false`.
    pub(super) fn write(&mut self, unsent: &mut Unsent<'_>, deadline: Instant) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            let count = self.socket.call(Direction::Write, deadline, |io| io.write_vectored(&unsent.slices()))?;
            unsent.advance(count);
            return if count == 0 { Err(ErrorKind::WriteZero.into()) } else { Ok(count) };
        };
        if !tls.wants_write() {
            unsent.advance(tls.writer().write_vectored(&unsent.slices())?);
        }
        self.write_records(deadline)
    }

    /// Returns whether TLS records wait to be sent.
    pub(super) fn has_pending_records(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Sends all pending TLS records.
    pub(super) fn flush(&mut self, deadline: Instant) -> io::Result<()> {
        while self.has_pending_records() {
            self.write_records(deadline)?;
        }
        Ok(())
    }

    /// Adds a TLS `close_notify` to the pending records, unless the handshake is incomplete.
    pub(super) fn queue_close_notify(&mut self) {
        if let Some(tls) = &mut self.tls
            && !tls.is_handshaking()
        {
            tls.send_close_notify();
        }
    }

    /// Sends pending TLS records as far as that is possible without blocking.
    pub(super) fn flush_nonblocking(&mut self) {
        if let Some(tls) = &mut self.tls {
            let _ = tls.write_tls(&mut self.socket.nonblocking_io());
        }
    }

    /// Makes the client read end of file after the data that was written.
    pub(super) fn shutdown_write(&self) {
        self.socket.shutdown_write();
    }

    /// Sends pending TLS records once and returns the number of bytes sent.
    fn write_records(&mut self, deadline: Instant) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return Ok(0) };
        match self.socket.call(Direction::Write, deadline, |io| tls.write_tls(io))? {
            0 => Err(ErrorKind::WriteZero.into()),
            count => Ok(count),
        }
    }

    /// Reads and decrypts TLS records. Returns `false` at end of file.
    fn read_records(&mut self, deadline: Instant) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return Ok(false) };
        if self.socket.call(Direction::Read, deadline, |io| tls.read_tls(io))? == 0 {
            return Ok(false);
        }
        if let Err(error) = tls.process_new_packets() {
            // The pending record is an alert that describes the error.
            self.flush_nonblocking();
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(true)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
