//! External programs from Debian packages. Missing packages are installed if the benchmark runs as root; otherwise it
//! panics with their names.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program and the package that contains it.
pub type Tool = (&'static str, &'static str);

/// Directories of system programs, which are not in the `PATH` of every user.
const SBIN_DIRS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Installs the packages of missing `tools`. Panics with their names if that is not possible.
pub fn require(tools: &[Tool]) {
    let missing: Vec<_> =
        tools.iter().filter(|(program, _)| !is_installed(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return;
    }
    let names = missing.join(" ");
    assert!(install(&missing), "missing programs: run apt-get install {names}, or run the benchmark as root on Debian");
}

/// Installs packages with apt-get. Returns `false` without root or apt-get, or on failure.
fn install(packages: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() || !is_installed("apt-get") {
        return false;
    }
    eprintln!("installing {}", packages.join(" "));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        // `RUNLEVEL=1` keeps packages from starting their services.
        command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        command.arg("-qq").args(arguments).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    apt(&["update"]) && apt(&[&["install", "-y", "--no-install-recommends"], packages].concat())
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    program.starts_with('/') && Path::new(program).exists()
        || path.split(':').chain(SBIN_DIRS).any(|dir| Path::new(dir).join(program).is_file())
}

/// Returns a command for `program`, which is also searched for in [`SBIN_DIRS`].
pub fn command(program: &str) -> Command {
    let also = SBIN_DIRS.iter().map(|dir| Path::new(dir).join(program)).find(|path| path.is_file());
    Command::new(also.unwrap_or_else(|| program.into()))
}

/// Returns the Python of a virtual environment in `dir` that has `package`. Creates the environment on first use.
pub fn python_with(dir: &Path, package: &str) -> PathBuf {
    let venv = dir.join("venv");
    let python = venv.join("bin/python");
    let run = |command: &mut Command| command.stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if run(Command::new(&python).args(["-c", "import bottle"]).stderr(Stdio::null())) {
        return python;
    }
    let can = run(Command::new("python3").args(["-c", "import ensurepip"]).stderr(Stdio::null()));
    assert!(can || install(&["python3-venv"]), "python3-venv is missing: run apt-get install python3-venv");
    assert!(
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv)),
        "cannot create a virtual environment in {}",
        venv.display()
    );
    assert!(
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", package])),
        "pip cannot install {package}"
    );
    python
}
