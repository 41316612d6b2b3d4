//! A file system in a file on a loop device, for tests of power cuts and of a full disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::packages::run_checked;
use crate::common::{Sandbox, has_tool, report_skip};

/// A mounted file system, which is unmounted on drop.
pub struct LoopDisk {
    sandbox: Sandbox,
    mount_point: PathBuf,
}

impl LoopDisk {
    /// Creates and mounts a file system of type `kind` with `size` bytes.
    pub fn new(kind: &str, size: u64) -> Self {
        let sandbox = Sandbox::new();
        let (image, mount_point) = (sandbox.dir().join("image"), sandbox.dir().join("disk"));
        std::fs::File::create(&image).unwrap().set_len(size).unwrap();
        std::fs::create_dir(&mount_point).unwrap();
        // No blocks are reserved for root, because root runs these tests.
        let arguments = if kind == "ext4" { &["-q", "-m", "0"][..] } else { &["-q"] };
        run_checked(Command::new(format!("mkfs.{kind}")).args(arguments).arg(&image));
        let disk = Self { sandbox, mount_point };
        disk.mount();
        disk
    }

    /// Returns a sandbox outside the disk.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Returns the directory where the disk is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Shuts the file system down without flushing: data that is not on the disk yet is lost.
    pub fn cut_power(&self) {
        run_checked(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.mount_point));
    }

    /// Unmounts the disk and mounts it again.
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

/// Returns whether disks with these file systems can be created and mounted. Reports a skipped test if they cannot.
pub fn can_mount(kinds: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        report_skip("mounting a disk requires root");
        return false;
    }
    if !Path::new("/dev/loop-control").exists() {
        report_skip("there are no loop devices");
        return false;
    }
    kinds.iter().all(|kind| has_tool(&format!("mkfs.{kind}"))) && has_tool("mount") && has_tool("umount")
}
