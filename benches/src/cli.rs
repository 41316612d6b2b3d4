//! The program as a process: one message beside git, many beside fjall, all of them verified.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Place;
use crate::messages::{message, text};
use crate::process::{Process, disk, peak};
use crate::rounds::{in_turn, seconds, sized};
use crate::store::{fill, open, size_of_count};
use crate::table::{Goal, Row, Table};
use crate::tools;

/// What is stored before one more is put or got.
const FEW: u64 = 100;
/// Processes a measurement.
const RUNS: u64 = 100;

pub fn run(place: &Place) {
    tools::need(&[("git", "git"), ("setpriv", "util-linux"), ("sha256sum", "coreutils")]);
    let mut table = Table::new("cli", "make bench-cli", place);
    alone(place, &mut table);
    beside_a_server(place, &mut table);
    many(place, &mut table);
    table.add(verify(place));
    table.keep();
}

/// A git repository that names its objects by SHA-256 and writes them durably.
struct Git(tempfile::TempDir);

impl Git {
    fn new(place: &Place) -> Self {
        let git = Self(place.scratch());
        run_with(git.command().args(["init", "--quiet", "--object-format=sha256"]), b"");
        run_with(git.command().args(["config", "core.fsync", "all"]), b"");
        git
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.0.path());
        command
    }

    fn put(&self, message: &[u8]) -> String {
        run_with(self.command().args(["hash-object", "-w", "--stdin"]), message)
    }

    fn get(&self, name: &str) {
        run_with(self.command().args(["cat-file", "blob", name]), b"");
    }
}

/// Runs to the end, and answers with the first word of what is printed.
fn run_with(command: &mut Command, input: &[u8]) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Milliseconds that one takes.
fn each(mut work: impl FnMut(u64)) -> f64 {
    seconds(|| (0..RUNS).for_each(&mut work)) * 1e3 / RUNS as f64
}

fn alone(place: &Place, table: &mut Table) {
    let (dir, git) = (place.scratch(), Git::new(place));
    let store = dir.path().join("store");
    processes(place, &store, &git, table, "", [5.0, 8.0]);
}

fn beside_a_server(place: &Place, table: &mut Table) {
    let (dir, git) = (place.scratch(), Git::new(place));
    let store = dir.path().join("store");
    let mut command = place.command(&store);
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    let _server = Process::start(&command);
    wait_for(&store.join("sha-api.sock"));
    processes(place, &store, &git, table, ", store served", [3.0, 3.0]);
}

/// Waits until a file is there.
fn wait_for(file: &Path) {
    let started = std::time::Instant::now();
    while !file.exists() {
        assert!(started.elapsed().as_secs() < 30, "{} does not come", file.display());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn processes(place: &Place, store: &Path, git: &Git, table: &mut Table, how: &str, goals: [f64; 2]) {
    let put = |message: &[u8]| run_with(place.command(store).arg("put"), message);
    let digests: Vec<_> = (0..FEW).map(|number| put(&message(200, 0, number))).collect();
    let names: Vec<_> = (0..FEW).map(|number| git.put(&message(200, 0, number))).collect();
    let mut our_round = 0;
    let mut ours = || {
        our_round += 1;
        each(|number| drop(put(&message(200, our_round, number))))
    };
    let mut their_round = 0;
    let mut theirs = || {
        their_round += 1;
        each(|number| drop(git.put(&message(200, their_round, number))))
    };
    let [ours, theirs] = in_turn([&mut ours, &mut theirs]);
    let work = format!("`put` of 200 B as a process{how}");
    table.add(Row::ratio(&work, "ms", ours, "git hash-object -w", theirs, Goal::AtMost(goals[0])));
    let one = |all: &[String], number: u64| all[number as usize % all.len()].clone();
    let mut ours = || each(|number| drop(run_with(place.command(store).args(["get", &one(&digests, number)]), b"")));
    let mut theirs = || each(|number| git.get(&one(&names, number)));
    let [ours, theirs] = in_turn([&mut ours, &mut theirs]);
    let work = format!("`get` of 200 B as a process{how}");
    table.add(Row::ratio(&work, "ms", ours, "git cat-file", theirs, Goal::AtMost(goals[1])));
}

/// A file of so many lines of 200 bytes, no line like any other.
pub fn lines(dir: &Path, part: u64, count: u64) -> PathBuf {
    let path = dir.join(format!("lines-{part}"));
    let mut file = std::io::BufWriter::new(File::create(&path).unwrap());
    for number in 0..count {
        writeln!(file, "{}", text(200, part, number)).unwrap();
    }
    file.into_inner().unwrap().sync_all().unwrap();
    path
}

fn many(place: &Place, table: &mut Table) {
    let (dir, count) = (place.scratch(), sized(1_000_000));
    let file = lines(dir.path(), 0, count);
    let raw = count as f64 * 200.0;
    let [mut memory, mut their_memory, mut on_disk, mut their_disk] = [const { Vec::new() }; 4];
    let mut ours = || {
        let dir = place.scratch();
        let store = dir.path().join("store");
        let mut command = place.command(&store);
        let (rate, most) = feed(command.args(["put", "--lines"]), &file, count);
        memory.push(most as f64 / 1e6);
        on_disk.push(disk(&store) as f64 / raw);
        rate
    };
    let mut theirs = || {
        let dir = place.scratch();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let (rate, most) = feed(command.arg("fjall-lines").arg(dir.path()), &file, count);
        their_memory.push(most as f64 / 1e6);
        their_disk.push(disk(dir.path()) as f64 / raw);
        rate
    };
    let [ours, theirs] = in_turn([&mut ours, &mut theirs]);
    let work = format!("`put --lines` of {} × 200 B", size_of_count(count));
    table.add(Row::ratio(&work, "/s", ours, "fjall, 1000 a commit", theirs, Goal::AtLeast(0.5)));
    table.add(Row::alone("its peak memory", "MB", memory, Goal::AtMost(200.0)));
    table.add(Row::alone("that of fjall", "MB", their_memory, Goal::Nothing));
    table.add(Row::alone("its disk", "× raw", on_disk, Goal::AtMost(1.5)));
    table.add(Row::alone("that of fjall", "× raw", their_disk, Goal::Nothing));
}

/// Lines a second, and the peak of memory.
fn feed(command: &mut Command, file: &Path, count: u64) -> (f64, u64) {
    let mut most = 0;
    let taken = seconds(|| {
        let mut child = command.stdin(File::open(file).unwrap()).stdout(Stdio::null()).spawn().unwrap();
        most = peak(&mut child);
    });
    (count as f64 / taken, most)
}

fn verify(place: &Place) -> Row {
    const PIECE: usize = 64 << 10;
    let (dir, pieces) = (place.scratch(), sized(4 << 30) / PIECE as u64);
    let store = dir.path().join("store");
    fill(&open(&store, None), (0..pieces).map(|number| message(PIECE, 0, number)));
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    let files: Vec<_> = (0..cores).map(|core| dir.path().join(core.to_string())).collect();
    for (core, file) in (0..).zip(&files) {
        let mut file = File::create(file).unwrap();
        (0..pieces / cores).for_each(|number| file.write_all(&message(PIECE, core, number)).unwrap());
        file.sync_all().unwrap();
    }
    // The files are in the page cache; long messages are written past it.
    for segment in fs::read_dir(store.join("log")).unwrap() {
        io::copy(&mut File::open(segment.unwrap().path()).unwrap(), &mut io::sink()).unwrap();
    }
    let mebibytes = (pieces * PIECE as u64) as f64 / f64::from(1 << 20);
    let mut ours = || mebibytes / seconds(|| drop(run_with(place.command(&store).args(["--quiet", "verify"]), b"")));
    let mut theirs = || {
        mebibytes
            / seconds(|| {
                let sum = |file| Command::new("sha256sum").arg(file).stdout(Stdio::null()).spawn().unwrap();
                let running: Vec<_> = files.iter().map(sum).collect();
                assert!(running.into_iter().all(|mut one| one.wait().unwrap().success()));
            })
    };
    let [ours, theirs] = in_turn([&mut ours, &mut theirs]);
    let size = fs::metadata(&files[0]).unwrap().len() * cores;
    let work = format!("`verify` of {:.1} GiB", size as f64 / f64::from(1 << 30));
    Row::ratio(&work, "MiB/s", ours, &format!("{cores} × sha256sum"), theirs, Goal::AtLeast(0.9))
}
