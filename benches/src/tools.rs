//! The programs that others make, from Debian's packages: installed if we may, else named.

use std::path::Path;
use std::process::{Command, Stdio};

/// A program, and the package that has it.
pub type Tool = (&'static str, &'static str);

/// Where administrators' programs are is not in everybody's `PATH`.
const ALSO: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Sees to it that all of `tools` are there.
pub fn need(tools: &[Tool]) {
    let missing: Vec<_> = tools.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return;
    }
    let names = missing.join(" ");
    let may = rustix::process::geteuid().is_root() && is_there("apt-get");
    assert!(may, "missing: {names}. As root on Debian they are installed by themselves; else: apt-get install {names}");
    eprintln!("installing {names}");
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        // In the single-user runlevel no package starts its service.
        command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        assert!(command.arg("-qq").args(arguments).stdout(Stdio::null()).status().unwrap().success());
    };
    apt(&["update"]);
    apt(&[&["install", "-y", "--no-install-recommends"], missing.as_slice()].concat());
}

fn is_there(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    program.starts_with('/') && Path::new(program).exists()
        || path.split(':').chain(ALSO).any(|dir| Path::new(dir).join(program).is_file())
}

/// A command that also looks where administrators' programs are.
pub fn command(program: &str) -> Command {
    let also = ALSO.iter().map(|dir| Path::new(dir).join(program)).find(|path| path.is_file());
    Command::new(also.unwrap_or_else(|| program.into()))
}
