//! What was acknowledged survives a power cut. Each round stops the process dead, shuts the file system down without
//! writing its journal out, mounts it again and asks for everything. Needs root, loop mounts and `xfs_io`.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::common::{Random, Sandbox, digest};

const CUTS: u64 = 12;

/// A file system in a file, on a loop device.
struct Disk {
    sandbox: Sandbox,
    point: PathBuf,
}

impl Disk {
    fn new(kind: &str) -> Self {
        let sandbox = Sandbox::new();
        let (image, point) = (sandbox.dir().join("image"), sandbox.dir().join("disk"));
        std::fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
        std::fs::create_dir(&point).unwrap();
        run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image));
        let disk = Self { sandbox, point };
        disk.mount();
        disk
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.sandbox.dir().join("image")).arg(&self.point));
    }

    /// Nothing that is not on the disk now ever gets there.
    fn cut(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.point));
    }

    fn remount(&self) {
        run(Command::new("umount").arg(&self.point));
        self.mount();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.process(arguments);
        command.env("SHA_API_STORE", self.point.join("store")).stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.point).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A message of a round: up to `size` bytes, unlike any other.
fn message(round: u64, number: u64, size: u64) -> Vec<u8> {
    let length = usize::try_from(Random(round << 32 | number).below(size)).unwrap();
    let mut message = format!("{round} {number} ").into_bytes();
    message.resize(message.len() + length, b'a' + u8::try_from(number % 26).unwrap());
    message
}

/// Feeds messages to `put` until it goes away, and collects the digests that it prints.
fn load(put: &mut Child, round: u64, size: u64) -> Arc<Mutex<Vec<String>>> {
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut stdin = put.stdin.take().unwrap();
    std::thread::spawn(move || {
        for number in 0.. {
            if stdin.write_all(&[message(round, number, size), b"\n".to_vec()].concat()).is_err() {
                return;
            }
        }
    });
    let (mut stdout, collected) = (BufReader::new(put.stdout.take().unwrap()), acknowledged.clone());
    std::thread::spawn(move || {
        let mut line = String::new();
        while stdout.read_line(&mut line).is_ok_and(|_| line.ends_with('\n')) {
            collected.lock().unwrap().push(std::mem::take(&mut line));
        }
    });
    acknowledged
}

/// Stops the process, so that nothing is acknowledged any more. What its pipe holds is acknowledged or not, as it
/// may be read by then.
fn stop(put: &Child, acknowledged: &Mutex<Vec<String>>) -> Vec<String> {
    let pid = Pid::from_child(put);
    kill_process(pid, Signal::STOP).unwrap();
    waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
    acknowledged.lock().unwrap().clone()
}

/// How many messages were acknowledged, and how many of them were gone after the last cut.
fn cut_again_and_again(disk: &Disk, size: u64, put: &[&str]) -> (usize, usize) {
    let mut random = Random(0xc07 + size);
    let mut all: Vec<String> = Vec::new();
    for round in 0..CUTS {
        let mut command = match put {
            [] => disk.command(&["put", "--lines"]),
            [program, arguments @ ..] => {
                let own = disk.command(&["put", "--lines"]);
                let mut command = Command::new(program);
                command.args(arguments).arg(own.get_program()).args(own.get_args());
                command.env("SHA_API_STORE", disk.point.join("store")).stdin(Stdio::piped()).stdout(Stdio::piped());
                command
            }
        };
        let mut put = command.stderr(Stdio::null()).spawn().unwrap();
        let acknowledged = load(&mut put, round, size);
        // The time of a cut is what is tried here, not something that is waited for.
        std::thread::sleep(Duration::from_millis(20 + random.below(600)));
        all.extend(stop(&put, &acknowledged));
        disk.cut();
        put.kill().unwrap();
        put.wait().unwrap();
        disk.remount();
    }
    let mut has = disk.command(&["has", "-"]).stderr(Stdio::null()).spawn().unwrap();
    let (mut stdin, digests) = (has.stdin.take().unwrap(), all.concat());
    let feeder = std::thread::spawn(move || stdin.write_all(digests.as_bytes()));
    let output = has.wait_with_output().unwrap();
    let _ = feeder.join().unwrap();
    let lost = match output.status.code() {
        Some(0 | 1) => output.stdout.split(|byte| *byte == b'\n').count() - 1,
        // Not even the store is there.
        _ => all.len(),
    };
    (all.len(), lost)
}

fn survives(kind: &str) {
    println!("{:>5} {:>9} {:>5} {:>13} {:>5}", "disk", "up to", "cuts", "acknowledged", "lost");
    for size in [10, 10_000, 4_000_000] {
        let disk = Disk::new(kind);
        let (acknowledged, lost) = cut_again_and_again(&disk, size, &[]);
        println!("{kind:>5} {size:>7} B {CUTS:>5} {acknowledged:>13} {lost:>5}");
        assert!(acknowledged > 20 && lost == 0);
        let expected = digest(&message(CUTS, 0, size));
        let put = disk.command(&["put", "--lines"]).spawn().unwrap();
        put.stdin.as_ref().unwrap().write_all(&message(CUTS, 0, size)).unwrap();
        assert_eq!(String::from_utf8(put.wait_with_output().unwrap().stdout).unwrap().trim(), expected);
    }
}

#[test]
#[ignore = "needs root and loop mounts: make test-faults"]
fn acknowledged_messages_survive_power_cuts_on_ext4() {
    survives("ext4");
}

#[test]
#[ignore = "needs root and loop mounts: make test-faults"]
fn acknowledged_messages_survive_power_cuts_on_xfs() {
    survives("xfs");
}

#[test]
#[ignore = "needs root and loop mounts: make test-faults"]
fn without_the_sync_the_same_cuts_lose_messages() {
    let disk = Disk::new("ext4");
    let no_sync = ["strace", "-D", "-f", "-o", "/dev/null", "-e", "inject=fdatasync,fsync:retval=0"];
    let (acknowledged, lost) = cut_again_and_again(&disk, 1000, &no_sync);
    println!(" ext4 without sync: {acknowledged} acknowledged, {lost} lost");
    assert!(lost > 0);
}
