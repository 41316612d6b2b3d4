//! Podman with separate storage and settings in a temporary directory, so that tests do not affect the containers of
//! the machine.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::packages::run_checked;
use super::{has_tool, report_skip};

/// A Podman instance. All its containers are removed on drop.
pub struct Podman {
    dir: TempDir,
}

/// Podman settings that use no system service and request no more than a nested container is permitted.
const CONTAINERS_CONF: &str = r#"
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"#;

impl Podman {
    /// Creates the instance. Returns `None` if Podman is not installed or the user is not root.
    pub fn new() -> Option<Self> {
        if !has_tool("podman") || !has_tool("runc") || !has_tool("nsenter") {
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            report_skip("containers with separate networks and file systems require root");
            return None;
        }
        let podman = Self { dir: tempfile::Builder::new().prefix("podman-").tempdir().unwrap() };
        let dir = podman.dir().display();
        let storage = format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{dir}/images\"\nrunroot = \"{dir}/run\"\n");
        std::fs::write(podman.dir().join("storage.conf"), storage).unwrap();
        let settings = format!("{CONTAINERS_CONF}tmp_dir = \"{dir}/tmp\"\n");
        std::fs::write(podman.dir().join("containers.conf"), settings).unwrap();
        Some(podman)
    }

    /// Returns the temporary directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes `command` use the images of this instance. `command` runs podman or buildah, also indirectly.
    pub fn configure<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("CONTAINERS_STORAGE_CONF", self.dir().join("storage.conf"));
        command.env("CONTAINERS_CONF", self.dir().join("containers.conf"))
    }

    /// Returns a `podman` command with `args`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        self.configure(command.args(args).stdin(std::process::Stdio::null()));
        command
    }

    /// Runs `podman` with `args` and returns its stdout. Panics unless the command succeeds.
    pub fn run(&self, args: &[&str]) -> String {
        stdout_text(&run_checked(&mut self.command(args)))
    }

    /// Runs a program of this machine in the network namespace of `container`.
    pub fn run_in_network_of(&self, container: &str, program: &[&str]) -> Output {
        let pid = self.run(&["inspect", "--format", "{{.State.Pid}}", container]);
        Command::new("nsenter").args(["--net", "--target", &pid]).args(program).output().unwrap()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "--all", "--force", "--time", "0", "--volumes"]).output();
    }
}

/// Returns the stdout of a command without trailing whitespace.
pub fn stdout_text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap().trim_end().to_owned()
}
