//! A bare Debian machine: a container of systemd, dpkg's files and little else, in which the package is installed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::packages::{debian_package, run_checked};
use super::podman::{Podman, stdout_text};
use super::{Sandbox, find_tool};

/// What it has of this machine, with the libraries that they take.
const PROGRAMS: [&str; 6] = ["/lib/systemd/systemd", "sh", "kill", "systemctl", "logrotate", "gzip"];
const TARGETS: [&str; 8] = ["sysinit", "basic", "shutdown", "sockets", "timers", "paths", "slices", "multi-user"];

/// It ends with the test.
pub struct SystemdContainer {
    podman: Podman,
    root: PathBuf,
}

impl SystemdContainer {
    /// With the package installed, and not started; `None`: what that takes is not here.
    pub fn new() -> Option<Self> {
        let podman = Podman::new()?;
        find_tool("dpkg")?;
        let root = podman.dir().join("root");
        create_root_fs(&root)?;
        let machine = Self { podman, root };
        machine.dpkg(&["--install", debian_package()?.to_str().unwrap()]);
        // How Debian's own scripts call systemctl; that one is written in Perl.
        machine.write_file("usr/bin/deb-systemd-invoke", "#!/bin/sh\nexec systemctl \"$@\"\n");
        run_checked(Command::new("chmod").arg("+x").arg(machine.path("usr/bin/deb-systemd-invoke")));
        Some(machine)
    }

    /// dpkg on the files of the machine.
    pub fn dpkg(&self, args: &[&str]) -> String {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("--root").arg(&self.root).arg("--force-depends").args(args).stdin(Stdio::null());
        stdout_text(&run_checked(dpkg.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")))
    }

    /// Switches it on.
    pub fn boot(&self) {
        let args = ["run", "--detach", "--name", "machine", "--systemd=always", "--cap-add=all", "--network=none"];
        let root = self.root.to_str().unwrap();
        self.podman
            .run(&[args.as_slice(), &["--rootfs", root, "/lib/systemd/systemd", "--unit=basic.target"]].concat());
        super::server::wait_until("systemd is up", || {
            self.try_run(&["systemctl", "show", "--property=Version"]).status.success()
        });
    }

    /// A program in it, which must succeed; what it prints.
    pub fn run(&self, program: &[&str]) -> String {
        let output = self.try_run(program);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program:?} {said}\n{}", self.diagnostics());
        stdout_text(&output)
    }

    /// The same, which may fail.
    pub fn try_run(&self, program: &[&str]) -> Output {
        self.podman.command(&[&["exec", "machine"], program].concat()).output().unwrap()
    }

    /// What the service and systemd have said.
    pub fn diagnostics(&self) -> String {
        let units = ["systemctl", "--no-pager", "status", "sha-api.service", "sha-api.socket"];
        let said = fs::read_to_string(self.path("var/log/said")).unwrap_or_default();
        stdout_text(&self.try_run(&units)) + &said
    }

    /// What systemd knows of the service.
    pub fn unit_property(&self, name: &str) -> String {
        self.run(&["systemctl", "show", "--value", "--property", name, "sha-api.service"])
    }

    /// A file of it, from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub fn write_file(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    /// The store's local door, as `--server` says it.
    pub fn local_server_url(&self) -> String {
        format!("unix:{}", self.path("var/lib/private/sha-api/sha-api.sock").display())
    }

    /// A command of this machine on the store of that one.
    pub fn sha_api(&self, args: &[&str]) -> assert_cmd::Command {
        let mut command = Sandbox::new().sha_api(args);
        command.env_remove("SHA_API_STORE").env("SHA_API_SERVER", self.local_server_url());
        command
    }
}

/// The files that a machine starts with; `None`: this one lacks them.
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
        let place = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(&file, place).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
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
