//! Listeners and client sockets: TCP, and the Unix socket of the local endpoint.

use std::fs::{self, Permissions};
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::buffer::Buffer;
use rustix::net::{AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType};
use rustix::net::{recv, send, sendmsg};

use crate::unix_path;

/// Maximum number of connections that wait for `accept` on the Unix socket.
const BACKLOG: i32 = 4096;

/// A listening socket.
pub(in crate::server) enum Listener {
    Tcp(TcpListener),
    Unix(UnixSocketListener),
}

/// A listening Unix socket. Dropping it removes its file.
pub(in crate::server) struct UnixSocketListener {
    listener: UnixListener,
    path: PathBuf,
}

/// A connected client socket. TCP sockets have the client's address.
pub(super) enum Socket {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

/// Reader and writer of a socket, blocking or not.
pub(super) struct SocketIo<'a> {
    socket: &'a Socket,
    blocking: bool,
}

impl Listener {
    /// Listens on `ADDRESS:PORT`.
    pub(in crate::server) fn bind(address: &str) -> io::Result<Self> {
        Self::from_tcp(TcpListener::bind(address.to_socket_addrs()?.collect::<Vec<_>>().as_slice())?)
    }

    /// Takes over a TCP socket that listens already.
    pub(in crate::server) fn from_tcp(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(listener))
    }

    /// Listens at `path`, for the owner only. A file at `path` is removed, so the caller must hold the lock of the
    /// store.
    pub(in crate::server) fn bind_unix(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        unix_path::with_address(path, |address| rustix::net::bind(&socket, address))?;
        // The permissions are set before `listen`, so no other user can connect in between.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self::Unix(UnixSocketListener { listener: UnixListener::from(socket), path: path.to_owned() }))
    }

    /// Returns the bound address of a TCP listener.
    pub(in crate::server) fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Accepts a pending connection. Returns the error `WouldBlock` if there is none.
    pub(super) fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(false)?;
                // Responses are written in large pieces, so Nagle's algorithm would only delay them. An error means
                // that the connection is gone, which the next read reports.
                let _ = stream.set_nodelay(true);
                Ok(Socket::Tcp(stream, peer.ip()))
            }
            Self::Unix(UnixSocketListener { listener, .. }) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Ok(Socket::Unix(stream))
            }
        }
    }
}

impl Drop for UnixSocketListener {
    fn drop(&mut self) {
        // A file that is left behind is removed by the next `bind_unix`.
        let _ = fs::remove_file(&self.path);
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(UnixSocketListener { listener, .. }) => listener.as_fd(),
        }
    }
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

    /// Returns a reader and writer. If `blocking`, calls block up to the timeouts of the socket.
    pub(super) const fn io(&self, blocking: bool) -> SocketIo<'_> {
        SocketIo { socket: self, blocking }
    }

    /// Discards received data, writes `response` without blocking, and shuts down writing. Fails if the response does
    /// not fit the socket buffer.
    pub(super) fn send_and_close(&self, response: &[u8]) -> io::Result<()> {
        let mut io = self.io(false);
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
        let flags = if self.blocking { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        Ok(recv(self.socket, buf, flags)?.0)
    }

    const fn send_flags(&self) -> SendFlags {
        if self.blocking { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT) }
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
