//! External load generators: wrk and redis-benchmark.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::rounds::{scaled, time};
use crate::tools;

/// A wrk run.
pub struct Wrk<'a> {
    pub port: u16,
    pub connections: u64,
    /// Path that is requested repeatedly; unused if there is a script.
    pub path: &'a str,
    pub script: Option<(&'a Path, Vec<String>)>,
}

impl Wrk<'_> {
    /// Returns responses per second. Panics if a response is not 2xx or 3xx.
    pub fn run(&self) -> f64 {
        let Self { port, connections, path, script } = self;
        let seconds = time().as_secs_f64().ceil();
        let mut command = tools::command("wrk");
        command.args(["--threads", "2", "--timeout", "10s"]);
        command.args(["--connections", &connections.to_string(), "--duration", &format!("{seconds}s")]);
        if let Some((file, _)) = script {
            command.arg("--script").arg(file);
        }
        command.arg(format!("https://localhost:{port}{path}"));
        if let Some((_, arguments)) = script {
            command.arg("--").args(arguments);
        }
        let output = output_of(&mut command);
        assert!(!output.contains("Non-2xx"), "{output}");
        if let Some(errors) = output.lines().find(|line| line.contains("Socket errors")) {
            eprintln!("wrk, port {port}: {}", errors.trim());
        }
        let rate = output.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
        rate.unwrap_or_else(|| panic!("{output}")).trim().parse().unwrap()
    }
}

/// Returns `SET`s per second of new keys with values of `length` bytes by `clients` clients.
pub fn redis_sets(port: u16, clients: u64, length: usize) -> f64 {
    let mut command = tools::command("redis-benchmark");
    command.args(["-p", &port.to_string(), "-t", "set", "-c", &clients.to_string(), "-d", &length.to_string()]);
    command.args(["-n", &scaled(200_000).to_string(), "-r", "1000000000", "--csv"]);
    let output = output_of(&mut command);
    let line = output.lines().find(|line| line.starts_with("\"SET\""));
    let rate = line.and_then(|line| line.split('"').nth(3)).unwrap_or_else(|| panic!("{output}"));
    rate.parse().unwrap()
}

/// Runs a command and returns its stdout. Panics if it fails.
fn output_of(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}
