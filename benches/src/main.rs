//! Compares sha-api with alternatives on this machine, for `make bench`, `make bench-cli` and `make bench-http`.
//! Both sides do the same work with the same durability in the same run. The result is the ratio of their figures.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot continue has failed")]

mod cli;
mod competitors;
mod growth;
mod http;
mod messages;
mod plot;
mod process;
mod rounds;
mod store;
mod table;
mod tools;

use std::path::{Path, PathBuf};

/// Paths of a benchmark run.
pub struct Environment {
    /// The sha-api binary under test.
    pub binary: PathBuf,
    /// Directory for stores; it must be on the disk whose durability is measured.
    pub dir: PathBuf,
    /// Directory for the results.
    pub results: PathBuf,
}

impl Environment {
    /// Creates a temporary directory.
    pub fn scratch(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(&self.dir).unwrap()
    }

    /// Returns a command that runs sha-api on `store`.
    pub fn command(&self, store: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(&self.binary);
        command.arg("--store").arg(store);
        command
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [area, rest @ ..] = arguments.as_slice() else { panic!("no area given") };
    match (area.as_str(), rest) {
        // Started by the benchmark itself, as a separate process.
        ("fjall-lines", [dir]) => competitors::fjall_lines(Path::new(dir)),
        ("docs", [results]) => table::publish(Path::new(results), Path::new("docs/benchmarks.md")),
        (area, [binary, dir, results]) => run(area, binary, dir, results),
        _ => panic!("usage: sha-api-bench AREA BINARY DIRECTORY RESULTS, or sha-api-bench docs RESULTS"),
    }
}

fn run(area: &str, binary: &str, dir: &str, results: &str) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::create_dir_all(results).unwrap();
    let absolute = |path: &str| Path::new(path).canonicalize().unwrap();
    let env = Environment { binary: absolute(binary), dir: absolute(dir), results: absolute(results) };
    match area {
        "store" => store::run(&env),
        "growth" => growth::run(&env),
        "http" => http::run(&env),
        "cli" => cli::run(&env),
        other => panic!("unknown area: {other}"),
    }
}
