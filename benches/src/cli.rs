//! Measures the program as a process: one message compared with git, many with fjall, `verify` with sha256sum.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Environment;
use crate::messages::{message, text};
use crate::process::{Process, disk, peak};
use crate::rounds::{run_alternately, scaled, seconds};
use crate::store::{fill, open, size_of_count};
use crate::table::{Goal, Row, Table};
use crate::tools;

/// Number of messages that are stored before measuring.
const PRELOADED: u64 = 100;
/// Number of processes per measurement.
const PROCESSES: u64 = 100;

pub fn run(env: &Environment) {
    tools::require(&[("git", "git"), ("setpriv", "util-linux"), ("sha256sum", "coreutils")]);
    let mut table = Table::new("cli", "make bench-cli", env);
    single_messages(env, &mut table);
    single_messages_served(env, &mut table);
    bulk_load(env, &mut table);
    table.add(verify(env));
    table.save();
}

/// A git repository with SHA-256 object names and durable writes.
struct Git(tempfile::TempDir);

impl Git {
    fn new(env: &Environment) -> Self {
        let git = Self(env.scratch());
        run_to_end(git.command().args(["init", "--quiet", "--object-format=sha256"]), b"");
        run_to_end(git.command().args(["config", "core.fsync", "all"]), b"");
        git
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.0.path());
        command
    }

    fn put(&self, message: &[u8]) -> String {
        run_to_end(self.command().args(["hash-object", "-w", "--stdin"]), message)
    }

    fn get(&self, name: &str) {
        run_to_end(self.command().args(["cat-file", "blob", name]), b"");
    }
}

/// Runs a command with `input` on stdin and returns its stdout without trailing white space. Panics if it fails.
fn run_to_end(command: &mut Command, input: &[u8]) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Returns the mean duration of a call in milliseconds.
fn millis_per_call(mut work: impl FnMut(u64)) -> f64 {
    seconds(|| (0..PROCESSES).for_each(&mut work)) * 1e3 / PROCESSES as f64
}

fn single_messages(env: &Environment, table: &mut Table) {
    let (dir, git) = (env.scratch(), Git::new(env));
    let store = dir.path().join("store");
    processes(env, &store, &git, table, "", [5.0, 8.0]);
}

fn single_messages_served(env: &Environment, table: &mut Table) {
    let (dir, git) = (env.scratch(), Git::new(env));
    let store = dir.path().join("store");
    let mut command = env.command(&store);
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    let _server = Process::start(&command);
    wait_for(&store.join("sha-api.sock"));
    processes(env, &store, &git, table, ", store served", [3.0, 3.0]);
}

/// Blocks until a file exists. Panics after 30 seconds.
fn wait_for(file: &Path) {
    let started = std::time::Instant::now();
    while !file.exists() {
        assert!(started.elapsed().as_secs() < 30, "{} was not created", file.display());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn processes(env: &Environment, store: &Path, git: &Git, table: &mut Table, suffix: &str, goals: [f64; 2]) {
    let put = |message: &[u8]| run_to_end(env.command(store).arg("put"), message);
    let digests: Vec<_> = (0..PRELOADED).map(|number| put(&message(200, 0, number))).collect();
    let names: Vec<_> = (0..PRELOADED).map(|number| git.put(&message(200, 0, number))).collect();
    let mut our_round = 0;
    let mut ours = || {
        our_round += 1;
        millis_per_call(|number| drop(put(&message(200, our_round, number))))
    };
    let mut their_round = 0;
    let mut theirs = || {
        their_round += 1;
        millis_per_call(|number| drop(git.put(&message(200, their_round, number))))
    };
    let [ours, theirs] = run_alternately([&mut ours, &mut theirs]);
    let work = format!("`put` of 200 B as a process{suffix}");
    table.add(Row::ratio(&work, "ms", ours, "git hash-object -w", theirs, Goal::AtMost(goals[0])));
    let one = |all: &[String], number: u64| all[number as usize % all.len()].clone();
    let mut ours =
        || millis_per_call(|number| drop(run_to_end(env.command(store).args(["get", &one(&digests, number)]), b"")));
    let mut theirs = || millis_per_call(|number| git.get(&one(&names, number)));
    let [ours, theirs] = run_alternately([&mut ours, &mut theirs]);
    let work = format!("`get` of 200 B as a process{suffix}");
    table.add(Row::ratio(&work, "ms", ours, "git cat-file", theirs, Goal::AtMost(goals[1])));
}

/// Writes a file of `count` distinct lines of 200 bytes and returns its path. Two parts share no line.
pub fn lines(dir: &Path, part: u64, count: u64) -> PathBuf {
    let path = dir.join(format!("lines-{part}"));
    let mut file = std::io::BufWriter::new(File::create(&path).unwrap());
    for number in 0..count {
        writeln!(file, "{}", text(200, part, number)).unwrap();
    }
    file.into_inner().unwrap().sync_all().unwrap();
    path
}

fn bulk_load(env: &Environment, table: &mut Table) {
    let (dir, count) = (env.scratch(), scaled(1_000_000));
    let file = lines(dir.path(), 0, count);
    let raw = count as f64 * 200.0;
    let [mut memory, mut their_memory, mut on_disk, mut their_disk] = [const { Vec::new() }; 4];
    let mut ours = || {
        let dir = env.scratch();
        let store = dir.path().join("store");
        let mut command = env.command(&store);
        let (rate, most) = run_with_stdin(command.args(["put", "--lines"]), &file, count);
        memory.push(most as f64 / 1e6);
        on_disk.push(disk(&store) as f64 / raw);
        rate
    };
    let mut theirs = || {
        let dir = env.scratch();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let (rate, most) = run_with_stdin(command.arg("fjall-lines").arg(dir.path()), &file, count);
        their_memory.push(most as f64 / 1e6);
        their_disk.push(disk(dir.path()) as f64 / raw);
        rate
    };
    let [ours, theirs] = run_alternately([&mut ours, &mut theirs]);
    let work = format!("`put --lines` of {} × 200 B", size_of_count(count));
    table.add(Row::ratio(&work, "/s", ours, "fjall, 1000 a commit", theirs, Goal::AtLeast(0.5)));
    table.add(Row::single("its peak memory", "MB", memory, Goal::AtMost(200.0)));
    table.add(Row::single("that of fjall", "MB", their_memory, Goal::Nothing));
    table.add(Row::single("its disk", "× raw", on_disk, Goal::AtMost(1.5)));
    table.add(Row::single("that of fjall", "× raw", their_disk, Goal::Nothing));
}

/// Runs `command` with `file` on stdin. Returns lines per second and the peak memory in bytes.
fn run_with_stdin(command: &mut Command, file: &Path, count: u64) -> (f64, u64) {
    let mut most = 0;
    let taken = seconds(|| {
        let mut child = command.stdin(File::open(file).unwrap()).stdout(Stdio::null()).spawn().unwrap();
        most = peak(&mut child);
    });
    (count as f64 / taken, most)
}

fn verify(env: &Environment) -> Row {
    const PIECE: usize = 64 << 10;
    let (dir, pieces) = (env.scratch(), scaled(4 << 30) / PIECE as u64);
    let store = dir.path().join("store");
    fill(&open(&store, None), (0..pieces).map(|number| message(PIECE, 0, number)));
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    let files: Vec<_> = (0..cores).map(|core| dir.path().join(core.to_string())).collect();
    for (core, file) in (0..).zip(&files) {
        let mut file = File::create(file).unwrap();
        (0..pieces / cores).for_each(|number| file.write_all(&message(PIECE, core, number)).unwrap());
        file.sync_all().unwrap();
    }
    // Reads the log into the page cache, where the files for sha256sum are: long messages were written with O_DIRECT.
    for segment in fs::read_dir(store.join("log")).unwrap() {
        io::copy(&mut File::open(segment.unwrap().path()).unwrap(), &mut io::sink()).unwrap();
    }
    let mebibytes = (pieces * PIECE as u64) as f64 / f64::from(1 << 20);
    let mut ours = || mebibytes / seconds(|| drop(run_to_end(env.command(&store).args(["--quiet", "verify"]), b"")));
    let mut theirs = || {
        mebibytes
            / seconds(|| {
                let sum = |file| Command::new("sha256sum").arg(file).stdout(Stdio::null()).spawn().unwrap();
                let running: Vec<_> = files.iter().map(sum).collect();
                assert!(running.into_iter().all(|mut one| one.wait().unwrap().success()));
            })
    };
    let [ours, theirs] = run_alternately([&mut ours, &mut theirs]);
    let size = fs::metadata(&files[0]).unwrap().len() * cores;
    let work = format!("`verify` of {:.1} GiB", size as f64 / f64::from(1 << 30));
    Row::ratio(&work, "MiB/s", ours, &format!("{cores} × sha256sum"), theirs, Goal::AtLeast(0.9))
}
