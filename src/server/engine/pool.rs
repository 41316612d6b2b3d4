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

use crate::server::note;

/// How long to wait for a free connection.
const WAIT: Duration = Duration::from_secs(10);

/// The engine's socket, reachable after its name is gone.
pub(super) struct Way(OwnedFd);

/// Connections, lent to one request at a time.
pub(super) struct Pool {
    state: Mutex<State>,
    free: Condvar,
    opening: Mutex<()>,
    way: Way,
}

#[derive(Default)]
struct State {
    idle: Vec<Arc<UnixStream>>,
    /// All that work, lent ones too.
    lines: usize,
    /// How many broke and are not replaced yet.
    missing: usize,
}

/// A connection on loan. One that is not given back counts as broken.
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    line: Option<Arc<UnixStream>>,
}

impl Way {
    pub(super) fn to(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?))
    }

    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

impl Drop for Way {
    /// Wakes tiny_http's acceptor, which notices only then that it should end: it knows its socket by name.
    fn drop(&mut self) {
        let _ = self.connect();
    }
}

impl Pool {
    pub(super) fn new(way: Way) -> Self {
        Self { state: Mutex::default(), free: Condvar::new(), opening: Mutex::new(()), way }
    }

    /// Opens one more.
    pub(super) fn add(&self, open: impl FnOnce(&Way) -> io::Result<Arc<UnixStream>>) -> io::Result<()> {
        let line = self.open(open)?;
        let mut state = self.lock();
        state.lines += 1;
        state.idle.push(line);
        Ok(())
    }

    /// A free connection, `None` if none comes free in time. One that broke is replaced with `open` first.
    pub(super) fn lease(&self, open: impl FnOnce(&Way) -> io::Result<Arc<UnixStream>>) -> Option<Lease<'_>> {
        let deadline = Instant::now() + WAIT;
        let mut state = self.lock();
        loop {
            if let Some(line) = state.idle.pop() {
                return Some(Lease { pool: self, line: Some(line) });
            }
            if state.missing > 0 {
                state.missing -= 1;
                drop(state);
                return self.replace(open);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.free.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many connections work.
    pub(super) fn lines(&self) -> usize {
        self.lock().lines
    }

    fn replace(&self, open: impl FnOnce(&Way) -> io::Result<Arc<UnixStream>>) -> Option<Lease<'_>> {
        let opened = self.open(open);
        let mut state = self.lock();
        match opened {
            Ok(line) => {
                state.lines += 1;
                Some(Lease { pool: self, line: Some(line) })
            }
            Err(error) => {
                state.missing += 1;
                note(format_args!("no new connection to the engine: {error}"));
                None
            }
        }
    }

    fn open(&self, open: impl FnOnce(&Way) -> io::Result<Arc<UnixStream>>) -> io::Result<Arc<UnixStream>> {
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        open(&self.way)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease<'_> {
    pub(super) fn line(&self) -> &Arc<UnixStream> {
        self.line.as_ref().expect("a lease has its connection until it is given back")
    }

    /// The exchange on it is over, the next may begin.
    pub(super) fn give_back(mut self) {
        self.pool.lock().idle.extend(self.line.take());
        self.pool.free.notify_one();
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            // Who still writes to it for this request must not wait for ever.
            let _ = line.shutdown(Shutdown::Both);
            let mut state = self.pool.lock();
            state.lines -= 1;
            state.missing += 1;
            drop(state);
            self.pool.free.notify_one();
        }
    }
}
