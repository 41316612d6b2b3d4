//! Durable puts and verified gets through `Store`, each beside the bare system calls that do the least for the same,
//! in turn, several rounds; prints medians and ratios. Absolute figures mean little on shared machines.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha_api::digest::Digest;
use sha_api::messages::Messages;
use sha_api::store::Store;
use sha_api::store::local::{Local, Options};

const ROUNDS: u64 = 5;
const TIME: Duration = Duration::from_secs(1);

fn main() {
    println!("{:44} {:>12} {:>12} {:>7}", "a second, median of 5 rounds", "sha-api", "beside", "ratio");
    for (threads, length) in [(1, 1024), (64, 100), (64, 1024), (64, 16 << 10), (64, 256 << 10)] {
        let name = format!("durable puts, {threads} threads, {length} B, beside append + fdatasync alone");
        compare(&name, |dir, round| puts(dir, round, threads, length), |dir, _| appends(dir, length));
    }
    compare("gets of 200 B, 1 of 100,000, beside pread alone", gets, |dir, _| reads(dir));
    compare("verify of 256 MiB, in MiB, beside sha256sum on as many cores", |dir, _| verify(dir), |dir, _| sums(dir));
    let records = |compression| move |dir: &Path, _| put_records(&store(dir, compression)).0;
    compare("puts of JSON of 1 KiB, compressed (level 3), beside not", records(Some(3)), records(None));
    let dir = tempfile::tempdir().unwrap();
    let (_, length) = put_records(&store(dir.path(), Some(3)));
    let disk = std::fs::metadata(dir.path().join("store/log/00000001.log")).unwrap().len();
    println!(
        "{:44} {:>12} {:>12} {:>7.2}",
        "their bytes on disk, raw beside compressed",
        length,
        disk,
        ratio(length, disk)
    );
}

/// Runs the two in turn, each in a directory of its own.
fn compare(name: &str, ours: impl Fn(&Path, u64) -> f64, beside: impl Fn(&Path, u64) -> f64) {
    let (mut all_ours, mut all_beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ours, beside) = (ours(one.path(), round), beside(other.path(), round));
        all_ours.push(ours);
        all_beside.push(beside);
        ratios.push(ours / beside);
    }
    println!("{name}\n{:44} {:>12.0} {:>12.0} {:>7.2}", "", median(all_ours), median(all_beside), median(ratios));
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[allow(clippy::cast_precision_loss, reason = "it is printed with two decimals")]
fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / other as f64
}

fn store(dir: &Path, compression: Option<i32>) -> Store<Local> {
    let options = Options {
        path: dir.join("store"),
        create: true,
        wait: Duration::ZERO,
        index_cache: 128 << 20,
        segment_size: 1 << 30,
        compression,
        notes: Arc::new(|note| println!("{note:?}")),
    };
    Store::new(Local::open(&options).unwrap(), 64 << 20)
}

/// A message that is not like any other.
fn message(length: usize, thread: u64, number: u64) -> Vec<u8> {
    let mut message = vec![0x5a; length];
    message[..8].copy_from_slice(&number.to_le_bytes());
    message[8..16].copy_from_slice(&thread.to_le_bytes());
    message
}

fn puts(dir: &Path, round: u64, threads: u64, length: usize) -> f64 {
    let store = store(dir, None);
    let started = Instant::now();
    let put = |thread| {
        let mut count = 0;
        while started.elapsed() < TIME {
            store.put(vec![message(length, thread, round << 32 | count)]).unwrap();
            count += 1;
        }
        count
    };
    let count: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || put(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    rate(count, started)
}

/// One thread, one file, one sync for each message: what a durable write costs without a group to share it.
fn appends(dir: &Path, length: usize) -> f64 {
    let file = File::create(dir.join("file")).unwrap();
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < TIME {
        file.write_all_at(&message(length, 0, count), count * length as u64).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    rate(count, started)
}

const STORED: u64 = 100_000;

fn gets(dir: &Path, round: u64) -> f64 {
    let store = store(dir, None);
    let messages = (0..STORED).map(|number| message(200, 0, number));
    let digests: Vec<_> = messages.clone().map(|message| Digest::of(&message)).collect();
    for batch in messages.collect::<Vec<_>>().chunks(10_000) {
        store.put(batch.to_vec()).unwrap();
    }
    let started = Instant::now();
    let (mut count, mut at) = (0, round);
    while started.elapsed() < TIME {
        at = (at * 7919 + 104_729) % STORED;
        let digest = digests[usize::try_from(at).unwrap()];
        assert!(store.get_one(digest).unwrap().is_some());
        count += 1;
    }
    rate(count, started)
}

fn reads(dir: &Path) -> f64 {
    let path = dir.join("file");
    std::fs::write(&path, vec![0x5a; 200 * usize::try_from(STORED).unwrap()]).unwrap();
    let file = File::open(path).unwrap();
    let started = Instant::now();
    let (mut count, mut at) = (0, 0);
    while started.elapsed() < TIME {
        at = (at * 7919 + 104_729) % STORED;
        let mut bytes = vec![0; 200];
        file.read_exact_at(&mut bytes, at * 200).unwrap();
        count += 1;
    }
    rate(count, started)
}

const VERIFIED: u64 = 256 << 20;
const PIECE: usize = 64 << 10;

/// MiB a second.
fn verify(dir: &Path) -> f64 {
    let store = store(dir, None);
    let pieces = VERIFIED / PIECE as u64;
    for first in (0..pieces).step_by(64) {
        store.put((first..first + 64).map(|number| message(PIECE, 0, number)).collect()).unwrap();
    }
    let started = Instant::now();
    let (mut from, mut messages) = (None, 0);
    loop {
        let step = store.verify(from.as_ref()).unwrap();
        messages += step.messages;
        from = step.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(messages, pieces);
    rate(VERIFIED >> 20, started)
}

/// One `sha256sum` a core, each with its share.
fn sums(dir: &Path) -> f64 {
    let cores = std::thread::available_parallelism().unwrap().get();
    let share = vec![0x5a; usize::try_from(VERIFIED).unwrap() / cores];
    let files: Vec<_> = (0..cores).map(|core| dir.join(core.to_string())).collect();
    for file in &files {
        std::fs::write(file, &share).unwrap();
    }
    let started = Instant::now();
    let sum = |file| Command::new("sha256sum").arg(file).stdout(Stdio::null()).spawn().unwrap();
    let running: Vec<_> = files.iter().map(sum).collect();
    assert!(running.into_iter().all(|mut one| one.wait().unwrap().success()));
    rate(VERIFIED >> 20, started)
}

/// Puts lines as a server would log them, 1 KiB at a time; answers with the puts a second, and the bytes in all.
fn put_records(store: &Store<Local>) -> (f64, u64) {
    let record = |number: u64| {
        let lines = (0..8).map(|line| {
            let id = Digest::of(&(number * 8 + line).to_le_bytes()).to_string();
            format!(
                "{{\"time\":{},\"level\":\"info\",\"path\":\"/messages/{}\",\"status\":200}}\n",
                number + line,
                &id[..40]
            )
        });
        lines.collect::<String>().into_bytes()
    };
    let (started, mut bytes) = (Instant::now(), 0);
    for first in (0..20_000).step_by(1000) {
        let batch: Vec<_> = (first..first + 1000).map(record).collect();
        bytes += batch.iter().map(|message| message.len() as u64).sum::<u64>();
        store.put(batch).unwrap();
    }
    (rate(20_000, started), bytes)
}

#[allow(clippy::cast_precision_loss, reason = "a rate is printed without decimals")]
fn rate(count: u64, started: Instant) -> f64 {
    count as f64 / started.elapsed().as_secs_f64()
}
