//! `put --lines` against itself as the store grows.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use sha_api::digest::Digest;

use crate::Place;
use crate::cli::lines;
use crate::messages::{Random, text};
use crate::process::peak;
use crate::rounds::{rounds, seconds, sized};
use crate::store::size_of_count;
use crate::table::{Goal, Row, Table};

/// How often it is as large at the end as at first.
const TIMES: u64 = 5;
const GETS: u64 = 50;
/// Before each part. A host may take back memory that was freed, as by the removal of the store before, within about
/// two seconds, and gives it out again but slowly: so no part has any that was not taken back.
const REST: Duration = Duration::from_secs(3);

pub fn run(place: &Place) {
    let mut table = Table::new("growth", "make bench", place);
    let count = sized(1_000_000);
    let dir = place.scratch();
    let parts: Vec<_> = (0..TIMES).map(|part| lines(dir.path(), part, count)).collect();
    let [mut small, mut large, mut memory, mut small_get, mut large_get] = [const { Vec::new() }; 5];
    for _ in 0..rounds() {
        let dir = place.scratch();
        let store = dir.path().join("store");
        for (part, file) in parts.iter().enumerate() {
            std::thread::sleep(REST);
            let mut most = 0;
            let rate = count as f64 / seconds(|| most = put(place, &store, file));
            if part == 0 {
                small.push(rate);
                small_get.push(get(place, &store, 1, count));
            } else if part + 1 == parts.len() {
                large.push(rate);
                memory.push(most as f64 / 1e6);
                large_get.push(get(place, &store, TIMES, count));
            }
        }
    }
    let (first, all) = (size_of_count(count), size_of_count(count * TIMES));
    let work = format!("`put --lines` until {all} of 200 B are stored");
    table.add(Row::ratio(&work, "/s", large, &format!("until {first}"), small, Goal::AtLeast(0.8)));
    table.add(Row::alone("its peak memory", "MB", memory, Goal::AtMost(300.0)));
    let work = format!("`get` of one of {all}");
    table.add(Row::ratio(&work, "ms", large_get, &format!("of {first}"), small_get, Goal::AtMost(2.0)));
    table.keep();
}

/// Answers with its peak memory.
fn put(place: &Place, store: &Path, file: &Path) -> u64 {
    let mut command = place.command(store);
    command.args(["put", "--lines"]).stdin(File::open(file).unwrap()).stdout(Stdio::null());
    peak(&mut command.spawn().unwrap())
}

/// Milliseconds for one of so many parts.
fn get(place: &Place, store: &Path, parts: u64, count: u64) -> f64 {
    let mut random = Random(7);
    let mut one = || {
        let (part, number) = (random.below(parts as usize) as u64, random.below(count as usize) as u64);
        let digest = Digest::of(text(200, part, number).as_bytes()).to_string();
        assert!(place.command(store).args(["get", &digest]).stdout(Stdio::null()).status().unwrap().success());
    };
    // The first finds the log to be replayed after the puts, as the next put would.
    one();
    seconds(|| (0..GETS).for_each(|_| one())) * 1e3 / GETS as f64
}
