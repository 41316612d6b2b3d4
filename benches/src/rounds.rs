//! Contestants run in turn, several rounds, so that what else the machine does hits all of them; medians are kept.

use std::time::{Duration, Instant};

/// Whether to be done in minutes: then the figures say that it works, not how fast.
pub fn quick() -> bool {
    std::env::var_os("BENCH_QUICK").is_some_and(|text| !text.is_empty())
}

/// The number in the variable `BENCH_…`, else the one for being quick or the other.
fn setting(name: &str, default: u64, when_quick: u64) -> u64 {
    let given = std::env::var(format!("BENCH_{name}")).ok().filter(|text| !text.is_empty());
    let default = if quick() { when_quick } else { default };
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("BENCH_{name}={text} is no number")))
}

/// How often everything is measured.
pub fn rounds() -> u64 {
    setting("ROUNDS", 5, 1)
}

/// For how long each is measured each time.
pub fn time() -> Duration {
    Duration::from_millis(setting("MILLIS", 2000, 300))
}

/// So much of what is asked for; `BENCH_PERCENT` makes all sizes smaller.
pub fn sized(full: u64) -> u64 {
    (full * setting("PERCENT", 100, 1) / 100).max(100)
}

/// Runs each contestant once a round; who begins changes. Answers with the figures of each.
pub fn in_turn<const N: usize>(contestants: [&mut dyn FnMut() -> f64; N]) -> [Vec<f64>; N] {
    let mut figures = [const { Vec::new() }; N];
    for round in 0..rounds() as usize {
        for turn in 0..N {
            let who = (round + turn) % N;
            figures[who].push(contestants[who]());
        }
    }
    figures
}

/// The middle one.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Calls `work` over and over for [`time`] on so many threads, with the number of the thread and of the call; answers
/// with calls a second.
pub fn rate(threads: u64, work: impl Fn(u64, u64) + Sync) -> f64 {
    let (work, limit, started) = (&work, time(), Instant::now());
    let count = |thread| {
        let mut count = 0;
        while started.elapsed() < limit {
            work(thread, count);
            count += 1;
        }
        count
    };
    let total: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || count(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    total as f64 / started.elapsed().as_secs_f64()
}

/// Calls `work` over and over for [`time`]; answers with the middle of the microseconds that a call takes.
pub fn latency(mut work: impl FnMut(u64)) -> f64 {
    let started = Instant::now();
    let mut each = Vec::new();
    while started.elapsed() < time() {
        each.push(seconds(|| work(each.len() as u64)) * 1e6);
    }
    median(&each)
}

/// Seconds that `work` takes.
pub fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}
