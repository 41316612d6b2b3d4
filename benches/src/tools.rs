//! The programs that others make, from Debian's packages: installed if we may, else named.

use std::path::{Path, PathBuf};
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
    assert!(
        install(&missing),
        "missing: as root on Debian they are installed by themselves; else: apt-get install {names}"
    );
}

/// Installs packages, if we may.
fn install(packages: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() || !is_there("apt-get") {
        return false;
    }
    eprintln!("installing {}", packages.join(" "));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        // In the single-user runlevel no package starts its service.
        command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        command.arg("-qq").args(arguments).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    apt(&["update"]) && apt(&[&["install", "-y", "--no-install-recommends"], packages].concat())
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

/// A Python of its own that has this package, made in `dir` the first time.
pub fn python_with(dir: &Path, package: &str) -> PathBuf {
    let venv = dir.join("venv");
    let python = venv.join("bin/python");
    let run = |command: &mut Command| command.stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if run(Command::new(&python).args(["-c", "import bottle"]).stderr(Stdio::null())) {
        return python;
    }
    let can = run(Command::new("python3").args(["-c", "import ensurepip"]).stderr(Stdio::null()));
    assert!(can || install(&["python3-venv"]), "missing: apt-get install python3-venv");
    assert!(run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv)), "no venv in {}", venv.display());
    assert!(run(Command::new(&python).args(["-m", "pip", "install", "--quiet", package])), "pip brings no {package}");
    python
}
