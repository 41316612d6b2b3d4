//! The schedule of compactions: when the compaction thread looks for segments, and when it stops.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Maximum time for compactions while a store is closed in which something was removed.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// Requests to the compaction thread.
#[derive(Debug, Default)]
pub struct Compactor {
    state: Mutex<State>,
    changed: Condvar,
    /// Held during a compaction, so that one runs at a time.
    running: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Something was removed since the last check.
    requested: bool,
    /// Something was removed since the store was opened.
    had_removal: bool,
    closed_at: Option<Instant>,
}

impl Compactor {
    /// Requests a check after a removal.
    pub fn request(&self) {
        let mut state = self.state.lock();
        state.requested = true;
        state.had_removal = true;
        self.changed.notify_all();
    }

    /// Ends the compaction thread. After a removal, due compactions continue for up to [`CLOSE_GRACE`].
    pub fn close(&self) {
        self.state.lock().closed_at = Some(Instant::now());
        self.changed.notify_all();
    }

    /// Blocks for up to `pause` until a check is requested. Returns `false` if the thread must end.
    pub fn wait_for_request(&self, pause: Duration) -> bool {
        let mut state = self.state.lock();
        let is_idle = |state: &mut State| !state.requested && state.closed_at.is_none();
        self.changed.wait_while_for(&mut state, is_idle, pause);
        if state.closed_at.is_some() && !state.requested {
            return false;
        }
        state.requested = false;
        true
    }

    /// Returns whether something was removed since the store was opened.
    pub fn had_removal(&self) -> bool {
        self.state.lock().had_removal
    }

    /// Returns whether a running compaction must stop, because the store is being closed.
    pub fn must_stop(&self) -> bool {
        let state = self.state.lock();
        state.closed_at.is_some_and(|closed| !state.had_removal || closed.elapsed() > CLOSE_GRACE)
    }

    /// Blocks until no compaction runs. No other one starts until the guard is dropped.
    pub fn lock_running(&self) -> MutexGuard<'_, ()> {
        self.running.lock()
    }
}
