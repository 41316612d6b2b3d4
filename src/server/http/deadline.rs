//! How long moving bytes may take: a deadline that moves on as long as the other end keeps a rate.
//! Bytes that moved fast earn no long pause: the deadline is never further away than at the start.

use std::time::{Duration, Instant};

/// An allowance, and a rate that earns it anew.
#[derive(Debug, Clone, Copy)]
pub(super) struct RateDeadline {
    allowance: Duration,
    min_rate: u64,
    deadline: Instant,
}

impl RateDeadline {
    /// From now, `allowance`, and a second more for every `min_rate` bytes.
    pub(super) fn new(allowance: Duration, min_rate: u64) -> Self {
        Self { allowance, min_rate: min_rate.max(1), deadline: deadline_after(Instant::now(), allowance) }
    }

    /// Until when the next bytes must move.
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// So many bytes moved now.
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

/// `time` after `start`. What is too far away for the clock is a year away.
pub(super) fn deadline_after(start: Instant, time: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    start + time.min(YEAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start_time(pace: &RateDeadline) -> Instant {
        pace.deadline().checked_sub(pace.allowance).unwrap()
    }

    #[test]
    fn a_peer_at_the_minimum_rate_never_times_out_and_a_slower_one_does() {
        let mut pace = RateDeadline::new(30 * SECOND, 240);
        let start = start_time(&pace);
        for second in 1..1000 {
            assert!(pace.deadline() > start + second * SECOND);
            pace.record_progress_at(start + second * SECOND, 240);
        }
        let mut slow = RateDeadline::new(30 * SECOND, 240);
        let start = start_time(&slow);
        let late = (1..1000).find(|&second| {
            slow.record_progress_at(start + second * SECOND, 120);
            slow.deadline() <= start + second * SECOND
        });
        assert_eq!(late, Some(60));
    }

    #[test]
    fn a_burst_extends_the_deadline_by_no_more_than_the_allowance() {
        let mut pace = RateDeadline::new(30 * SECOND, 240);
        let start = start_time(&pace);
        pace.record_progress_at(start + SECOND, 1 << 30);
        assert_eq!(pace.deadline(), start + 31 * SECOND);
    }

    #[test]
    fn extreme_settings_do_not_overflow_the_deadline() {
        RateDeadline::new(Duration::MAX, 0).record_progress(usize::MAX);
    }
}
