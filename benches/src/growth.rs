//! Compares the speed of `put --lines` and `get` in a large store with that in a small one.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use sha_api::digest::Digest;

use crate::Environment;
use crate::cli::lines;
use crate::messages::{Random, text};
use crate::process::peak;
use crate::rounds::{rounds, scaled, seconds};
use crate::store::size_of_count;
use crate::table::{Goal, Row, Table};

/// Final size of the store, as a multiple of its first size.
const GROWTH_FACTOR: u64 = 5;
const GETS: u64 = 50;
/// Pause before each part. A hypervisor may reclaim freed memory, such as that of the previous store, within about two
/// seconds, and returns it slowly. After the pause, every part starts without that memory.
const PAUSE: Duration = Duration::from_secs(3);

pub fn run(env: &Environment) {
    let mut table = Table::new("growth", "make bench", env);
    let count = scaled(1_000_000);
    let dir = env.scratch();
    let parts: Vec<_> = (0..GROWTH_FACTOR).map(|part| lines(dir.path(), part, count)).collect();
    let [mut small, mut large, mut memory, mut small_get, mut large_get] = [const { Vec::new() }; 5];
    for _ in 0..rounds() {
        let dir = env.scratch();
        let store = dir.path().join("store");
        for (part, file) in parts.iter().enumerate() {
            std::thread::sleep(PAUSE);
            let mut most = 0;
            let rate = count as f64 / seconds(|| most = put(env, &store, file));
            if part == 0 {
                small.push(rate);
                small_get.push(get(env, &store, 1, count));
            } else if part + 1 == parts.len() {
                large.push(rate);
                memory.push(most as f64 / 1e6);
                large_get.push(get(env, &store, GROWTH_FACTOR, count));
            }
        }
    }
    let (first, all) = (size_of_count(count), size_of_count(count * GROWTH_FACTOR));
    let work = format!("`put --lines` until {all} of 200 B are stored");
    table.add(Row::ratio(&work, "/s", large, &format!("until {first}"), small, Goal::AtLeast(0.8)));
    table.add(Row::single("its peak memory", "MB", memory, Goal::AtMost(300.0)));
    let work = format!("`get` of one of {all}");
    table.add(Row::ratio(&work, "ms", large_get, &format!("of {first}"), small_get, Goal::AtMost(2.0)));
    table.save();
}

/// Runs `put --lines` and returns its peak memory in bytes.
fn put(env: &Environment, store: &Path, file: &Path) -> u64 {
    let mut command = env.command(store);
    command.args(["put", "--lines"]).stdin(File::open(file).unwrap()).stdout(Stdio::null());
    peak(&mut command.spawn().unwrap())
}

/// Returns the mean duration in milliseconds of a `get` from a store of `parts` parts.
fn get(env: &Environment, store: &Path, parts: u64, count: u64) -> f64 {
    let mut random = Random(7);
    let mut one = || {
        let (part, number) = (random.below(parts as usize) as u64, random.below(count as usize) as u64);
        let digest = Digest::compute(text(200, part, number).as_bytes()).to_string();
        assert!(env.command(store).args(["get", &digest]).stdout(Stdio::null()).status().unwrap().success());
    };
    // The first command replays the end of the log, as the next put would, so it is not measured.
    one();
    seconds(|| (0..GETS).for_each(|_| one())) * 1e3 / GETS as f64
}
