//! A file system of its own, in a file on a loop device: it can be cut from power, and it can be full.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Sandbox, has_tool, skipped};

pub struct Disk {
    sandbox: Sandbox,
    point: PathBuf,
}

impl Disk {
    /// With a new file system of so many bytes.
    pub fn new(kind: &str, size: u64) -> Self {
        let sandbox = Sandbox::new();
        let (image, point) = (sandbox.dir().join("image"), sandbox.dir().join("disk"));
        std::fs::File::create(&image).unwrap().set_len(size).unwrap();
        std::fs::create_dir(&point).unwrap();
        // Nothing is kept back for root: root runs these tests.
        let arguments = if kind == "ext4" { &["-q", "-m", "0"][..] } else { &["-q"] };
        run(Command::new(format!("mkfs.{kind}")).args(arguments).arg(&image));
        let disk = Self { sandbox, point };
        disk.mount();
        disk
    }

    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Nothing that is not on the disk now ever gets there.
    pub fn cut(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.point));
    }

    pub fn remount(&self) {
        run(Command::new("umount").arg(&self.point));
        self.mount();
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.sandbox.dir().join("image")).arg(&self.point));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.point).status();
    }
}

/// Whether such disks can be made here.
pub fn can_be_made(kinds: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        skipped("only root mounts disks");
        return false;
    }
    if !Path::new("/dev/loop-control").exists() {
        skipped("there are no loop devices");
        return false;
    }
    kinds.iter().all(|kind| has_tool(&format!("mkfs.{kind}"))) && has_tool("mount") && has_tool("umount")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
