//! What `make bench` and its sisters run: sha-api and those whom people would pick instead, in turn, on this machine.
//! The rule: both sides do the same work, equally durable, in the same run; what counts is the ratio.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

mod cli;
mod growth;
mod http;
mod messages;
mod opponents;
mod plot;
mod process;
mod rounds;
mod store;
mod table;
mod tools;

use std::path::{Path, PathBuf};

/// Where everything is.
pub struct Place {
    /// The program that is measured.
    pub binary: PathBuf,
    /// For stores; on a disk, else nothing durable is measured.
    pub dir: PathBuf,
    /// For figures.
    pub results: PathBuf,
}

impl Place {
    /// A directory that goes away again.
    pub fn scratch(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(&self.dir).unwrap()
    }

    /// The program, on the store of this directory.
    pub fn command(&self, store: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(&self.binary);
        command.arg("--store").arg(store);
        command
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [area, rest @ ..] = arguments.as_slice() else { panic!("which area?") };
    match (area.as_str(), rest) {
        // What the bench starts itself, as a process of its own.
        ("fjall-lines", [dir]) => opponents::fjall_lines(Path::new(dir)),
        ("readme", [results]) => table::publish(Path::new(results), Path::new("README.md")),
        (area, [binary, dir, results]) => run(area, binary, dir, results),
        _ => panic!("sha-api-bench AREA BINARY DIRECTORY RESULTS"),
    }
}

fn run(area: &str, binary: &str, dir: &str, results: &str) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::create_dir_all(results).unwrap();
    let absolute = |path: &str| Path::new(path).canonicalize().unwrap();
    let place = Place { binary: absolute(binary), dir: absolute(dir), results: absolute(results) };
    match area {
        "store" => store::run(&place),
        "growth" => growth::run(&place),
        "http" => http::run(&place),
        "cli" => cli::run(&place),
        other => panic!("no area {other}"),
    }
}
