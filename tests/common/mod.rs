//! Shared test helpers. A [`Sandbox`] is a store in a temporary directory, with the built binary run on it.

pub mod browser;
pub mod cluster;
pub mod connect_proxy;
pub mod packages;
pub mod podman;
pub mod proxy;
pub mod scripted_server;
pub mod server;
pub mod store_access;
pub mod store_factory;
pub mod systemd_container;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use assert_cmd::Command;
use tempfile::TempDir;

pub use sha_api::digest::Digest;

/// SHA-256 digest of the message `foo`.
pub const FOO: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

/// A store in a temporary directory, which is deleted when the sandbox is dropped.
pub struct Sandbox {
    dir: TempDir,
    /// URL of the database that holds the messages. `None`: the messages are in the directory.
    url: Option<String>,
}

impl Sandbox {
    /// Creates the temporary directory. The store does not exist yet.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), url: None }
    }

    /// Returns this sandbox with the database at `url` as its store.
    pub fn on_database(self, url: &str) -> Self {
        Self { url: Some(url.to_owned()), ..self }
    }

    /// Returns the value of `--store`: the path of the directory or the URL of the database.
    pub fn location(&self) -> std::ffi::OsString {
        self.url.as_ref().map_or_else(|| self.store().into(), Into::into)
    }

    /// Creates a store that holds `messages`, which must not contain NUL.
    pub fn with_messages(messages: &[&[u8]]) -> Self {
        let sandbox = Self::new();
        sandbox.put_all(messages);
        sandbox
    }

    /// Puts `messages`, which must not contain NUL, with one command.
    pub fn put_all(&self, messages: &[&[u8]]) {
        let input: Vec<u8> = messages.iter().flat_map(|message| [message, b"\0".as_slice()].concat()).collect();
        self.sha_api(["put", "--null"]).write_stdin(input).assert().success();
    }

    /// Returns the temporary directory, which contains the store and other files of the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the path of the store, which the first `put` creates.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Writes the file `name` next to the store and returns its path.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Returns a command that runs the binary on this store. Of the caller's environment it inherits only PATH.
    pub fn sha_api<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        Command::from_std(self.std_command(args))
    }

    /// Returns the command of [`Sandbox::sha_api`] as a standard command, so that the test controls the process.
    pub fn std_command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> std::process::Command {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("sha-api"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.dir()).env("SHA_API_STORE", self.location()).args(args);
        command
    }

    /// Starts a `put` and waits until it has stored `message`. The process holds the store lock until its stdin is
    /// closed, which `Child::wait` does.
    pub fn spawn_put_holding_lock(&self, message: &str) -> Child {
        let mut put =
            self.std_command(["put", "--lines"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writeln!(put.stdin.as_ref().unwrap(), "{message}").unwrap();
        let mut line = String::new();
        BufReader::new(put.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), digest(message.as_bytes()));
        put
    }

    /// Runs `count` `put` commands at the same time, each with its number as the message. Panics unless all succeed
    /// with empty stderr.
    pub fn put_concurrently(&self, count: u32) {
        let start = |number: u32| {
            let mut command =
                self.std_command(["put", "--lock-timeout", "100s", "--ready-timeout", "100s", &number.to_string()]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let puts: Vec<_> = (0..count).map(start).collect();
        for (number, put) in puts.into_iter().enumerate() {
            let output = put.wait_with_output().unwrap();
            let stdout = String::from_utf8_lossy(&output.stdout);
            assert_eq!(stdout.trim(), digest(number.to_string().as_bytes()), "{output:?}");
            assert_eq!(output.stderr, b"");
        }
    }

    /// Flips the lowest bit of the first byte of `message` in the first segment of the log. A server may have the
    /// store open.
    pub fn flip_message_bit(&self, message: &[u8]) {
        let log = self.store().join("log/00000001.log");
        let offset = std::fs::read(&log).unwrap().windows(message.len()).position(|bytes| bytes == message).unwrap();
        let file = std::fs::File::options().write(true).open(&log).unwrap();
        file.write_all_at(&[message[0] ^ 1], offset as u64).unwrap();
    }

    /// Runs a Bash script in the temporary directory. In the script, `sha-api` is the binary on this store.
    pub fn run_shell(&self, script: &str) -> Output {
        let binary: &Path = assert_cmd::cargo::cargo_bin!("sha-api");
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(binary.parent().unwrap().to_owned()).chain(std::env::split_paths(&paths));
        let mut command = std::process::Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(self.dir()).stdin(Stdio::null());
        command.env_clear().env("PATH", std::env::join_paths(paths).unwrap());
        command.env("HOME", self.dir()).env("SHA_API_STORE", self.location()).output().unwrap()
    }
}

/// Returns pseudorandom bytes that depend on `length` and `seed` only.
pub fn pseudorandom_bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..length).map(|_| random.next().to_le_bytes()[3]).collect()
}

/// A deterministic random number generator: xorshift64* (Vigna, 2016). The field is the seed, then the state.
pub struct Random(pub u64);

impl Random {
    /// Returns the next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number less than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Returns a command whose environment has no proxy variables, so that a client connects directly to the server.
pub fn command_without_proxy(program: impl AsRef<OsStr>) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
}

/// Returns whether the program `name` is installed. Reports a skipped test if it is not.
pub fn has_tool(name: &str) -> bool {
    find_tool(name).is_some()
}

/// Returns the path of the program `name`, searching PATH and the sbin directories. Reports a skipped test and returns
/// `None` if it is not installed.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&paths).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = dirs.map(|dir| dir.join(name)).find(|path| path.is_file());
    if found.is_none() {
        report_skip(&format!("`{name}` is not on PATH"));
    }
    found
}

/// Returns whether strace can trace processes on this machine. Reports a skipped test if it cannot.
pub fn can_trace() -> bool {
    if !has_tool("strace") {
        return false;
    }
    let traced = std::process::Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    let can_trace = traced.is_ok_and(|output| output.status.success());
    if !can_trace {
        report_skip("processes cannot be traced");
    }
    can_trace
}

/// Prints that a test is skipped for `reason`, and adds it to the list that `make test` prints at the end. Panics if
/// `CI=true`, because all tools must be installed there.
pub fn report_skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "a test must not be skipped in CI: {reason}");
    eprintln!("skipped: {reason}");
    let list = concat!(env!("CARGO_TARGET_TMPDIR"), "/skipped");
    let mut list = std::fs::File::options().create(true).append(true).open(list).unwrap();
    // libtest names the thread of a test after the test.
    let line = format!("{}: {}\n", std::thread::current().name().unwrap_or("a thread"), reason.trim_end());
    list.write_all(line.as_bytes()).unwrap();
}

/// Returns the digest of `message` in hexadecimal.
pub fn digest(message: &[u8]) -> String {
    Digest::compute(message).to_string()
}

/// Returns the non-empty files below `dir`, sorted.
pub fn non_empty_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.flat_map(|path| if path.is_dir() { non_empty_files(&path) } else { vec![path] }).collect();
    files.retain(|path| path.metadata().unwrap().len() > 0);
    files.sort();
    files
}
