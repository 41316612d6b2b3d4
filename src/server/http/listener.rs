//! Listening sockets: TCP, and the Unix socket of the local endpoint. The Unix socket is accessible to its owner only.

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::socket::Socket;
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
