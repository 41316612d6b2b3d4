//! The bytes that bodies may take in memory, all connections together. What does not fit is refused, not grown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A bound on bytes, shared by all who hold some.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    total: u64,
    used: Arc<AtomicU64>,
}

/// Bytes that are accounted for until this goes.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(total: u64) -> Self {
        Self { total, used: Arc::default() }
    }

    /// Nothing yet; it grows.
    pub(super) fn reserve(&self) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0 }
    }
}

impl Reservation {
    /// Accounts for `more` bytes and tells whether there was room.
    ///
    /// What is larger than everything gets its turn when nobody else holds any: else it could never be sent.
    #[must_use]
    pub(super) fn try_grow(&mut self, more: u64) -> bool {
        let fits = |held: u64| {
            let others = held - self.bytes;
            let sum = held.checked_add(more)?;
            (sum <= self.budget.total || others == 0).then_some(sum)
        };
        let taken = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if taken {
            self.bytes += more;
        }
        taken
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_bytes_can_be_reserved_again_and_no_more() {
        let budget = Budget::new(10);
        let mut first = budget.reserve();
        let mut second = budget.reserve();
        assert!(first.try_grow(6));
        assert!(!second.try_grow(5));
        assert!(second.try_grow(4));
        drop(first);
        assert!(second.try_grow(6));
    }

    #[test]
    fn a_reservation_above_the_total_succeeds_only_while_nothing_else_is_reserved() {
        let budget = Budget::new(10);
        let mut giant = budget.reserve();
        let mut small = budget.reserve();
        assert!(small.try_grow(1));
        assert!(!giant.try_grow(11));
        drop(small);
        assert!(giant.try_grow(11));
        assert!(!budget.reserve().try_grow(1));
    }
}
