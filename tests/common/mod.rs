//! What the tests share: a store in a directory of its own, and the built binary on it.

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

pub const FOO: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

/// A store in a temporary directory, which goes with it.
pub struct Sandbox {
    dir: TempDir,
    /// Where the messages are, if not in the directory.
    url: Option<String>,
}

impl Sandbox {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), url: None }
    }

    /// The same with its messages in a database.
    pub fn on_database(self, url: &str) -> Self {
        Self { url: Some(url.to_owned()), ..self }
    }

    /// What `--store` is.
    pub fn location(&self) -> std::ffi::OsString {
        self.url.as_ref().map_or_else(|| self.store().into(), Into::into)
    }

    /// A store that holds these messages.
    pub fn with_messages(messages: &[&[u8]]) -> Self {
        let sandbox = Self::new();
        sandbox.put_all(messages);
        sandbox
    }

    /// Puts messages that hold no NUL.
    pub fn put_all(&self, messages: &[&[u8]]) {
        let input: Vec<u8> = messages.iter().flat_map(|message| [message, b"\0".as_slice()].concat()).collect();
        self.sha_api(["put", "--null"]).write_stdin(input).assert().success();
    }

    /// The directory around the store, for files of the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The store's directory; it is made by the first put.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Writes a file beside the store.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The binary on this store, with nothing of the caller's environment but PATH.
    pub fn sha_api<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        Command::from_std(self.std_command(args))
    }

    /// The same, to be started and ended by the test.
    pub fn std_command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> std::process::Command {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("sha-api"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.dir()).env("SHA_API_STORE", self.location()).args(args);
        command
    }

    /// A `put` that has stored a message and has the store until its stdin ends, which it does when it is waited for.
    pub fn spawn_put_holding_lock(&self, message: &str) -> Child {
        let mut put =
            self.std_command(["put", "--lines"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writeln!(put.stdin.as_ref().unwrap(), "{message}").unwrap();
        let mut line = String::new();
        BufReader::new(put.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), digest(message.as_bytes()));
        put
    }

    /// So many commands at once, each of which puts its number.
    pub fn put_concurrently(&self, count: u32) {
        let start = |number: u32| {
            let mut command = self.std_command(["put", "--wait", "100s", &number.to_string()]);
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

    /// Flips a bit of a message where it is kept. A server may have the store.
    pub fn flip_message_bit(&self, message: &[u8]) {
        let log = self.store().join("log/00000001.log");
        let at = std::fs::read(&log).unwrap().windows(message.len()).position(|bytes| bytes == message).unwrap();
        let file = std::fs::File::options().write(true).open(&log).unwrap();
        file.write_all_at(&[message[0] ^ 1], at as u64).unwrap();
    }

    /// A shell on this store, where the binary is called `sha-api`.
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

/// Bytes that look random and are the same every time.
pub fn pseudorandom_bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..length).map(|_| random.next().to_le_bytes()[3]).collect()
}

/// Numbers for tests: xorshift64* (Vigna, 2016), the same from the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A tool that asks servers, without any proxy that is between whoever runs the tests and the world.
pub fn command_without_proxy(program: impl AsRef<OsStr>) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
}

/// Whether a tool is there; without it a test is skipped.
pub fn has_tool(name: &str) -> bool {
    find_tool(name).is_some()
}

/// Where a tool is, which may be one that only root has on its PATH; without it a test is skipped.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&paths).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = dirs.map(|dir| dir.join(name)).find(|path| path.is_file());
    if found.is_none() {
        report_skip(&format!("there is no `{name}` on PATH"));
    }
    found
}

/// Whether processes can be traced here; without that a test is skipped.
pub fn can_trace() -> bool {
    if !has_tool("strace") {
        return false;
    }
    let tried = std::process::Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        report_skip("processes cannot be traced");
    }
    can
}

/// Says why a test is skipped; where everything must be there, that is a failure.
pub fn report_skip(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "cannot be tested here: {why}");
    eprintln!("skipped: {why}");
}

/// The text of a digest.
pub fn digest(message: &[u8]) -> String {
    Digest::compute(message).to_string()
}
