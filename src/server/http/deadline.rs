//! Deadlines of network I/O that enforce a minimum transfer rate. Progress extends a deadline, but never beyond the
//! allowance from now, so a fast burst does not earn a long pause.

use std::time::{Duration, Instant};

/// A deadline that progress at a minimum rate extends.
#[derive(Debug, Clone, Copy)]
pub(super) struct RateDeadline {
    allowance: Duration,
    min_rate: u64,
    deadline: Instant,
}

impl RateDeadline {
    /// Creates a deadline `allowance` from now. Each `min_rate` bytes of progress extend the deadline by one second.
    pub(super) fn new(allowance: Duration, min_rate: u64) -> Self {
        Self { allowance, min_rate: min_rate.max(1), deadline: deadline_after(Instant::now(), allowance) }
    }

    /// Returns the time until which the next bytes must be transferred.
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Extends the deadline for `bytes` bytes that were transferred since the last call.
    pub(super) fn record_progress(&mut self, bytes: usize) {
        self.record_progress_at(Instant::now(), bytes);
    }

    fn record_progress_at(&mut self, now: Instant, bytes: usize) {
        let nanos =
            u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(1_000_000_000) / u128::from(self.min_rate);
        let earned = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.deadline = deadline_after(self.deadline, earned).min(deadline_after(now, self.allowance));
    }
}

/// Returns `start` plus `duration`, which is limited to one year because the clock could overflow.
pub(super) fn deadline_after(start: Instant, duration: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    start + duration.min(YEAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start_time(rate_deadline: &RateDeadline) -> Instant {
        rate_deadline.deadline().checked_sub(rate_deadline.allowance).unwrap()
    }

    #[test]
    fn a_peer_at_the_minimum_rate_never_times_out_and_a_slower_one_does() {
        let mut rate_deadline = RateDeadline::new(30 * SECOND, 240);
        let start = start_time(&rate_deadline);
        for second in 1..1000 {
            assert!(rate_deadline.deadline() > start + second * SECOND);
            rate_deadline.record_progress_at(start + second * SECOND, 240);
        }
        let mut slow = RateDeadline::new(30 * SECOND, 240);
        let start = start_time(&slow);
        let timed_out_at = (1..1000).find(|&second| {
            slow.record_progress_at(start + second * SECOND, 120);
            slow.deadline() <= start + second * SECOND
        });
        assert_eq!(timed_out_at, Some(60));
    }

    #[test]
    fn a_burst_extends_the_deadline_by_no_more_than_the_allowance() {
        let mut rate_deadline = RateDeadline::new(30 * SECOND, 240);
        let start = start_time(&rate_deadline);
        rate_deadline.record_progress_at(start + SECOND, 1 << 30);
        assert_eq!(rate_deadline.deadline(), start + 31 * SECOND);
    }

    #[test]
    fn extreme_settings_do_not_overflow_the_deadline() {
        RateDeadline::new(Duration::MAX, 0).record_progress(usize::MAX);
    }
}
