//! Memory budget of request and response bodies, shared by all connections. A reservation that does not fit fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A limit on the bytes that all reservations hold together.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    total: u64,
    used: Arc<AtomicU64>,
}

/// Bytes reserved from a budget. Dropping it releases them.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(total: u64) -> Self {
        Self { total, used: Arc::default() }
    }

    /// Returns an empty reservation.
    pub(super) fn reserve(&self) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0 }
    }
}

impl Reservation {
    /// Reserves `more` bytes. Returns whether they fit into the budget.
    ///
    /// A reservation above the whole budget succeeds while no other reservation holds bytes. Otherwise such a body
    /// could never be sent.
    #[must_use]
    pub(super) fn try_grow(&mut self, more: u64) -> bool {
        let grown = |used: u64| {
            let others = used - self.bytes;
            let sum = used.checked_add(more)?;
            (sum <= self.budget.total || others == 0).then_some(sum)
        };
        let fits = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok();
        if fits {
            self.bytes += more;
        }
        fits
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
        let mut large = budget.reserve();
        let mut small = budget.reserve();
        assert!(small.try_grow(1));
        assert!(!large.try_grow(11));
        drop(small);
        assert!(large.try_grow(11));
        assert!(!budget.reserve().try_grow(1));
    }
}
