//! Pool of connections to the engine. A broken connection is replaced at the next checkout that finds no idle one. New
//! connections are opened one at a time.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use crate::server::warn;

/// Maximum time to wait for an idle connection.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(10);

/// Handle of the engine's socket, usable after its path was removed.
pub(super) struct SocketHandle(OwnedFd);

/// Connections to the engine, each used by one request at a time.
pub(super) struct Pool {
    state: Mutex<PoolState>,
    available: Condvar,
    open_lock: Mutex<()>,
    socket: SocketHandle,
}

#[derive(Default)]
struct PoolState {
    idle: Vec<Arc<UnixStream>>,
    /// Number of working connections, including those in use.
    connections: usize,
    /// Number of broken connections that are not replaced yet.
    to_replace: usize,
}

/// A connection in use. If it is dropped instead of released, it counts as broken.
pub(super) struct PooledConnection<'a> {
    pool: &'a Pool,
    stream: Option<Arc<UnixStream>>,
}

impl SocketHandle {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?))
    }

    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

impl Drop for SocketHandle {
    /// Wakes tiny_http's acceptor, so that it notices the shutdown. tiny_http itself cannot wake it, because it
    /// connects by path, and the path was removed.
    fn drop(&mut self) {
        let _ = self.connect();
    }
}

impl Pool {
    pub(super) fn new(socket: SocketHandle) -> Self {
        Self { state: Mutex::default(), available: Condvar::new(), open_lock: Mutex::new(()), socket }
    }

    /// Opens a connection and adds it to the pool.
    pub(super) fn add(&self, open: impl FnOnce(&SocketHandle) -> io::Result<Arc<UnixStream>>) -> io::Result<()> {
        let stream = self.open_connection(open)?;
        let mut state = self.lock();
        state.connections += 1;
        state.idle.push(stream);
        Ok(())
    }

    /// Returns an idle connection, or replaces a broken one with `open`, or blocks until a connection is released.
    /// Returns `None` after [`CHECKOUT_TIMEOUT`], or if `open` fails.
    pub(super) fn checkout(
        &self,
        open: impl FnOnce(&SocketHandle) -> io::Result<Arc<UnixStream>>,
    ) -> Option<PooledConnection<'_>> {
        let deadline = Instant::now() + CHECKOUT_TIMEOUT;
        let mut state = self.lock();
        loop {
            if let Some(stream) = state.idle.pop() {
                return Some(PooledConnection { pool: self, stream: Some(stream) });
            }
            if state.to_replace > 0 {
                state.to_replace -= 1;
                drop(state);
                return self.replace(open);
            }
            let remaining = deadline.checked_duration_since(Instant::now())?;
            state = self.available.wait_timeout(state, remaining).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns the number of working connections.
    pub(super) fn connections(&self) -> usize {
        self.lock().connections
    }

    fn replace(&self, open: impl FnOnce(&SocketHandle) -> io::Result<Arc<UnixStream>>) -> Option<PooledConnection<'_>> {
        let opened = self.open_connection(open);
        let mut state = self.lock();
        match opened {
            Ok(stream) => {
                state.connections += 1;
                Some(PooledConnection { pool: self, stream: Some(stream) })
            }
            Err(error) => {
                state.to_replace += 1;
                warn(format_args!("cannot open a connection to the engine: {error}"));
                None
            }
        }
    }

    fn open_connection(
        &self,
        open: impl FnOnce(&SocketHandle) -> io::Result<Arc<UnixStream>>,
    ) -> io::Result<Arc<UnixStream>> {
        let _guard = self.open_lock.lock().unwrap_or_else(PoisonError::into_inner);
        open(&self.socket)
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PooledConnection<'_> {
    pub(super) fn stream(&self) -> &Arc<UnixStream> {
        self.stream.as_ref().expect("a connection in use has its stream until it is released")
    }

    /// Returns the connection to the pool. Its response must have been read completely.
    pub(super) fn release(mut self) {
        self.pool.lock().idle.extend(self.stream.take());
        self.pool.available.notify_one();
    }
}

impl Drop for PooledConnection<'_> {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            // Unblocks a helper thread that still writes a request or a response.
            let _ = stream.shutdown(Shutdown::Both);
            let mut state = self.pool.lock();
            state.connections -= 1;
            state.to_replace += 1;
            drop(state);
            self.pool.available.notify_one();
        }
    }
}
