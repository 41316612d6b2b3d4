//! The sockets of clients and the listeners that they come from: TCP now, with room for the local door.

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// What connections come from.
pub(in crate::server) enum Listener {
    Tcp(TcpListener),
}

/// A connection to a client.
pub(super) enum Socket {
    Tcp(TcpStream, Option<IpAddr>),
}

impl Listener {
    /// Listens on `ADDRESS:PORT`.
    pub(in crate::server) fn bind(address: &str) -> io::Result<Self> {
        Self::of(TcpListener::bind(address.to_socket_addrs()?.collect::<Vec<_>>().as_slice())?)
    }

    /// Takes over a socket that listens already.
    pub(in crate::server) fn of(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(listener))
    }

    /// Where it listens.
    pub(in crate::server) fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
        }
    }

    /// The next connection; `WouldBlock` if none waits.
    pub(super) fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(false)?;
                // A reply is written at once, or in long runs: waiting for more to send only costs time.
                // It fails only when the connection is gone again, which shows when it is read.
                let _ = stream.set_nodelay(true);
                Ok(Socket::Tcp(stream, Some(peer.ip())))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Socket {
    /// Whom to count it with.
    pub(super) const fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, peer) => *peer,
        }
    }

    pub(super) fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream, _) => stream.set_read_timeout(Some(time)),
        }
    }

    pub(super) fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream, _) => stream.set_write_timeout(Some(time)),
        }
    }

    /// Whoever reads sees the end, after what has come already.
    pub(super) fn stop_reading(&self) {
        self.shut(Shutdown::Read);
    }

    /// The client sees the end, after what was written.
    pub(super) fn stop_writing(&self) {
        self.shut(Shutdown::Write);
    }

    /// Writes what can be written at once, and throws away what has come.
    pub(super) fn dismiss(&self, words: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream, _) => {
                stream.set_nonblocking(true)?;
                let _ = (&mut &*stream).read(&mut [0; 4096]);
                if (&mut &*stream).write(words)? < words.len() {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
        }
        self.stop_writing();
        Ok(())
    }

    fn shut(&self, how: Shutdown) {
        match self {
            // It fails only when the connection is gone, which is as good.
            Self::Tcp(stream, _) => drop(stream.shutdown(how)),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream, _) => (&mut &*stream).read(buf),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream, _) => (&mut &*stream).write(buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream, _) => (&mut &*stream).write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
