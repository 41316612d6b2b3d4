//! How long moving bytes may take: a deadline that moves on as long as the other end keeps a rate.

use std::time::{Duration, Instant};

/// A start, an allowance, and a rate that earns more time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    start: Instant,
    allowance: Duration,
    min_rate: u64,
}

impl Pace {
    /// From now, `allowance`, and a second more for every `min_rate` bytes.
    pub(super) fn new(allowance: Duration, min_rate: u64) -> Self {
        Self { start: Instant::now(), allowance, min_rate: min_rate.max(1) }
    }

    /// Until when the next bytes must move, when `moved` have.
    pub(super) fn deadline(&self, moved: u64) -> Instant {
        after(self.start, self.allowance.saturating_add(Duration::from_secs(moved / self.min_rate)))
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

    #[test]
    fn the_deadline_moves_by_a_second_for_every_min_rate_bytes() {
        let pace = Pace::new(Duration::from_secs(30), 240);
        let start = pace.deadline(0);
        assert_eq!(pace.deadline(239), start);
        assert_eq!(pace.deadline(240) - start, Duration::from_secs(1));
        assert_eq!(pace.deadline(2400) - start, Duration::from_secs(10));
    }

    #[test]
    fn no_settings_overflow_the_clock() {
        let _ = Pace::new(Duration::MAX, 0).deadline(u64::MAX);
    }
}
