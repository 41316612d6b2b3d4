//! Podman with images, containers and settings of a test's own, in a directory that goes with it.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::packages::run_checked;
use super::{has_tool, report_skip};

/// Its containers end with it.
pub struct Podman {
    dir: TempDir,
}

/// No services of the machine are asked for anything, and no more is wanted than a container may have in one.
const CONTAINERS_CONF: &str = r#"
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"#;

impl Podman {
    /// `None`: there is none here, or it cannot do its work, and the test is skipped.
    pub fn new() -> Option<Self> {
        if !has_tool("podman") || !has_tool("runc") || !has_tool("nsenter") {
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            report_skip("containers with networks and file systems of their own take root");
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

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a command work on its images: its own, or one that calls buildah.
    pub fn configure<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("CONTAINERS_STORAGE_CONF", self.dir().join("storage.conf"));
        command.env("CONTAINERS_CONF", self.dir().join("containers.conf"))
    }

    /// `podman` with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        self.configure(command.args(args).stdin(std::process::Stdio::null()));
        command
    }

    /// The same, which must succeed; what it prints.
    pub fn run(&self, args: &[&str]) -> String {
        stdout_text(&run_checked(&mut self.command(args)))
    }

    /// A program of this machine in the network of a container.
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

/// What a command has printed, without the last newline.
pub fn stdout_text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap().trim_end().to_owned()
}
