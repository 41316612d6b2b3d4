//! How long moving bytes may take: a deadline that moves on as long as the other end keeps a rate.
//! Bytes that moved fast earn no long pause: the deadline is never further away than at the start.

use std::time::{Duration, Instant};

/// An allowance, and a rate that earns it anew.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    allowance: Duration,
    min_rate: u64,
    deadline: Instant,
}

impl Pace {
    /// From now, `allowance`, and a second more for every `min_rate` bytes.
    pub(super) fn new(allowance: Duration, min_rate: u64) -> Self {
        Self { allowance, min_rate: min_rate.max(1), deadline: after(Instant::now(), allowance) }
    }

    /// Until when the next bytes must move.
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// So many bytes moved now.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.moved_at(Instant::now(), bytes);
    }

    fn moved_at(&mut self, now: Instant, bytes: usize) {
        let nanos =
            u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(1_000_000_000) / u128::from(self.min_rate);
        let earned = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.deadline = after(self.deadline, earned).min(after(now, self.allowance));
    }
}

/// `time` after `start`. What is too far away for the clock is a year away.
pub(super) fn after(start: Instant, time: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    start + time.min(YEAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start_of(pace: &Pace) -> Instant {
        pace.deadline().checked_sub(pace.allowance).unwrap()
    }

    #[test]
    fn who_keeps_the_rate_is_never_late_and_who_does_not_runs_out_of_time() {
        let mut pace = Pace::new(30 * SECOND, 240);
        let start = start_of(&pace);
        for second in 1..1000 {
            assert!(pace.deadline() > start + second * SECOND);
            pace.moved_at(start + second * SECOND, 240);
        }
        let mut slow = Pace::new(30 * SECOND, 240);
        let start = start_of(&slow);
        let late = (1..1000).find(|&second| {
            slow.moved_at(start + second * SECOND, 120);
            slow.deadline() <= start + second * SECOND
        });
        assert_eq!(late, Some(60));
    }

    #[test]
    fn bytes_that_moved_at_once_earn_no_longer_pause_than_the_allowance() {
        let mut pace = Pace::new(30 * SECOND, 240);
        let start = start_of(&pace);
        pace.moved_at(start + SECOND, 1 << 30);
        assert_eq!(pace.deadline(), start + 31 * SECOND);
    }

    #[test]
    fn no_settings_overflow_the_clock() {
        Pace::new(Duration::MAX, 0).moved(usize::MAX);
    }
}
