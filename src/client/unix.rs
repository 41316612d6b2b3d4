//! HTTP over a socket on this machine. However long its path is, it can be reached.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::net::sockopt::{Timeout as SocketTimeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};
use ureq::{Error, Timeout};

use crate::unix_path;

/// Connects to the socket at `path`, waiting no longer than `time` for room in its queue.
pub(super) fn connect(path: &Path, time: Duration) -> io::Result<UnixStream> {
    let unbound = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&unbound, SocketTimeout::Send, Some(time))?;
    unix_path::with_address(path, |address| rustix::net::connect(&unbound, address))?;
    Ok(unbound.into())
}

/// Connects to one socket, whatever a URL says.
#[derive(Debug)]
pub(super) struct UnixConnector {
    path: PathBuf,
    /// A connection that is there already.
    established: Mutex<Option<UnixStream>>,
}

impl UnixConnector {
    pub(super) fn new(path: PathBuf, first: Option<UnixStream>) -> Self {
        Self { path, established: Mutex::new(first) }
    }
}

impl Connector for UnixConnector {
    type Out = UnixTransport;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<UnixTransport>, Error> {
        let first = self.established.lock().expect("nobody panics while holding this").take();
        let stream = match first {
            Some(stream) => stream,
            None => connect(&self.path, *details.timeout.after)?,
        };
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(UnixTransport { stream, buffers }))
    }
}

/// Finds nothing, since a socket needs no address.
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

/// A connection.
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

    /// Open is what is silent: what comes unasked belongs to no request.
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

/// A socket cannot be told to wait for no time at all.
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
            let short = format!("/proc/self/fd/{}/{}", opened.as_raw_fd(), unix_path::SOCKET_NAME);
            let listener = UnixListener::bind(short).unwrap();
            connect(&dir.join(unix_path::SOCKET_NAME), Duration::from_secs(30)).unwrap();
            drop(listener);
            let refused = connect(&dir.join(unix_path::SOCKET_NAME), Duration::from_secs(30)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
    }
}
