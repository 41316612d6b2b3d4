//! The sockets of clients and the listeners that they come from: TCP, and the local door beside a store.

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

/// Clients that may wait to be let in.
const BACKLOG: i32 = 4096;

/// What connections come from.
pub(in crate::server) enum Listener {
    Tcp(TcpListener),
    Unix(UnixSocketListener),
}

/// A listener with a name among the files, which goes with it.
pub(in crate::server) struct UnixSocketListener {
    listener: UnixListener,
    path: PathBuf,
}

/// A connection to a client.
pub(super) enum Socket {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

/// How a socket is read and written.
pub(super) struct SocketIo<'a> {
    socket: &'a Socket,
    blocking: bool,
}

impl Listener {
    /// Listens on `ADDRESS:PORT`.
    pub(in crate::server) fn bind(address: &str) -> io::Result<Self> {
        Self::from_tcp(TcpListener::bind(address.to_socket_addrs()?.collect::<Vec<_>>().as_slice())?)
    }

    /// Takes over a socket that listens already.
    pub(in crate::server) fn from_tcp(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(listener))
    }

    /// Listens at `path`, for the owner only. What is there is taken away: only who has the store may call this.
    pub(in crate::server) fn bind_unix(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        unix_path::with_address(path, |address| rustix::net::bind(&socket, address))?;
        // Nobody gets in before this: it does not listen yet.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self::Unix(UnixSocketListener { listener: UnixListener::from(socket), path: path.to_owned() }))
    }

    /// Where it listens, if that is an address.
    pub(in crate::server) fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
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
        // What stays behind is taken away by who opens the store next.
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
    /// Whom to count it with; `None`: it came by the local door.
    pub(super) const fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, peer) => Some(*peer),
            Self::Unix(_) => None,
        }
    }

    pub(super) fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream, _) => stream.set_read_timeout(Some(time)),
            Self::Unix(stream) => stream.set_read_timeout(Some(time)),
        }
    }

    pub(super) fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream, _) => stream.set_write_timeout(Some(time)),
            Self::Unix(stream) => stream.set_write_timeout(Some(time)),
        }
    }

    /// Whoever reads sees the end, after what has come already.
    pub(super) fn shutdown_read(&self) {
        self.shutdown(Shutdown::Read);
    }

    /// The client sees the end, after what was written.
    pub(super) fn shutdown_write(&self) {
        self.shutdown(Shutdown::Write);
    }

    /// For reading and writing: waiting as long as the time-outs say, or not at all.
    pub(super) const fn io(&self, blocking: bool) -> SocketIo<'_> {
        SocketIo { socket: self, blocking }
    }

    /// Writes what can be written at once, and throws away what has come.
    pub(super) fn send_and_close(&self, words: &[u8]) -> io::Result<()> {
        let mut access = self.io(false);
        let _ = access.read(&mut [0; 4096]);
        if access.write(words)? < words.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.shutdown_write();
        Ok(())
    }

    fn shutdown(&self, how: Shutdown) {
        // It fails only when the connection is gone, which is as good.
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
    /// Reads into `buf`: a slice, or the room that a vector has left.
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
