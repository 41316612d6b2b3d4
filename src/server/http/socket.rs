//! Connected client sockets. Reads and writes block or not, as the caller chooses for each.

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::buffer::Buffer;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};

/// A connected client socket. TCP sockets have the client's address.
pub(super) enum Socket {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

/// Reader and writer of a socket.
pub(super) struct SocketIo<'a> {
    socket: &'a Socket,
    mode: IoMode,
}

/// Behaviour of a read or write that is not possible at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IoMode {
    /// It fails with `WouldBlock`.
    NonBlocking,
    /// It blocks up to the timeout of the socket.
    Blocking,
}

impl Socket {
    /// Returns the client's address, or `None` on the Unix socket.
    pub(super) const fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, peer) => Some(*peer),
            Self::Unix(_) => None,
        }
    }

    pub(super) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream, _) => stream.set_read_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    pub(super) fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream, _) => stream.set_write_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_write_timeout(Some(timeout)),
        }
    }

    /// Makes reads return end of file after the data that was received.
    pub(super) fn shutdown_read(&self) {
        self.shutdown(Shutdown::Read);
    }

    /// Makes the client read end of file after the data that was written.
    pub(super) fn shutdown_write(&self) {
        self.shutdown(Shutdown::Write);
    }

    /// Returns a reader and writer.
    pub(super) const fn io(&self, mode: IoMode) -> SocketIo<'_> {
        SocketIo { socket: self, mode }
    }

    /// Discards received data, writes `response` without blocking, and shuts down writing. Fails if the response does
    /// not fit the socket buffer.
    pub(super) fn send_and_close(&self, response: &[u8]) -> io::Result<()> {
        let mut io = self.io(IoMode::NonBlocking);
        let _ = io.read(&mut [0; 4096]);
        if io.write(response)? < response.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.shutdown_write();
        Ok(())
    }

    fn shutdown(&self, how: Shutdown) {
        // It fails only if the connection is closed already.
        let _ = match self {
            Self::Tcp(stream, _) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream, _) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl SocketIo<'_> {
    /// Receives into `buf`, which is a slice or the spare capacity of a vector.
    pub(super) fn recv<B: Buffer<u8>>(&self, buf: B) -> io::Result<B::Output> {
        let flags = match self.mode {
            IoMode::NonBlocking => RecvFlags::DONTWAIT,
            IoMode::Blocking => RecvFlags::empty(),
        };
        Ok(recv(self.socket, buf, flags)?.0)
    }

    const fn send_flags(&self) -> SendFlags {
        match self.mode {
            IoMode::NonBlocking => SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT),
            IoMode::Blocking => SendFlags::NOSIGNAL,
        }
    }
}

impl Read for SocketIo<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv(buf)
    }
}

impl Write for SocketIo<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(send(self.socket, buf, self.send_flags())?)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [buf] = bufs {
            return self.write(buf);
        }
        Ok(sendmsg(self.socket, bufs, &mut SendAncillaryBuffer::default(), self.send_flags())?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
