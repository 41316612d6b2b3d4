//! A counting semaphore with a timeout. A caller must not hold a lock while it acquires a permit.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A semaphore with a fixed number of permits.
pub(super) struct Semaphore {
    permits: usize,
    timeout: Duration,
    in_use: Mutex<usize>,
    released: Condvar,
}

/// A permit, which is released when it is dropped.
pub(super) struct Permit<'a>(&'a Semaphore);

impl Semaphore {
    /// Creates a semaphore. `timeout` is the maximum time that [`Semaphore::acquire`] blocks.
    pub(super) fn new(permits: usize, timeout: Duration) -> Self {
        Self { permits, timeout, in_use: Mutex::default(), released: Condvar::new() }
    }

    /// Blocks until a permit is free and returns it. `None`: the timeout has expired.
    pub(super) fn acquire(&self) -> Option<Permit<'_>> {
        let mut in_use = self.in_use.lock();
        self.released.wait_while_for(&mut in_use, |in_use| *in_use == self.permits, self.timeout);
        if *in_use == self.permits {
            return None;
        }
        *in_use += 1;
        Some(Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.in_use.lock() -= 1;
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
        let (semaphore, active, max_active) =
            (Semaphore::new(4, Duration::from_secs(60)), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let permit = semaphore.acquire().unwrap();
                    max_active.fetch_max(active.fetch_add(1, SeqCst) + 1, SeqCst);
                    thread::yield_now();
                    active.fetch_sub(1, SeqCst);
                    drop(permit);
                });
            }
        });
        assert!(max_active.into_inner() <= 4);
    }
}
