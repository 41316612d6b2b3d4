//! The bytes that bodies may take in memory, all connections together. What does not fit is refused, not grown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A bound on bytes, shared by all who hold some.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    total: u64,
    held: Arc<AtomicU64>,
}

/// Bytes that are accounted for until this goes.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(total: u64) -> Self {
        Self { total, held: Arc::default() }
    }

    /// Nothing yet; it grows.
    pub(super) fn nothing(&self) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0 }
    }
}

impl Reservation {
    /// Accounts for `more` bytes and tells whether there was room.
    ///
    /// What is larger than everything gets its turn when nobody else holds any: else it could never be sent.
    #[must_use]
    pub(super) fn grow(&mut self, more: u64) -> bool {
        let fits = |held: u64| {
            let others = held - self.bytes;
            let sum = held.checked_add(more)?;
            (sum <= self.budget.total || others == 0).then_some(sum)
        };
        let taken = self.budget.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if taken {
            self.bytes += more;
        }
        taken
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more_than_that() {
        let budget = Budget::new(10);
        let mut first = budget.nothing();
        let mut second = budget.nothing();
        assert!(first.grow(6));
        assert!(!second.grow(5));
        assert!(second.grow(4));
        drop(first);
        assert!(second.grow(6));
    }

    #[test]
    fn one_that_is_larger_than_everything_gets_its_turn_alone() {
        let budget = Budget::new(10);
        let mut giant = budget.nothing();
        let mut small = budget.nothing();
        assert!(small.grow(1));
        assert!(!giant.grow(11));
        drop(small);
        assert!(giant.grow(11));
        assert!(!budget.nothing().grow(1));
    }
}
