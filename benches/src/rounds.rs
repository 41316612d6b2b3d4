//! Runs the candidates alternately for several rounds, so that other load on the machine affects all of them. The
//! result is the median of the rounds.

use std::time::{Duration, Instant};

/// Returns whether `BENCH_QUICK` is set. A quick run only checks that the benchmarks work; its figures have no meaning.
pub fn is_quick() -> bool {
    std::env::var_os("BENCH_QUICK").is_some_and(|text| !text.is_empty())
}

/// Returns the number in the variable `BENCH_…`, else `when_quick` or `default`. Panics if it is not a number.
fn setting(name: &str, default: u64, when_quick: u64) -> u64 {
    let given = std::env::var(format!("BENCH_{name}")).ok().filter(|text| !text.is_empty());
    let default = if is_quick() { when_quick } else { default };
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("BENCH_{name}={text} is not a number")))
}

/// Returns the number of rounds (`BENCH_ROUNDS`).
pub fn rounds() -> u64 {
    setting("ROUNDS", 5, 1)
}

/// Returns the duration of a measurement that is limited by time (`BENCH_MILLIS`).
pub fn time() -> Duration {
    Duration::from_millis(setting("MILLIS", 2000, 300))
}

/// Returns `BENCH_PERCENT` percent of `full`, but at least 100.
pub fn scaled(full: u64) -> u64 {
    (full * setting("PERCENT", 100, 1) / 100).max(100)
}

/// Runs each candidate once per round and returns the figures of each. Each round starts with another candidate.
pub fn run_alternately<const N: usize>(candidates: [&mut dyn FnMut() -> f64; N]) -> [Vec<f64>; N] {
    let mut figures = [const { Vec::new() }; N];
    for round in 0..rounds() as usize {
        for turn in 0..N {
            let index = (round + turn) % N;
            figures[index].push(candidates[index]());
        }
    }
    figures
}

/// Returns the median.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Calls `work` repeatedly for [`time`] on `threads` threads, with the number of the thread and of the call. Returns
/// calls per second.
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

/// Calls `work` repeatedly for [`time`]. Returns the median duration of a call in microseconds.
pub fn latency(mut work: impl FnMut(u64)) -> f64 {
    let started = Instant::now();
    let mut each = Vec::new();
    while started.elapsed() < time() {
        each.push(seconds(|| work(each.len() as u64)) * 1e6);
    }
    median(&each)
}

/// Runs `work` and returns its duration in seconds.
pub fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}
