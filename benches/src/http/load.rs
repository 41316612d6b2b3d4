//! The load that others make: wrk and redis-benchmark.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::rounds::{sized, time};
use crate::tools;

/// What wrk asks for, on how many connections.
pub struct Wrk<'a> {
    pub port: u16,
    pub connections: u64,
    /// Asked for again and again, unless there is a script.
    pub path: &'a str,
    pub script: Option<(&'a Path, Vec<String>)>,
}

impl Wrk<'_> {
    /// Replies a second; all of them are 200.
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
        let said = said(&mut command);
        assert!(!said.contains("Non-2xx"), "{said}");
        if let Some(errors) = said.lines().find(|line| line.contains("Socket errors")) {
            eprintln!("wrk, port {port}: {}", errors.trim());
        }
        let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
        rate.unwrap_or_else(|| panic!("{said}")).trim().parse().unwrap()
    }
}

/// `SET`s a second of new keys with values of so many bytes, by so many clients.
pub fn redis_sets(port: u16, clients: u64, length: usize) -> f64 {
    let mut command = tools::command("redis-benchmark");
    command.args(["-p", &port.to_string(), "-t", "set", "-c", &clients.to_string(), "-d", &length.to_string()]);
    command.args(["-n", &sized(200_000).to_string(), "-r", "1000000000", "--csv"]);
    let said = said(&mut command);
    let line = said.lines().find(|line| line.starts_with("\"SET\""));
    let rate = line.and_then(|line| line.split('"').nth(3)).unwrap_or_else(|| panic!("{said}"));
    rate.parse().unwrap()
}

fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}
