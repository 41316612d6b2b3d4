//! Turns at what only a few may do at a time. Whoever waits holds nothing that another needs.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A few turns.
pub(super) struct Semaphore {
    permits: usize,
    timeout: Duration,
    in_use: Mutex<usize>,
    released: Condvar,
}

/// A turn, until this goes.
pub(super) struct Permit<'a>(&'a Semaphore);

impl Semaphore {
    /// So many at a time, each waited for so long.
    pub(super) fn new(at_a_time: usize, patience: Duration) -> Self {
        Self { permits: at_a_time, timeout: patience, in_use: Mutex::default(), released: Condvar::new() }
    }

    /// The next turn, `None` if none comes in time.
    pub(super) fn acquire(&self) -> Option<Permit<'_>> {
        let deadline = Instant::now() + self.timeout;
        let mut taken = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken == self.permits {
            let left = deadline.checked_duration_since(Instant::now())?;
            taken = self.released.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken += 1;
        Some(Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.in_use.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.released.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread;

    use super::*;

    #[test]
    fn every_thread_gets_a_permit_and_never_more_than_the_limit_at_once() {
        let (turns, now, most) = (Semaphore::new(4, Duration::from_secs(60)), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let turn = turns.acquire().unwrap();
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
