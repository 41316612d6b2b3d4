//! Acknowledged messages survive a power cut. Each round stops the process, shuts the file system down without flushing
//! its journal and mounts it again. At the end all messages are read. Needs root, loop mounts and `xfs_io`.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::Tally;
use super::disk::{LoopDisk, can_mount};
use super::strace;
use crate::common::{Random, can_trace, digest, has_tool};

/// Number of power cuts per disk.
const POWER_CUTS: u64 = 12;

/// Returns the message `number` of a round: a unique prefix and fewer than `size` bytes.
fn message(round: u64, number: u64, size: u64) -> Vec<u8> {
    let length = usize::try_from(Random(round << 32 | number).below(size)).unwrap();
    let mut message = format!("{round} {number} ").into_bytes();
    message.resize(message.len() + length, b'a' + u8::try_from(number % 26).unwrap());
    message
}

/// Writes messages to `put` on a thread until the process exits. Returns the list that collects the printed digests.
fn start_load(put: &mut Child, round: u64, size: u64) -> Arc<Mutex<Vec<String>>> {
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

/// Stops the process, so that no further message is acknowledged, and returns the digests read so far. Digests that are
/// still in the pipe do not count.
fn stop_and_collect(put: &Child, acknowledged: &Mutex<Vec<String>>) -> Vec<String> {
    let pid = Pid::from_child(put);
    kill_process(pid, Signal::STOP).unwrap();
    waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
    acknowledged.lock().unwrap().clone()
}

/// Cuts the power [`POWER_CUTS`] times under load and reads all acknowledged messages at the end. `put` wraps the
/// command.
fn cut_power_repeatedly(disk: &LoopDisk, size: u64, put: impl Fn(Command) -> Command) -> Tally {
    let mut random = Random(0xc07 + size);
    let mut all_acknowledged: Vec<String> = Vec::new();
    for round in 0..POWER_CUTS {
        let mut command = put(disk_command(disk, &["put", "--lines"]));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut put = command.stderr(Stdio::null()).spawn().unwrap();
        let acknowledged = start_load(&mut put, round, size);
        // The random time of the power cut is under test.
        std::thread::sleep(Duration::from_millis(20 + random.below(600)));
        all_acknowledged.extend(stop_and_collect(&put, &acknowledged));
        disk.cut_power();
        put.kill().unwrap();
        put.wait().unwrap();
        disk.remount();
    }
    let (found, wrong_bytes) = count_readable(disk, &all_acknowledged);
    let last = message(POWER_CUTS, 0, size);
    let put = disk_command(disk, &["put", "--lines"]).spawn().unwrap();
    put.stdin.as_ref().unwrap().write_all(&last).unwrap();
    let is_writable = put.wait_with_output().unwrap().stdout == format!("{}\n", digest(&last)).as_bytes();
    let runs = usize::try_from(POWER_CUTS).unwrap();
    let recovered = if is_writable { runs } else { 0 };
    let acknowledged = all_acknowledged.len();
    Tally { runs, acknowledged, lost: acknowledged - found, recovered, wrong_bytes, ..Tally::default() }
}

fn disk_command(disk: &LoopDisk, arguments: &[&str]) -> Command {
    let mut command = disk.sandbox().std_command(arguments);
    command.env("SHA_API_STORE", disk.mount_point().join("store")).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Gets the messages with these digests. Returns the number of correct and of wrong messages.
fn count_readable(disk: &LoopDisk, digests: &[String]) -> (usize, usize) {
    let mut missing: HashSet<_> = digests.iter().map(|line| line.trim().to_owned()).collect();
    let (count, mut wrong) = (missing.len(), 0);
    let mut get = disk_command(disk, &["get", "--lines"]).stderr(Stdio::null()).spawn().unwrap();
    let (mut stdin, digests) = (get.stdin.take().unwrap(), digests.concat());
    let writer = std::thread::spawn(move || stdin.write_all(digests.as_bytes()));
    let mut stdout = BufReader::new(get.stdout.take().unwrap());
    let mut line = Vec::new();
    while stdout.read_until(b'\n', &mut line).is_ok_and(|_| line.ends_with(b"\n")) {
        wrong += usize::from(!missing.remove(&digest(&line[..line.len() - 1])));
        line.clear();
    }
    get.wait().unwrap();
    let _ = writer.join().unwrap();
    (count - missing.len(), wrong)
}

fn assert_survives_power_cuts(kind: &str) {
    if !can_mount(&[kind]) || !has_tool("xfs_io") {
        return;
    }
    for size in [10, 10_000, 4_000_000] {
        let disk = LoopDisk::new(kind, 1 << 30);
        let tally = cut_power_repeatedly(&disk, size, |command| command);
        assert!(tally.acknowledged > 20);
        tally.assert_nothing_lost(&format!("power cut on {kind}, messages up to {size} B"));
    }
}

#[test]
#[ignore = "needs root and loop mounts: make test-faults"]
fn acknowledged_messages_survive_power_cuts_on_ext4() {
    assert_survives_power_cuts("ext4");
}

#[test]
#[ignore = "needs root and loop mounts: make test-faults"]
fn acknowledged_messages_survive_power_cuts_on_xfs() {
    assert_survives_power_cuts("xfs");
}

#[test]
#[ignore = "needs root and loop mounts: make test-faults"]
fn without_fsync_the_same_power_cuts_lose_messages() {
    if !can_mount(&["ext4"]) || !has_tool("xfs_io") || !can_trace() {
        return;
    }
    let disk = LoopDisk::new("ext4", 1 << 30);
    let without_sync = |command| {
        let mut strace = Command::new("strace");
        strace.args(["-D", "-f", "-o", "/dev/null", "-e", "inject=fdatasync,fsync:retval=0"]);
        strace::exec_under(&mut strace, &command);
        strace
    };
    cut_power_repeatedly(&disk, 1000, without_sync).assert_loss_detected("power cut on ext4 without fsync");
}
