//! A file system of its own, in a file on a loop device: it can be cut from power, and it can be full.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Sandbox, has_tool, report_skip};

pub struct LoopDisk {
    sandbox: Sandbox,
    mount_point: PathBuf,
}

impl LoopDisk {
    /// With a new file system of so many bytes.
    pub fn new(kind: &str, size: u64) -> Self {
        let sandbox = Sandbox::new();
        let (image, point) = (sandbox.dir().join("image"), sandbox.dir().join("disk"));
        std::fs::File::create(&image).unwrap().set_len(size).unwrap();
        std::fs::create_dir(&point).unwrap();
        // Nothing is kept back for root: root runs these tests.
        let arguments = if kind == "ext4" { &["-q", "-m", "0"][..] } else { &["-q"] };
        run_checked(Command::new(format!("mkfs.{kind}")).args(arguments).arg(&image));
        let disk = Self { sandbox, mount_point: point };
        disk.mount();
        disk
    }

    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Nothing that is not on the disk now ever gets there.
    pub fn cut_power(&self) {
        run_checked(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.mount_point));
    }

    pub fn remount(&self) {
        run_checked(Command::new("umount").arg(&self.mount_point));
        self.mount();
    }

    fn mount(&self) {
        run_checked(
            Command::new("mount").args(["-o", "loop"]).arg(self.sandbox.dir().join("image")).arg(&self.mount_point),
        );
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount_point).status();
    }
}

/// Whether such disks can be made here.
pub fn can_mount(kinds: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        report_skip("only root mounts disks");
        return false;
    }
    if !Path::new("/dev/loop-control").exists() {
        report_skip("there are no loop devices");
        return false;
    }
    kinds.iter().all(|kind| has_tool(&format!("mkfs.{kind}"))) && has_tool("mount") && has_tool("umount")
}

fn run_checked(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
