//! `Store` as a library: durable puts, their latency, gets, compression.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sha_api::digest::Digest;
use sha_api::messages::Messages;
use sha_api::store::Store;
use sha_api::store::local::{Local, Options};

use crate::Place;
use crate::messages::{Random, message};
use crate::opponents::{Fjall, Redb};
use crate::rounds::{in_turn, latency, rate, seconds, sized};
use crate::table::{Goal, Row, Table};

pub fn run(place: &Place) {
    let mut table = Table::new("store", "make bench", place);
    for (threads, length, goal) in
        [(64, 100, 1.5), (64, 1 << 10, 1.5), (64, 16 << 10, 2.5), (64, 256 << 10, 1.7), (1, 1 << 10, 1.0)]
    {
        table.add(puts(place, threads, length, goal));
    }
    table.add(put_latency(place));
    gets(place, &mut table);
    compression(place, &mut table);
    table.keep();
}

/// As the program opens it by default.
pub fn open(path: &Path, compression: Option<i32>) -> Store<Local> {
    let options = Options {
        path: path.to_owned(),
        create: true,
        wait: Duration::ZERO,
        me: "a bench".to_owned(),
        index_cache: 128 << 20,
        segment_size: 1 << 30,
        compression,
        notes: Arc::new(|note| println!("{note:?}")),
    };
    Store::new(Local::open(&options).unwrap(), 64 << 20)
}

/// Stores so many, a thousand at a time.
pub fn fill(store: &Store<Local>, mut messages: impl Iterator<Item = Vec<u8>>) {
    loop {
        let batch: Vec<_> = messages.by_ref().take(1000).collect();
        if batch.is_empty() {
            return;
        }
        store.put(batch).unwrap();
    }
}

fn puts(place: &Place, threads: u64, length: usize, goal: f64) -> Row {
    let mut ours = || {
        let dir = place.scratch();
        let store = open(&dir.path().join("store"), None);
        rate(threads, |thread, number| drop(store.put(vec![message(length, thread, number)]).unwrap()))
    };
    let mut theirs = || {
        let dir = place.scratch();
        let store = Fjall::open(dir.path(), length);
        rate(threads, |thread, number| store.put(message(length, thread, number)))
    };
    let [ours, theirs] = in_turn([&mut ours, &mut theirs]);
    let threads = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    let work = format!("durable puts of {}, {threads}", size(length));
    Row::ratio(&work, "/s", ours, "fjall", theirs, Goal::AtLeast(goal))
}

fn size(length: usize) -> String {
    if length < 1024 { format!("{length} B") } else { format!("{} KiB", length >> 10) }
}

fn put_latency(place: &Place) -> Row {
    let mut ours = || {
        let dir = place.scratch();
        let store = open(&dir.path().join("store"), None);
        latency(|number| drop(store.put(vec![message(1 << 10, 0, number)]).unwrap()))
    };
    let mut theirs = || {
        let dir = place.scratch();
        let file = File::create(dir.path().join("file")).unwrap();
        latency(|number| {
            file.write_all_at(&message(4 << 10, 0, number), number * (4 << 10)).unwrap();
            file.sync_data().unwrap();
        })
    };
    let [ours, theirs] = in_turn([&mut ours, &mut theirs]);
    let work = "one durable put of 1 KiB beside one append of 4 KiB";
    Row::ratio(work, "µs", ours, "write, fdatasync", theirs, Goal::AtMost(1.25))
}

fn gets(place: &Place, table: &mut Table) {
    const LENGTH: usize = 200;
    let count = sized(1_000_000);
    let dir = place.scratch();
    let messages = || (0..count).map(|number| message(LENGTH, 0, number));
    let digests: Vec<_> = messages().map(|message| Digest::of(&message)).collect();
    let absent: Vec<_> = (0..count).map(|number| Digest::of(&message(LENGTH, 1, number))).collect();
    let ours = open(&dir.path().join("store"), None);
    fill(&ours, messages());
    let theirs = Redb::with(&dir.path().join("redb"), messages());
    let of = size_of_count(count);
    for (threads, digests, what, goal) in [
        (1, &digests, format!("gets, 1 of {of} of 200 B, 1 thread"), 0.6),
        (2, &digests, format!("gets, 1 of {of} of 200 B, 2 threads"), 0.6),
        (1, &absent, format!("gets of what is absent from {of}, 1 thread"), 0.7),
    ] {
        let present = what.starts_with("gets, ");
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
        let [ours, theirs] = in_turn([&mut ours, &mut theirs]);
        table.add(Row::ratio(&what, "/s", ours, "redb, which does not hash", theirs, Goal::AtLeast(goal)));
    }
}

pub fn size_of_count(count: u64) -> String {
    match count {
        1_000_000.. => format!("{} M", count / 1_000_000),
        _ => count.to_string(),
    }
}

/// Any of them, the same for both contestants.
fn pick(digests: &[Digest], round: u64, thread: u64, number: u64) -> Digest {
    let mut random = Random((round << 48 | thread << 40 | number) ^ 0x9E37_79B9_7F4A_7C15);
    random.next();
    digests[random.below(digests.len())]
}

fn compression(place: &Place, table: &mut Table) {
    let count = sized(200_000);
    let raw: u64 = (0..count).map(|number| record(number).len() as u64).sum();
    let put = |level| {
        let dir = place.scratch();
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
    let [ours, theirs] = in_turn([&mut compressed, &mut || put(None).0]);
    let work = "puts of JSON of 1 KiB, 1000 a commit, with --compression 3";
    table.add(Row::ratio(work, "/s", ours, "without", theirs, Goal::Nothing));
    table.add(Row::alone("their size on disk, index included", "× raw", disk, Goal::Nothing));
}

/// Lines as a server would log them.
fn record(number: u64) -> Vec<u8> {
    let line = |line: u64| {
        let id = Digest::of(&(number * 8 + line).to_le_bytes()).to_string();
        let (time, id) = (number + line, &id[..40]);
        format!("{{\"time\":{time},\"level\":\"info\",\"path\":\"/messages/{id}\",\"status\":200}}\n")
    };
    (0..8).map(line).collect::<String>().into_bytes()
}
