//! Pool of connections to the engine. Each connection is used by one request at a time.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Maximum time to wait for an idle connection.
const TAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections to the engine.
pub(super) struct Pool {
    state: Mutex<PoolState>,
    changed: Condvar,
}

struct PoolState {
    idle: Vec<UnixStream>,
    /// Number of working connections, including those in use.
    connections: usize,
}

impl Pool {
    pub(super) const fn new(idle: Vec<UnixStream>) -> Self {
        let connections = idle.len();
        Self { state: Mutex::new(PoolState { idle, connections }), changed: Condvar::new() }
    }

    /// Returns an idle connection, or blocks until there is one. Returns `None` after [`TAKE_TIMEOUT`], or if no
    /// connection works.
    pub(super) fn take(&self) -> Option<UnixStream> {
        let deadline = Instant::now() + TAKE_TIMEOUT;
        let mut state = self.state.lock();
        while state.idle.is_empty() && state.connections > 0 {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.idle.pop()
    }

    /// Returns a connection whose response was read completely.
    pub(super) fn put_back(&self, connection: UnixStream) {
        self.state.lock().idle.push(connection);
        self.changed.notify_one();
    }

    /// Closes a connection that failed.
    pub(super) fn discard(&self, connection: UnixStream) {
        drop(connection);
        self.state.lock().connections -= 1;
        self.changed.notify_all();
    }

    /// Returns the number of working connections.
    pub(super) fn connections(&self) -> usize {
        self.state.lock().connections
    }
}
