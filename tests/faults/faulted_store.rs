//! A store under fault injection. It records the acknowledged messages and counts losses, panics and hangs.

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

/// Time after which a command counts as hanging.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum size in bytes of a copied file. Larger files are hard-linked.
const MAX_COPIED_FILE: u64 = 512 << 20;
const SIGKILL: i32 = 9;
/// Exit code of `timeout --signal KILL` after it has killed the command.
const TIMEOUT_EXIT_CODE: i32 = 137;
/// Minimum size in bytes of a record in the log.
const MIN_RECORD_BYTES: usize = 48;

/// A store and the messages that it has acknowledged.
pub struct FaultedStore {
    sandbox: Sandbox,
    path: PathBuf,
    /// Acknowledged messages by digest.
    pub acknowledged: HashMap<String, Vec<u8>>,
    /// Results of the current run.
    pub tally: Tally,
    /// Lines that commands have printed on stderr.
    stderr_lines: BTreeSet<String>,
    /// Description of the runs, printed with a failure.
    context: String,
    /// `true` if the last check could not open the store.
    pub is_unopenable: bool,
    /// Number of acknowledged messages that an earlier tally counts.
    tallied: usize,
}

/// Result of a command.
#[derive(Debug, Default)]
pub struct RunResult {
    pub code: Option<i32>,
    pub killed: bool,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl FaultedStore {
    /// Returns a store in a new sandbox. The directory of the store does not exist yet.
    pub fn new() -> Self {
        let sandbox = Sandbox::new();
        let path = sandbox.store();
        Self::in_dir(sandbox, path)
    }

    /// Returns a store at `path`, which may be outside `sandbox`.
    pub fn in_dir(sandbox: Sandbox, path: PathBuf) -> Self {
        Self {
            sandbox,
            path,
            acknowledged: HashMap::new(),
            tally: Tally { runs: 1, ..Tally::default() },
            stderr_lines: BTreeSet::new(),
            context: String::new(),
            is_unopenable: false,
            tallied: 0,
        }
    }

    /// Copies the files and the acknowledged messages into a new sandbox. `context` describes the run of the copy.
    pub fn copy(&self, context: impl Into<String>) -> Self {
        let mut copy = Self::new();
        copy_tree(&self.path, &copy.path);
        copy.acknowledged.clone_from(&self.acknowledged);
        copy.context = context.into();
        copy
    }

    /// Returns the path of the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the temporary directory of the sandbox.
    pub fn dir(&self) -> &Path {
        self.sandbox.dir()
    }

    /// Returns the path of the first log segment.
    pub fn first_segment(&self) -> PathBuf {
        self.path.join("log/00000001.log")
    }

    /// Returns a command that runs the binary on this store.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.std_command(arguments);
        command.env("SHA_API_STORE", &self.path);
        command
    }

    /// Runs a command until it exits and counts a panic or a hang.
    pub fn run(&mut self, mut command: Command, input: &[u8]) -> RunResult {
        let mut child = spawn(&mut command);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // The write fails if the command exits without reading its input.
        std::thread::spawn(move || stdin.write_all(&input));
        let stdout = read_in_background(child.stdout.take().unwrap());
        let stderr = read_in_background(child.stderr.take().unwrap());
        let status = self.wait_exit(&mut child, &command);
        let stdout = stdout.join().unwrap();
        self.record_run(status, stdout, &stderr.join().unwrap(), &command)
    }

    /// Puts groups of messages; a group is sent after the previous group is acknowledged. Returns the result and the
    /// number of injected faults.
    pub fn put(&mut self, injection: Option<&Injection>, groups: &[Vec<Vec<u8>>]) -> (RunResult, usize) {
        let trace = self.dir().join("trace");
        let mut command = self.command(&["put", "--lines"]);
        if let Some(injection) = injection {
            command = injection.wrap(&command, &trace);
        }
        let result = self.put_with(command, groups);
        let hits = if result.killed { 1 } else { injected_count(&trace) };
        (result, hits)
    }

    /// Puts groups of messages as [`FaultedStore::put`] does, with any command that reads lines and prints digests.
    pub fn put_with(&mut self, mut command: Command, groups: &[Vec<Vec<u8>>]) -> RunResult {
        let mut child = spawn(&mut command);
        let mut stdin = child.stdin.take();
        let lines = stream_lines(child.stdout.take().unwrap());
        let stderr = read_in_background(child.stderr.take().unwrap());
        'groups: for group in groups {
            let input: Vec<u8> = group.iter().flat_map(|message| [message, b"\n".as_slice()].concat()).collect();
            // The command may have exited. Digests that it printed before still count as acknowledged.
            let mut pipe = stdin.take().unwrap();
            let writer = std::thread::spawn(move || pipe.write_all(&input).map(|()| pipe));
            for message in group {
                let Ok(line) = lines.recv_timeout(COMMAND_TIMEOUT) else { break 'groups };
                assert_eq!(line, digest(message));
                self.acknowledged.insert(line, message.clone());
            }
            match writer.join().unwrap() {
                Ok(pipe) => stdin = Some(pipe),
                Err(_) => break,
            }
        }
        drop(stdin);
        let status = self.wait_exit(&mut child, &command);
        self.record_run(status, Vec::new(), &stderr.join().unwrap(), &command)
    }

    /// Gets all acknowledged messages and counts the missing ones in the tally. Returns the digests of the missing
    /// messages.
    pub fn find_missing(&mut self) -> Vec<String> {
        let mut missing = self.acknowledged.clone();
        let digests: String = self.acknowledged.keys().map(|digest| format!("{digest}\n")).collect();
        let result = self.run(self.command(&["get", "--lines"]), digests.as_bytes());
        let mut lines: Vec<_> = result.stdout.split(|byte| *byte == b'\n').collect();
        // The bytes behind the last newline are an incomplete message.
        lines.pop();
        for line in lines {
            if missing.remove(&digest(line)).is_none() {
                self.tally.wrong_bytes += 1;
                self.print_failure("wrong bytes", &result);
            }
        }
        self.is_unopenable = result.code == Some(3) && result.stderr.contains("sha-api: ");
        let is_reported = |digest: &String| {
            let corrupt = format!("{digest} is corrupt");
            self.is_unopenable
                || result.stderr.contains(&corrupt)
                || self.stderr_lines.iter().any(|line| line.contains(&corrupt))
        };
        let (mut reported, mut unreported): (Vec<_>, Vec<_>) = missing.into_keys().partition(is_reported);
        let lost_count = self.stderr_lines.iter().map(|line| parse_lost_count(line)).fold(0, usize::saturating_add);
        reported.extend(unreported.drain(..lost_count.min(unreported.len())));
        let has_wrong_exit_code = result.code == Some(0) && !reported.is_empty();
        if !unreported.is_empty() || has_wrong_exit_code {
            let what = format!("{} unreported losses: {:?}", unreported.len(), unreported.first());
            self.print_failure(&what, &result);
        }
        self.tally.acknowledged += self.acknowledged.len() - self.tallied;
        self.tally.lost += reported.len() + unreported.len();
        self.tally.reported += if has_wrong_exit_code { 0 } else { reported.len() };
        [reported, unreported].concat()
    }

    /// Puts the lost messages and a new message again, without the fault. Returns whether this succeeds and all
    /// acknowledged messages are readable.
    pub fn try_recover(&mut self, lost: &[String]) -> bool {
        let mut group: Vec<_> = lost.iter().map(|digest| self.acknowledged[digest].clone()).collect();
        group.push(format!("put after the fault, {} ", self.acknowledged.len()).into_bytes());
        let count = group.len();
        let put = self.put_with(self.command(&["put", "--lines"]), &[group]);
        if put.code != Some(0) {
            self.print_failure(&format!("{count} messages cannot be put"), &put);
        }
        self.all_readable() && put.code == Some(0)
    }

    /// Returns whether all acknowledged messages are readable.
    pub fn all_readable(&mut self) -> bool {
        let digests: String = self.acknowledged.keys().map(|digest| format!("{digest}\n")).collect();
        let get = self.run(self.command(&["get", "--lines"]), digests.as_bytes());
        let count = get
            .stdout
            .split(|byte| *byte == b'\n')
            .filter(|line| self.acknowledged.contains_key(&digest(line)))
            .count();
        let all_readable = get.code == Some(0) && count == self.acknowledged.len();
        if !all_readable {
            self.print_failure(&format!("{count} of {} messages are readable", self.acknowledged.len()), &get);
        }
        all_readable
    }

    /// Checks and recovers the store and returns the tally. The store starts a new tally, which counts only messages
    /// that are acknowledged from now on.
    pub fn finish_run(&mut self) -> Tally {
        let lost = self.find_missing();
        self.tallied = self.acknowledged.len();
        self.tally.recovered = usize::from(self.try_recover(&lost));
        std::mem::replace(&mut self.tally, Tally { runs: 1, ..Tally::default() })
    }

    /// Checks and recovers the store and returns the tally.
    pub fn into_tally(mut self) -> Tally {
        let lost = self.find_missing();
        if self.try_recover(&lost) {
            self.tally.recovered += 1;
        }
        self.tally
    }

    /// Prints the failure `what` on stdout, with the context and the result of the command.
    pub fn print_failure(&self, what: &str, result: &RunResult) {
        let RunResult { code, killed, stderr, .. } = result;
        let stderr: Vec<_> = stderr.lines().take(3).collect();
        println!(
            "{}: {what}; code {code:?}, killed {killed}: {stderr:?}; earlier stderr: {:?}",
            self.context, self.stderr_lines
        );
    }

    /// Appends to the context, which is printed with a failure.
    pub fn add_context(&mut self, context: &str) {
        self.context.push_str(context);
    }

    fn wait_exit(&mut self, child: &mut Child, command: &Command) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < COMMAND_TIMEOUT {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        println!("{}: hangs: {command:?}", self.context);
        self.tally.hangs += 1;
        kill_process_group(Pid::from_child(child), Signal::KILL).unwrap();
        child.wait().unwrap();
        None
    }

    fn record_run(
        &mut self,
        status: Option<ExitStatus>,
        stdout: Vec<u8>,
        stderr: &[u8],
        command: &Command,
    ) -> RunResult {
        let stderr = String::from_utf8_lossy(stderr).into_owned();
        let (code, signal) = (status.and_then(|s| s.code()), status.and_then(|s| s.signal()));
        let result =
            RunResult { code, killed: signal == Some(SIGKILL) || code == Some(TIMEOUT_EXIT_CODE), stdout, stderr };
        let expected = [Some(0), Some(1), Some(3), Some(4)].contains(&code) || result.killed || status.is_none();
        if !expected || result.stderr.contains("panicked") {
            self.tally.panics += 1;
            self.print_failure(&format!("{command:?} ended by {status:?}"), &result);
        }
        self.stderr_lines.extend(result.stderr.lines().map(str::to_owned));
        result
    }
}

/// Returns the maximum number of lost messages that a line of stderr reports.
fn parse_lost_count(line: &str) -> usize {
    let number = |text: &str| text.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(0);
    match line.trim_start_matches("sha-api: ") {
        line if line.contains("stored messages missing from the log") => number(line),
        line if line.contains("messages in them are lost") || line.contains("are not a complete record") => {
            number(line) / MIN_RECORD_BYTES
        }
        // A missing segment is reported without or with the number of its messages.
        line if line.contains("missing log segment") && line.ends_with("its messages are lost") => usize::MAX,
        line if line.contains("missing log segment") => number(line),
        _ => 0,
    }
}

/// Returns the message `number` of `seed`: a unique prefix and fewer than `size` pseudorandom bytes, without newline.
pub fn message(seed: u64, number: u64, size: u64) -> Vec<u8> {
    let length = usize::try_from(Random(seed << 32 | number).below(size)).unwrap();
    let mut message = format!("{seed} {number} ").into_bytes();
    message.extend(pseudorandom_bytes(length, seed << 32 | number).iter().map(|byte| byte % 64 + 32));
    message
}

/// Returns groups of messages. `sizes` are the numbers of messages per group.
pub fn message_groups(seed: u64, sizes: &[u64]) -> Vec<Vec<Vec<u8>>> {
    let mut end = 0;
    let mut group = |count: &u64| {
        let begin = end;
        end += count;
        (begin..end).map(|number| message(seed, number, 600)).collect()
    };
    sizes.iter().map(&mut group).collect()
}

/// Copies a directory tree. Files larger than [`MAX_COPIED_FILE`] are hard-linked.
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

fn spawn(command: &mut Command) -> Child {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn();
    child.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn read_in_background(mut source: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Reads complete lines on a thread and sends each to the returned channel.
fn stream_lines(source: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = sync_channel(1 << 16);
    std::thread::spawn(move || {
        let (mut source, mut line) = (BufReader::new(source), String::new());
        while source.read_line(&mut line).is_ok_and(|_| line.ends_with('\n')) {
            if sender.send(std::mem::take(&mut line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    lines
}
