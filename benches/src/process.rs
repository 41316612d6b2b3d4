//! Child processes that end when the benchmark ends or is killed, and their memory as `/proc` reports it.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Maximum time for a process to start or to end.
const START_STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A child process. Dropping it sends SIGTERM and waits, then kills it.
pub struct Process(Child);

impl Process {
    /// Starts `command` so that it receives SIGTERM even if the benchmark is killed.
    pub fn start(command: &Command) -> Self {
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--pdeathsig", "TERM"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            wrapped.env(name, value.unwrap());
        }
        let null = || std::process::Stdio::null();
        Self(wrapped.stdin(null()).stdout(null()).spawn().unwrap())
    }

    /// Starts a server and blocks until it accepts connections on `port`.
    pub fn server(command: &Command, port: u16) -> Self {
        let mut process = Self::start(command);
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(process.0.try_wait().unwrap().is_none(), "{command:?} has ended");
            assert!(started.elapsed() < START_STOP_TIMEOUT, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        process
    }

    /// Returns the resident memory in bytes.
    pub fn memory(&self) -> u64 {
        memory(&self.0, "VmRSS:").unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let started = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && started.elapsed() < START_STOP_TIMEOUT {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns a free port of the loopback interface.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for `child` to end successfully and returns its peak resident memory in bytes.
pub fn peak(child: &mut Child) -> u64 {
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = memory(child, "VmHWM:").unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(child.wait().unwrap().success());
    peak
}

fn memory(child: &Child, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Returns the disk usage of the files below a directory, in bytes.
pub fn disk(dir: &Path) -> u64 {
    let size = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let blocks = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        blocks + if metadata.is_dir() { disk(&entry.path()) } else { 0 }
    };
    std::fs::read_dir(dir).unwrap().map(size).sum()
}
