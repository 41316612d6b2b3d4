//! A minimal Debian system in a container: systemd, the dpkg database and few programs. The Debian package is installed
//! in it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::packages::{debian_package, run_checked};
use super::podman::{Podman, stdout_text};
use super::{Sandbox, find_tool};

/// Programs that are copied from this machine, with their shared libraries.
const PROGRAMS: [&str; 6] = ["/lib/systemd/systemd", "sh", "kill", "systemctl", "logrotate", "gzip"];
/// systemd targets whose unit files are copied from this machine.
const TARGETS: [&str; 8] = ["sysinit", "basic", "shutdown", "sockets", "timers", "paths", "slices", "multi-user"];

/// A container that runs systemd after [`SystemdContainer::boot`]. The container is removed on drop.
pub struct SystemdContainer {
    podman: Podman,
    root: PathBuf,
}

impl SystemdContainer {
    /// Creates the root file system and installs the package. The container is not started. Returns `None` if a
    /// required tool is not installed or the user is not root.
    pub fn new() -> Option<Self> {
        let podman = Podman::new()?;
        find_tool("dpkg")?;
        let root = podman.dir().join("root");
        create_root_fs(&root)?;
        let container = Self { podman, root };
        container.dpkg(&["--install", debian_package()?.to_str().unwrap()]);
        // Debian's maintainer scripts call deb-systemd-invoke. The original needs Perl.
        container.write_file("usr/bin/deb-systemd-invoke", "#!/bin/sh\nexec systemctl \"$@\"\n");
        run_checked(Command::new("chmod").arg("+x").arg(container.path("usr/bin/deb-systemd-invoke")));
        Some(container)
    }

    /// Runs dpkg of this machine on the root file system of the container and returns its stdout.
    pub fn dpkg(&self, args: &[&str]) -> String {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("--root").arg(&self.root).arg("--force-depends").args(args).stdin(Stdio::null());
        stdout_text(&run_checked(dpkg.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")))
    }

    /// Starts the container and waits until systemd answers.
    pub fn boot(&self) {
        let args = ["run", "--detach", "--name", "machine", "--systemd=always", "--cap-add=all", "--network=none"];
        let root = self.root.to_str().unwrap();
        self.podman
            .run(&[args.as_slice(), &["--rootfs", root, "/lib/systemd/systemd", "--unit=basic.target"]].concat());
        super::server::wait_until("systemd is up", || {
            self.try_run(&["systemctl", "show", "--property=Version"]).status.success()
        });
    }

    /// Runs a program in the container and returns its stdout. Panics unless the program succeeds.
    pub fn run(&self, program: &[&str]) -> String {
        let output = self.try_run(program);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program:?} {stderr}\n{}", self.diagnostics());
        stdout_text(&output)
    }

    /// Runs a program in the container and returns its output. The program may fail.
    pub fn try_run(&self, program: &[&str]) -> Output {
        self.podman.command(&[&["exec", "machine"], program].concat()).output().unwrap()
    }

    /// Returns the status of the units and the log file that a test may have directed the service's output to.
    pub fn diagnostics(&self) -> String {
        let units = ["systemctl", "--no-pager", "status", "sha-api.service", "sha-api.socket"];
        let log = fs::read_to_string(self.path("var/log/output")).unwrap_or_default();
        stdout_text(&self.try_run(&units)) + &log
    }

    /// Returns the value of a property of the service, as systemd reports it.
    pub fn unit_property(&self, name: &str) -> String {
        self.run(&["systemctl", "show", "--value", "--property", name, "sha-api.service"])
    }

    /// Returns the path on this machine of a file in the container.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Writes a file in the container, creating its parent directories.
    pub fn write_file(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    /// Returns the local socket of the store as a value of `--server`.
    pub fn local_server_url(&self) -> String {
        format!("unix:{}", self.path("var/lib/private/sha-api/sha-api.sock").display())
    }

    /// Returns a command of this machine that uses the store in the container.
    pub fn sha_api(&self, args: &[&str]) -> assert_cmd::Command {
        let mut command = Sandbox::new().sha_api(args);
        command.env_remove("SHA_API_STORE").env("SHA_API_SERVER", self.local_server_url());
        command
    }
}

/// Creates the root file system with the files that systemd and dpkg need. Returns `None` if a program is not
/// installed.
fn create_root_fs(root: &Path) -> Option<()> {
    for dir in ["bin", "lib", "lib64", "sbin"] {
        fs::create_dir_all(root.join("usr").join(dir)).unwrap();
        symlink(format!("usr/{dir}"), root.join(dir)).unwrap();
    }
    for dir in [
        "etc/systemd/system",
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
        "var/lib/logrotate",
        "var/log",
    ] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let programs: Option<Vec<_>> = PROGRAMS.iter().map(|name| find_tool(name)).collect();
    let mut files: BTreeSet<PathBuf> = programs?.into_iter().collect();
    let libraries = stdout_text(&run_checked(Command::new("ldd").args(&files)));
    files.extend(
        libraries.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')).map(PathBuf::from),
    );
    files.extend(TARGETS.iter().map(|name| PathBuf::from(format!("/lib/systemd/system/{name}.target"))));
    for file in files {
        let target = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    for (file, text) in [
        ("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/machine-id", ""),
        ("var/lib/dpkg/status", ""),
        ("var/lib/dpkg/available", ""),
    ] {
        fs::write(root.join(file), text).unwrap();
    }
    Some(())
}
