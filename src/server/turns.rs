//! Long messages are read a few at a time: what a reader takes beside its reply is not in the budget, and may be many
//! times the message. Whoever waits holds nothing that another needs.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Reads longer than this wait for their turn.
pub(super) const LONG: u64 = 1 << 20;
/// How many of them go on at a time.
const AT_A_TIME: usize = 4;
/// How long to wait for a turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Turns at reading what is long.
#[derive(Default)]
pub(super) struct Turns {
    taken: Mutex<usize>,
    free: Condvar,
}

/// A turn, until this goes.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// The next turn, `None` if none comes in time.
    pub(super) fn take(&self) -> Option<Turn<'_>> {
        let deadline = Instant::now() + PATIENCE;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken == AT_A_TIME {
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
        let (turns, now, most) = (Turns::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..AT_A_TIME * 4 {
                scope.spawn(|| {
                    let turn = turns.take().unwrap();
                    most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                    thread::yield_now();
                    now.fetch_sub(1, SeqCst);
                    drop(turn);
                });
            }
        });
        assert!(most.into_inner() <= AT_A_TIME);
    }
}
