//! Packages that `make` builds: a static binary, a container image and a Debian package. The binary and the Debian
//! package are built once per test process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use super::{has_tool, report_skip};

/// Builds the static binary and returns its directory, which is also the output directory of the packages. Returns
/// `None` if a required tool is not installed.
fn static_build_dir() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        if !has_tool("make") || !has_tool("musl-gcc") {
            return None;
        }
        let triple = target_triple();
        let libraries = run_checked(Command::new("rustc").args(["--print", "target-libdir", "--target", &triple]));
        if !Path::new(String::from_utf8(libraries.stdout).unwrap().trim()).is_dir() {
            report_skip(&format!("the Rust target {triple} is not installed"));
            return None;
        }
        run_checked(&mut make_command(&["static"]));
        Some(target_dir().join(triple).join("quick"))
    });
    built.as_deref()
}

fn target_triple() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

fn target_dir() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

/// Returns `make` with the profile that compiles fastest, in the target directory of these tests.
fn make_command(args: &[&str]) -> Command {
    let mut command = Command::new("make");
    command.args(["-C", env!("CARGO_MANIFEST_DIR"), "PROFILE=quick"]).args(args);
    for inherited in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS"] {
        command.env_remove(inherited);
    }
    command.env("CARGO", env!("CARGO")).env("CARGO_TARGET_DIR", target_dir());
    command
}

/// Runs a command and returns its output. Panics unless the command succeeds.
pub fn run_checked(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    output
}

/// Builds the static binary and returns a `make` command with `args`. Returns `None` if a required tool is not
/// installed.
pub fn packaging_command(args: &[&str]) -> Option<Command> {
    static_build_dir().map(|_| make_command(args))
}

/// Builds the Debian package and returns its path. Returns `None` if a required tool is not installed.
pub fn debian_package() -> Option<&'static Path> {
    static DEB: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = DEB.get_or_init(|| {
        if !has_tool("dpkg-deb") {
            return None;
        }
        run_checked(&mut packaging_command(&["deb"])?);
        let files = std::fs::read_dir(static_build_dir()?).unwrap().map(|entry| entry.unwrap().path());
        Some(files.filter(|path| path.extension().is_some_and(|end| end == "deb")).max().unwrap())
    });
    built.as_deref()
}
