//! The memory usage of `put` and `get` does not depend on the length of the input.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use crate::common::{Sandbox, digest};

/// Returns the peak resident memory of a process in MiB.
fn peak_memory_mib(process: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn a_million_lines_are_stored_in_less_than_200_mib() {
    const COUNT: u32 = 1_000_000;
    let sandbox = Sandbox::new();
    let mut command = sandbox.std_command(["put", "--lines"]);
    let mut put = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = put.stdin.take().unwrap();
    // The thread returns stdin, so that the process still runs when its memory is measured.
    let feeder = std::thread::spawn(move || {
        for number in 1..=COUNT {
            writeln!(stdin, "{number}").unwrap();
        }
        stdin
    });
    let lines = BufReader::new(put.stdout.take().unwrap()).lines();
    let last = lines.take(COUNT as usize).last().unwrap().unwrap();
    assert_eq!(last, digest(COUNT.to_string().as_bytes()));
    let peak = peak_memory_mib(&put);
    drop(feeder.join().unwrap());
    assert!(put.wait().unwrap().success());
    assert!(peak < 200, "{peak} MiB");
}

#[test]
fn large_messages_are_read_one_at_a_time() {
    let sandbox = Sandbox::new();
    let message = vec![b'x'; 16 << 20];
    sandbox.sha_api(["put"]).write_stdin(message.clone()).assert().code(0);
    let mut command = sandbox.std_command(["get", "-"]);
    let mut get = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = get.stdin.take().unwrap();
    stdin.write_all((digest(&message) + "\n").repeat(40).as_bytes()).unwrap();
    let mut stdout = get.stdout.take().unwrap();
    let got = std::io::copy(&mut std::io::Read::take(&mut stdout, 40 * message.len() as u64), &mut std::io::sink());
    assert_eq!(got.unwrap(), 40 * message.len() as u64);
    let peak = peak_memory_mib(&get);
    drop(stdin);
    assert!(get.wait().unwrap().success());
    assert!(peak < 100, "{peak} MiB");
}
