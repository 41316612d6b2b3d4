//! Turns at what only a few may do at a time. Whoever waits holds nothing that another needs.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A few turns.
pub(super) struct Turns {
    at_a_time: usize,
    patience: Duration,
    taken: Mutex<usize>,
    free: Condvar,
}

/// A turn, until this goes.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// So many at a time, each waited for so long.
    pub(super) fn new(at_a_time: usize, patience: Duration) -> Self {
        Self { at_a_time, patience, taken: Mutex::default(), free: Condvar::new() }
    }

    /// The next turn, `None` if none comes in time.
    pub(super) fn take(&self) -> Option<Turn<'_>> {
        let deadline = Instant::now() + self.patience;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken == self.at_a_time {
            let left = deadline.checked_duration_since(Instant::now())?;
            taken = self.free.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken += 1;
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread;

    use super::*;

    #[test]
    fn everyone_gets_a_turn_and_never_too_many_at_once() {
        let (turns, now, most) = (Turns::new(4, Duration::from_secs(60)), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let turn = turns.take().unwrap();
                    most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                    thread::yield_now();
                    now.fetch_sub(1, SeqCst);
                    drop(turn);
                });
            }
        });
        assert!(most.into_inner() <= 4);
    }
}
