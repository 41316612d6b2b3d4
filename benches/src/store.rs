//! Measures the store as a library: durable puts, their latency, gets and compression.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sha_api::digest::Digest;
use sha_api::message_store::MessageStore;
use sha_api::store::HashingStore;
use sha_api::store::local::{LocalStore, Options};

use crate::Environment;
use crate::competitors::{Fjall, Redb};
use crate::messages::{Random, message};
use crate::rounds::{latency, rate, run_alternately, scaled, seconds};
use crate::table::{Goal, Row, Table};

pub fn run(env: &Environment) {
    let mut table = Table::new("store", "make bench", env);
    for (threads, length, goal) in
        [(64, 100, 1.5), (64, 1 << 10, 1.5), (64, 16 << 10, 2.5), (64, 256 << 10, 1.7), (1, 1 << 10, 1.0)]
    {
        table.add(puts(env, threads, length, goal));
    }
    table.add(put_latency(env));
    gets(env, &mut table);
    compression(env, &mut table);
    table.save();
}

/// Opens a store with the program's defaults, except for `compression`.
pub fn open(path: &Path, compression: Option<i32>) -> HashingStore<LocalStore> {
    let options = Options {
        path: path.to_owned(),
        create: true,
        lock_timeout: Duration::ZERO,
        owner: "a bench".to_owned(),
        index_cache: 128 << 20,
        segment_size: 1 << 30,
        compression,
        events: Arc::new(|note| println!("{note:?}")),
    };
    HashingStore::new(LocalStore::open(&options).unwrap(), 64 << 20)
}

/// Stores messages, 1,000 per commit.
pub fn fill(store: &HashingStore<LocalStore>, mut messages: impl Iterator<Item = Vec<u8>>) {
    loop {
        let batch: Vec<_> = messages.by_ref().take(1000).collect();
        if batch.is_empty() {
            return;
        }
        store.put(batch).unwrap();
    }
}

fn puts(env: &Environment, threads: u64, length: usize, goal: f64) -> Row {
    let mut ours = || {
        let dir = env.scratch();
        let store = open(&dir.path().join("store"), None);
        rate(threads, |thread, number| drop(store.put(vec![message(length, thread, number)]).unwrap()))
    };
    let mut theirs = || {
        let dir = env.scratch();
        let store = Fjall::open(dir.path(), length);
        rate(threads, |thread, number| store.put(message(length, thread, number)))
    };
    let [ours, theirs] = run_alternately([&mut ours, &mut theirs]);
    let threads = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    let work = format!("durable puts of {}, {threads}", size(length));
    Row::ratio(&work, "/s", ours, "fjall", theirs, Goal::AtLeast(goal))
}

fn size(length: usize) -> String {
    if length < 1024 { format!("{length} B") } else { format!("{} KiB", length >> 10) }
}

fn put_latency(env: &Environment) -> Row {
    let mut ours = || {
        let dir = env.scratch();
        let store = open(&dir.path().join("store"), None);
        latency(|number| drop(store.put(vec![message(1 << 10, 0, number)]).unwrap()))
    };
    let mut theirs = || {
        let dir = env.scratch();
        let file = File::create(dir.path().join("file")).unwrap();
        latency(|number| {
            file.write_all_at(&message(4 << 10, 0, number), number * (4 << 10)).unwrap();
            file.sync_data().unwrap();
        })
    };
    let [ours, theirs] = run_alternately([&mut ours, &mut theirs]);
    let work = "one durable put of 1 KiB beside one append of 4 KiB";
    Row::ratio(work, "µs", ours, "write, fdatasync", theirs, Goal::AtMost(1.25))
}

fn gets(env: &Environment, table: &mut Table) {
    const LENGTH: usize = 200;
    let count = scaled(1_000_000);
    let dir = env.scratch();
    let messages = || (0..count).map(|number| message(LENGTH, 0, number));
    let digests: Vec<_> = messages().map(|message| Digest::compute(&message)).collect();
    let absent: Vec<_> = (0..count).map(|number| Digest::compute(&message(LENGTH, 1, number))).collect();
    let ours = open(&dir.path().join("store"), None);
    fill(&ours, messages());
    let theirs = Redb::with(&dir.path().join("redb"), messages());
    let size = size_of_count(count);
    for (threads, digests, work, goal) in [
        (1, &digests, format!("gets, 1 of {size} of 200 B, 1 thread"), 0.6),
        (2, &digests, format!("gets, 1 of {size} of 200 B, 2 threads"), 0.6),
        (1, &absent, format!("gets of absent digests from {size}, 1 thread"), 0.7),
    ] {
        let present = work.starts_with("gets, ");
        let mut round = 0;
        let mut ours = || {
            round += 1;
            rate(threads, |thread, number| {
                let message = ours.get_one(pick(digests, round, thread, number)).unwrap();
                assert_eq!(message.is_some(), present);
            })
        };
        let mut other_round = 0;
        let mut theirs = || {
            other_round += 1;
            let reader = theirs.reader();
            rate(threads, |thread, number| {
                assert_eq!(reader.get(&pick(digests, other_round, thread, number)).is_some(), present);
            })
        };
        let [ours, theirs] = run_alternately([&mut ours, &mut theirs]);
        table.add(Row::ratio(&work, "/s", ours, "redb, which does not hash", theirs, Goal::AtLeast(goal)));
    }
}

pub fn size_of_count(count: u64) -> String {
    match count {
        1_000_000.. => format!("{} M", count / 1_000_000),
        _ => count.to_string(),
    }
}

/// Returns a pseudo-random digest, the same for both candidates.
fn pick(digests: &[Digest], round: u64, thread: u64, number: u64) -> Digest {
    let mut random = Random((round << 48 | thread << 40 | number) ^ 0x9E37_79B9_7F4A_7C15);
    random.next();
    digests[random.below(digests.len())]
}

fn compression(env: &Environment, table: &mut Table) {
    let count = scaled(200_000);
    let raw: u64 = (0..count).map(|number| record(number).len() as u64).sum();
    let put = |level| {
        let dir = env.scratch();
        let store = open(&dir.path().join("store"), level);
        let seconds = seconds(|| fill(&store, (0..count).map(record)));
        (count as f64 / seconds, store.stats().unwrap().disk as f64)
    };
    let mut disk = Vec::new();
    let mut compressed = || {
        let (rate, bytes) = put(Some(3));
        disk.push(bytes / raw as f64);
        rate
    };
    let [ours, theirs] = run_alternately([&mut compressed, &mut || put(None).0]);
    let work = "puts of JSON of 1 KiB, 1000 a commit, with --compression 3";
    table.add(Row::ratio(work, "/s", ours, "without", theirs, Goal::Nothing));
    table.add(Row::single("their size on disk, index included", "× raw", disk, Goal::Nothing));
}

/// Returns lines that resemble a server's log.
fn record(number: u64) -> Vec<u8> {
    let line = |line: u64| {
        let id = Digest::compute(&(number * 8 + line).to_le_bytes()).to_string();
        let (time, id) = (number + line, &id[..40]);
        format!("{{\"time\":{time},\"level\":\"info\",\"path\":\"/messages/{id}\",\"status\":200}}\n")
    };
    (0..8).map(line).collect::<String>().into_bytes()
}
