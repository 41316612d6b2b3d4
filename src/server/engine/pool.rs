//! The connections to the engine: how to reach it, which are free, and one new for each that broke.
//! New ones are opened one at a time.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use crate::server::warn;

/// How long to wait for a free connection.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(10);

/// The engine's socket, reachable after its name is gone.
pub(super) struct SocketHandle(OwnedFd);

/// Connections, lent to one request at a time.
pub(super) struct Pool {
    state: Mutex<PoolState>,
    available: Condvar,
    open_lock: Mutex<()>,
    socket: SocketHandle,
}

#[derive(Default)]
struct PoolState {
    idle: Vec<Arc<UnixStream>>,
    /// All that work, lent ones too.
    connections: usize,
    /// How many broke and are not replaced yet.
    to_replace: usize,
}

/// A connection on loan. One that is not given back counts as broken.
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
    /// Wakes tiny_http's acceptor, which notices only then that it should end: it knows its socket by name.
    fn drop(&mut self) {
        let _ = self.connect();
    }
}

impl Pool {
    pub(super) fn new(way: SocketHandle) -> Self {
        Self { state: Mutex::default(), available: Condvar::new(), open_lock: Mutex::new(()), socket: way }
    }

    /// Opens one more.
    pub(super) fn add(&self, open: impl FnOnce(&SocketHandle) -> io::Result<Arc<UnixStream>>) -> io::Result<()> {
        let line = self.open_connection(open)?;
        let mut state = self.lock();
        state.connections += 1;
        state.idle.push(line);
        Ok(())
    }

    /// A free connection, `None` if none comes free in time. One that broke is replaced with `open` first.
    pub(super) fn checkout(
        &self,
        open: impl FnOnce(&SocketHandle) -> io::Result<Arc<UnixStream>>,
    ) -> Option<PooledConnection<'_>> {
        let deadline = Instant::now() + CHECKOUT_TIMEOUT;
        let mut state = self.lock();
        loop {
            if let Some(line) = state.idle.pop() {
                return Some(PooledConnection { pool: self, stream: Some(line) });
            }
            if state.to_replace > 0 {
                state.to_replace -= 1;
                drop(state);
                return self.replace(open);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.available.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many connections work.
    pub(super) fn connections(&self) -> usize {
        self.lock().connections
    }

    fn replace(&self, open: impl FnOnce(&SocketHandle) -> io::Result<Arc<UnixStream>>) -> Option<PooledConnection<'_>> {
        let opened = self.open_connection(open);
        let mut state = self.lock();
        match opened {
            Ok(line) => {
                state.connections += 1;
                Some(PooledConnection { pool: self, stream: Some(line) })
            }
            Err(error) => {
                state.to_replace += 1;
                warn(format_args!("no new connection to the engine: {error}"));
                None
            }
        }
    }

    fn open_connection(
        &self,
        open: impl FnOnce(&SocketHandle) -> io::Result<Arc<UnixStream>>,
    ) -> io::Result<Arc<UnixStream>> {
        let _one_at_a_time = self.open_lock.lock().unwrap_or_else(PoisonError::into_inner);
        open(&self.socket)
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PooledConnection<'_> {
    pub(super) fn stream(&self) -> &Arc<UnixStream> {
        self.stream.as_ref().expect("a lease has its connection until it is given back")
    }

    /// The exchange on it is over, the next may begin.
    pub(super) fn release(mut self) {
        self.pool.lock().idle.extend(self.stream.take());
        self.pool.available.notify_one();
    }
}

impl Drop for PooledConnection<'_> {
    fn drop(&mut self) {
        if let Some(line) = &self.stream {
            // Who still writes to it for this request must not wait for ever.
            let _ = line.shutdown(Shutdown::Both);
            let mut state = self.pool.lock();
            state.connections -= 1;
            state.to_replace += 1;
            drop(state);
            self.pool.available.notify_one();
        }
    }
}
