//! A store that faults happen to: it remembers what was acknowledged, and counts what became of that.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::Tally;
use super::strace::{Injection, injected_count};
use crate::common::{Random, Sandbox, digest, pseudorandom_bytes};

/// No command takes nearly as long.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer files are not copied.
const MAX_COPIED_FILE: u64 = 512 << 20;
const SIGKILL: i32 = 9;
/// What `timeout --signal KILL` ends with.
const TIMEOUT_EXIT_CODE: i32 = 137;
/// A record takes no less of the log, in bytes.
const MIN_RECORD_BYTES: usize = 48;

/// A store, and what it acknowledged.
pub struct FaultedStore {
    sandbox: Sandbox,
    store: PathBuf,
    /// By digest.
    pub acknowledged: HashMap<String, Vec<u8>>,
    pub tally: Tally,
    /// Notes that were printed.
    stderr_lines: BTreeSet<String>,
    /// What the runs were, for when something goes wrong.
    context: String,
    /// Whether the last check found a store that cannot be opened.
    pub is_unopenable: bool,
    /// How many of `known` are in a tally already.
    tallied: usize,
}

/// How a command ended.
#[derive(Debug, Default)]
pub struct RunResult {
    pub code: Option<i32>,
    pub killed: bool,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl FaultedStore {
    /// A store that is not there yet.
    pub fn new() -> Self {
        let sandbox = Sandbox::new();
        let store = sandbox.store();
        Self::in_dir(sandbox, store)
    }

    /// The same at a place outside the sandbox.
    pub fn in_dir(sandbox: Sandbox, store: PathBuf) -> Self {
        let tally = Tally { runs: 1, ..Tally::default() };
        let (known, notes) = (HashMap::new(), BTreeSet::new());
        Self {
            sandbox,
            store,
            acknowledged: known,
            tally,
            stderr_lines: notes,
            context: String::new(),
            is_unopenable: false,
            tallied: 0,
        }
    }

    /// A copy, with all that it knows.
    pub fn copy(&self, story: impl Into<String>) -> Self {
        let mut copy = Self::new();
        copy_tree(&self.store, &copy.store);
        copy.acknowledged.clone_from(&self.acknowledged);
        copy.context = story.into();
        copy
    }

    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The directory around the store.
    pub fn dir(&self) -> &Path {
        self.sandbox.dir()
    }

    /// The first segment.
    pub fn first_segment(&self) -> PathBuf {
        self.store.join("log/00000001.log")
    }

    /// The binary on this store.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.std_command(arguments);
        command.env("SHA_API_STORE", &self.store);
        command
    }

    /// Runs a command to its end, and counts it if it panics or has no end.
    pub fn run(&mut self, mut command: Command, input: &[u8]) -> RunResult {
        let mut child = spawn(&mut command);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // Whoever does not read its input does not get it.
        std::thread::spawn(move || stdin.write_all(&input));
        let stdout = read_in_background(child.stdout.take().unwrap());
        let stderr = read_in_background(child.stderr.take().unwrap());
        let status = self.wait_exit(&mut child, &command);
        let stdout = stdout.join().unwrap();
        self.to_run_result(status, stdout, &stderr.join().unwrap(), &command)
    }

    /// Puts messages in groups, each sent once the one before is acknowledged. Answers how it ended.
    pub fn put(&mut self, injection: Option<&Injection>, groups: &[Vec<Vec<u8>>]) -> (RunResult, usize) {
        let trace = self.dir().join("trace");
        let mut command = self.command(&["put", "--lines"]);
        if let Some(injection) = injection {
            command = injection.wrap(&command, &trace);
        }
        let ran = self.put_with(command, groups);
        let hits = if ran.killed { 1 } else { injected_count(&trace) };
        (ran, hits)
    }

    /// The same, by any command that reads lines and prints their digests.
    pub fn put_with(&mut self, mut command: Command, groups: &[Vec<Vec<u8>>]) -> RunResult {
        let mut child = spawn(&mut command);
        let mut stdin = child.stdin.take();
        let lines = stream_lines(child.stdout.take().unwrap());
        let stderr = read_in_background(child.stderr.take().unwrap());
        'groups: for group in groups {
            let input: Vec<u8> = group.iter().flat_map(|message| [message, b"\n".as_slice()].concat()).collect();
            // It may have ended; what it acknowledged before still counts.
            let mut feed = stdin.take().unwrap();
            let feeder = std::thread::spawn(move || feed.write_all(&input).map(|()| feed));
            for message in group {
                let Ok(line) = lines.recv_timeout(COMMAND_TIMEOUT) else { break 'groups };
                assert_eq!(line, digest(message));
                self.acknowledged.insert(line, message.clone());
            }
            match feeder.join().unwrap() {
                Ok(feed) => stdin = Some(feed),
                Err(_) => break,
            }
        }
        drop(stdin);
        let status = self.wait_exit(&mut child, &command);
        self.to_run_result(status, Vec::new(), &stderr.join().unwrap(), &command)
    }

    /// Asks for everything that was acknowledged, and counts what is not there. Answers what is lost.
    pub fn find_missing(&mut self) -> Vec<String> {
        let mut missing = self.acknowledged.clone();
        let digests: String = self.acknowledged.keys().map(|digest| format!("{digest}\n")).collect();
        let ran = self.run(self.command(&["get", "--lines"]), digests.as_bytes());
        let mut lines: Vec<_> = ran.stdout.split(|byte| *byte == b'\n').collect();
        // What is behind the last newline is an answer that was not given to its end.
        lines.pop();
        for line in lines {
            if missing.remove(&digest(line)).is_none() {
                self.tally.wrong_bytes += 1;
                self.print_failure("wrong bytes", &ran);
            }
        }
        self.is_unopenable = ran.code == Some(3) && ran.stderr.contains("sha-api: ");
        let named = |digest: &String| {
            let corrupt = format!("{digest} is corrupt");
            self.is_unopenable
                || ran.stderr.contains(&corrupt)
                || self.stderr_lines.iter().any(|note| note.contains(&corrupt))
        };
        let (mut said, mut silent): (Vec<_>, Vec<_>) = missing.into_keys().partition(named);
        let counted = self.stderr_lines.iter().map(|note| parse_lost_count(note)).fold(0, usize::saturating_add);
        said.extend(silent.drain(..counted.min(silent.len())));
        let odd = ran.code == Some(0) && !said.is_empty();
        if !silent.is_empty() || odd {
            self.print_failure(&format!("{} lost without a word: {:?}", silent.len(), silent.first()), &ran);
        }
        self.tally.acknowledged += self.acknowledged.len() - self.tallied;
        self.tally.lost += said.len() + silent.len();
        self.tally.reported += if odd { 0 } else { said.len() };
        [said, silent].concat()
    }

    /// Whether, without the cause, what is lost can be put again and all is there, old and new.
    pub fn try_recover(&mut self, lost: &[String]) -> bool {
        let mut group: Vec<_> = lost.iter().map(|digest| self.acknowledged[digest].clone()).collect();
        group.push(format!("put after the fault, {} ", self.acknowledged.len()).into_bytes());
        let wanted = group.len();
        let put = self.put_with(self.command(&["put", "--lines"]), &[group]);
        if put.code != Some(0) {
            self.print_failure(&format!("{wanted} cannot be put"), &put);
        }
        self.all_readable() && put.code == Some(0)
    }

    /// Whether all is there, old and new.
    pub fn all_readable(&mut self) -> bool {
        let digests: String = self.acknowledged.keys().map(|digest| format!("{digest}\n")).collect();
        let get = self.run(self.command(&["get", "--lines"]), digests.as_bytes());
        let got = get
            .stdout
            .split(|byte| *byte == b'\n')
            .filter(|line| self.acknowledged.contains_key(&digest(line)))
            .count();
        let all = get.code == Some(0) && got == self.acknowledged.len();
        if !all {
            self.print_failure(&format!("{got} of {} are there", self.acknowledged.len()), &get);
        }
        all
    }

    /// Checks and recovers, and goes on living: what is counted now is not counted again.
    pub fn finish_run(&mut self) -> Tally {
        let lost = self.find_missing();
        self.tallied = self.acknowledged.len();
        self.tally.recovered = usize::from(self.try_recover(&lost));
        std::mem::replace(&mut self.tally, Tally { runs: 1, ..Tally::default() })
    }

    /// Checks, recovers, and hands over what was counted.
    pub fn into_tally(mut self) -> Tally {
        let lost = self.find_missing();
        if self.try_recover(&lost) {
            self.tally.recovered += 1;
        }
        self.tally
    }

    /// Says on stdout what is wrong, with all that led to it.
    pub fn print_failure(&self, what: &str, ran: &RunResult) {
        let RunResult { code, killed, stderr, .. } = ran;
        let stderr: Vec<_> = stderr.lines().take(3).collect();
        println!(
            "{}: {what}; code {code:?}, killed {killed}: {stderr:?}; notes: {:?}",
            self.context, self.stderr_lines
        );
    }

    /// Adds to what is said when something goes wrong.
    pub fn add_context(&mut self, story: &str) {
        self.context.push_str(story);
    }

    fn wait_exit(&mut self, child: &mut Child, command: &Command) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < COMMAND_TIMEOUT {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        println!("{}: no end: {command:?}", self.context);
        self.tally.hangs += 1;
        kill_process_group(Pid::from_child(child), Signal::KILL).unwrap();
        child.wait().unwrap();
        None
    }

    fn to_run_result(
        &mut self,
        status: Option<ExitStatus>,
        stdout: Vec<u8>,
        stderr: &[u8],
        command: &Command,
    ) -> RunResult {
        let stderr = String::from_utf8_lossy(stderr).into_owned();
        let (code, signal) = (status.and_then(|s| s.code()), status.and_then(|s| s.signal()));
        let ran =
            RunResult { code, killed: signal == Some(SIGKILL) || code == Some(TIMEOUT_EXIT_CODE), stdout, stderr };
        let expected = [Some(0), Some(1), Some(3), Some(4)].contains(&code) || ran.killed || status.is_none();
        if !expected || ran.stderr.contains("panicked") {
            self.tally.panics += 1;
            self.print_failure(&format!("{command:?} ended by {status:?}"), &ran);
        }
        self.stderr_lines.extend(ran.stderr.lines().map(str::to_owned));
        ran
    }
}

/// How many messages can be lost at the most, by what a note says.
fn parse_lost_count(note: &str) -> usize {
    let number = |text: &str| text.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(0);
    match note.trim_start_matches("sha-api: ") {
        note if note.contains("messages that were stored are gone from the log") => number(note),
        note if note.contains("what stood there is lost") || note.contains("no whole record") => {
            number(note) / MIN_RECORD_BYTES
        }
        // A segment of which nothing else is known, and one of which it is.
        note if note.ends_with("is missing in the log, and what stood there with it") => usize::MAX,
        note if note.contains("is missing in the log, and ") => number(note),
        _ => 0,
    }
}

/// The `number`-th message of a seed: one line of up to `size` bytes, unlike any other.
pub fn message(seed: u64, number: u64, size: u64) -> Vec<u8> {
    let length = usize::try_from(Random(seed << 32 | number).below(size)).unwrap();
    let mut message = format!("{seed} {number} ").into_bytes();
    message.extend(pseudorandom_bytes(length, seed << 32 | number).iter().map(|byte| byte % 64 + 32));
    message
}

/// So many messages in each group.
pub fn message_groups(seed: u64, sizes: &[u64]) -> Vec<Vec<Vec<u8>>> {
    let mut number = 0;
    let mut group = |count: &u64| {
        let begin = number;
        number += count;
        (begin..number).map(|number| message(seed, number, 600)).collect()
    };
    sizes.iter().map(&mut group).collect()
}

/// Copies a directory and all below it; very long files are shared.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &to.join(entry.file_name())),
            false if entry.metadata().unwrap().len() > MAX_COPIED_FILE => {
                std::fs::hard_link(entry.path(), to.join(entry.file_name())).unwrap();
            }
            false => std::fs::copy(entry.path(), to.join(entry.file_name())).map(drop).unwrap(),
        }
    }
}

/// The files below a directory that hold anything, by name.
pub fn non_empty_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.flat_map(|path| if path.is_dir() { non_empty_files(&path) } else { vec![path] }).collect();
    files.retain(|path| path.metadata().unwrap().len() > 0);
    files.sort();
    files
}

fn spawn(command: &mut Command) -> Child {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn();
    child.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn read_in_background(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Whole lines, as they come.
fn stream_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = sync_channel(1 << 16);
    std::thread::spawn(move || {
        let (mut from, mut line) = (BufReader::new(from), String::new());
        while from.read_line(&mut line).is_ok_and(|_| line.ends_with('\n')) {
            if sender.send(std::mem::take(&mut line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    lines
}
