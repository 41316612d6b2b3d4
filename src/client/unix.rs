//! Transport of ureq over a Unix socket with a path of any length.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::sockopt::{Timeout as SocketTimeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};
use ureq::{Error, Timeout};

use crate::unix_path;

/// Connects to the socket at `path`. Blocks for at most `timeout` while the socket's backlog is full.
pub(super) fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, SocketTimeout::Send, Some(timeout))?;
    unix_path::with_address(path, |address| rustix::net::connect(&socket, address))?;
    Ok(socket.into())
}

/// Connector that connects to one socket and ignores the URL.
#[derive(Debug)]
pub(super) struct UnixConnector {
    path: PathBuf,
    /// Connection that was established beforehand, for the first request.
    established: Mutex<Option<UnixStream>>,
}

impl UnixConnector {
    pub(super) fn new(path: PathBuf, established: Option<UnixStream>) -> Self {
        Self { path, established: Mutex::new(established) }
    }
}

impl Connector for UnixConnector {
    type Out = UnixTransport;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<UnixTransport>, Error> {
        let established = self.established.lock().take();
        let stream = match established {
            Some(stream) => stream,
            None => connect(&self.path, *details.timeout.after)?,
        };
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(UnixTransport { stream, buffers }))
    }
}

/// Resolver that returns no addresses, since a Unix socket needs none.
#[derive(Debug)]
pub(super) struct NoopResolver;

impl Resolver for NoopResolver {
    fn resolve(
        &self,
        _: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// Connection over a Unix socket.
#[derive(Debug)]
pub(super) struct UnixTransport {
    stream: UnixStream,
    buffers: LazyBuffers,
}

impl Transport for UnixTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        self.stream.set_write_timeout(socket_timeout(&timeout))?;
        self.stream
            .write_all(&self.buffers.output()[..amount])
            .map_err(|error| map_timeout_error(error, timeout.reason))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        self.stream.set_read_timeout(socket_timeout(&timeout))?;
        loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(map_timeout_error(error, timeout.reason)),
                Ok(length) => {
                    self.buffers.input_appended(length);
                    return Ok(length > 0);
                }
            }
        }
    }

    /// Returns whether an idle connection can be used again. Unexpected data makes it unusable, like an end of file.
    fn is_open(&mut self) -> bool {
        let mut probe = || {
            self.stream.set_nonblocking(true)?;
            let read = self.stream.read(&mut [0]);
            self.stream.set_nonblocking(false)?;
            read
        };
        matches!(probe(), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

/// Converts a timeout. Zero becomes one millisecond, because a socket does not accept a timeout of zero.
fn socket_timeout(timeout: &NextTimeout) -> Option<Duration> {
    (!timeout.after.is_not_happening()).then(|| (*timeout.after).max(Duration::from_millis(1)))
}

fn map_timeout_error(error: io::Error, reason: Timeout) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout(reason),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    #[test]
    fn sockets_with_long_paths_are_reachable() {
        let dir = tempfile::tempdir().unwrap();
        for depth in [0, 5] {
            let dir = (0..depth).fold(dir.path().to_owned(), |dir, _| dir.join("a".repeat(40)));
            std::fs::create_dir_all(&dir).unwrap();
            let opened = File::open(&dir).unwrap();
            let short_path = format!("/proc/self/fd/{}/{}", opened.as_raw_fd(), unix_path::SOCKET_NAME);
            let listener = UnixListener::bind(short_path).unwrap();
            connect(&dir.join(unix_path::SOCKET_NAME), Duration::from_secs(30)).unwrap();
            drop(listener);
            let error = connect(&dir.join(unix_path::SOCKET_NAME), Duration::from_secs(30)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
    }
}
