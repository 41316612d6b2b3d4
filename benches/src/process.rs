//! Processes that end with the bench, whatever becomes of it, and what `/proc` tells about them.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that is told to end when this is dropped.
pub struct Process(Child);

impl Process {
    /// Starts `command` so that it hears SIGTERM also when the bench is killed.
    pub fn start(command: &Command) -> Self {
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--pdeathsig", "TERM"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            wrapped.env(name, value.unwrap());
        }
        let null = || std::process::Stdio::null();
        Self(wrapped.stdin(null()).stdout(null()).spawn().unwrap())
    }

    /// Starts what will listen on `port`, and waits until it does.
    pub fn server(command: &Command, port: u16) -> Self {
        let mut process = Self::start(command);
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(process.0.try_wait().unwrap().is_none(), "{command:?} has ended");
            assert!(started.elapsed() < PATIENCE, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        process
    }

    /// Bytes of memory that it has now.
    pub fn memory(&self) -> u64 {
        memory(&self.0, "VmRSS:").unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let started = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && started.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port of the loopback that nobody has.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The most bytes of memory that `child` ever has; it has ended when this returns.
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

/// What the files below a directory take on disk, in bytes.
pub fn disk(dir: &Path) -> u64 {
    let size = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let blocks = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        blocks + if metadata.is_dir() { disk(&entry.path()) } else { 0 }
    };
    std::fs::read_dir(dir).unwrap().map(size).sum()
}
