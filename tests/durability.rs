//! Acknowledged messages survive `kill -9` at any moment and a truncated log.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use predicates::prelude::*;

use crate::common::{Digest, Random, Sandbox, digest, pseudorandom_bytes};

/// Returns a message that is unique for `round` and `number`.
fn message(round: u64, number: u64) -> Vec<u8> {
    let mut message = format!("round {round}, message {number} ").into_bytes();
    message.extend(
        pseudorandom_bytes(usize::try_from(number * number % 3000).unwrap(), number).iter().map(|byte| byte % 64 + 32),
    );
    message
}

/// Puts messages until `count` are acknowledged and kills the process. Returns the numbers of all acknowledged
/// messages.
fn put_and_kill(sandbox: &Sandbox, round: u64, count: u64) -> Vec<u64> {
    let mut command = sandbox.std_command(["put", "--lines"]);
    let mut put = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = put.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        for number in 0.. {
            let line = [message(round, number), b"\n".to_vec()].concat();
            if stdin.write_all(&line).is_err() {
                return;
            }
        }
    });
    let mut numbers = Vec::new();
    let mut stdout = BufReader::new(put.stdout.take().unwrap());
    let mut line = String::new();
    let mut killed = false;
    loop {
        if !killed && numbers.len() as u64 >= count {
            put.kill().unwrap();
            killed = true;
        }
        line.clear();
        // Complete lines that are still in the pipe are acknowledgements. An incomplete line is not.
        if stdout.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
            break;
        }
        let number = numbers.len() as u64;
        assert_eq!(line.trim_end(), digest(&message(round, number)));
        numbers.push(number);
    }
    put.wait().unwrap();
    writer.join().unwrap();
    numbers
}

#[test]
fn every_printed_digest_is_readable_after_any_kill() {
    let sandbox = Sandbox::new();
    let mut random = Random(0x5eed);
    let mut all = Vec::new();
    for round in 0..36 {
        // Every sixth process is killed while the store opens, the others under load.
        let count = if round % 6 == 0 { 0 } else { random.below(4000) };
        let numbers = put_and_kill(&sandbox, round, count);
        all.extend(numbers.into_iter().map(|number| (round, number)));
        let recent: String =
            all.iter().rev().take(5000).map(|(round, number)| digest(&message(*round, *number)) + "\n").collect();
        if sandbox.store().join("format").exists() {
            sandbox.sha_api(["has", "-"]).write_stdin(recent).assert().code(0).stdout("");
        }
    }
    assert!(all.len() > 10_000, "{}", all.len());
    let digests: String = all.iter().map(|(round, number)| digest(&message(*round, *number)) + "\n").collect();
    let output = sandbox.sha_api(["get", "--lines"]).write_stdin(digests).assert().code(0).get_output().stdout.clone();
    let mut lines = output.split(|byte| *byte == b'\n');
    for (round, number) in &all {
        assert!(lines.next().unwrap() == message(*round, *number), "round {round}, message {number}");
    }
}

#[test]
fn a_log_truncated_in_its_last_record_keeps_all_earlier_records() {
    let sandbox = Sandbox::with_messages(&[b"first", b"second"]);
    let log = sandbox.store().join("log/00000001.log");
    let data_end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let begin = data_end(&std::fs::read(&log).unwrap()).next_multiple_of(8);
    let last = pseudorandom_bytes(300, 9);
    sandbox.sha_api(["put"]).write_stdin(last.clone()).assert().code(0);
    let intact = std::fs::read(&log).unwrap();
    for cut in (begin..begin + 48 + last.len()).step_by(7) {
        for zeros in [false, true] {
            let damaged = Sandbox::new();
            copy_dir(&sandbox.store(), &damaged.store());
            let mut bytes = intact[..cut].to_vec();
            bytes.resize(if zeros { intact.len() } else { cut }, 0);
            std::fs::write(damaged.store().join("log/00000001.log"), bytes).unwrap();
            std::fs::remove_dir_all(damaged.store().join("index")).unwrap();
            let both = [digest(b"first"), digest(b"second")];
            damaged.sha_api(["get", "--lines"]).args(&both).assert().code(0).stdout("first\nsecond\n");
            damaged.sha_api(["get", &digest(&last)]).assert().code(1).stdout("");
            // A later put is durable, also if the index is lost again.
            let recorded = predicate::str::starts_with("sha-api: data loss: number of lost messages: 1;");
            damaged.sha_api(["put"]).write_stdin(last.clone()).assert().code(0).stderr(recorded);
            std::fs::remove_dir_all(damaged.store().join("index")).unwrap();
            damaged.sha_api(["get", &digest(&last)]).assert().code(0).stdout(last.clone());
        }
    }
}

#[test]
fn a_torn_tail_is_quarantined_and_reported() {
    let sandbox = Sandbox::with_messages(&[b"first"]);
    let log = sandbox.store().join("log/00000001.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let garbage = pseudorandom_bytes(100, 11);
    bytes[end.next_multiple_of(8)..][..100].copy_from_slice(&garbage);
    std::fs::write(&log, &bytes).unwrap();
    let warning = predicate::str::contains("are not a complete record").and(predicate::str::contains("quarantine"));
    sandbox.sha_api(["get", &digest(b"first")]).assert().code(0).stdout("first").stderr(warning);
    sandbox.sha_api(["get", &digest(b"first")]).assert().code(0).stdout("first").stderr("");
    let file = std::fs::read_dir(sandbox.store().join("quarantine")).unwrap().next().unwrap().unwrap();
    assert!(std::fs::read(file.path()).unwrap().starts_with(&garbage));
}

#[test]
fn damage_in_the_middle_of_the_log_loses_one_record_and_is_reported() {
    let messages: Vec<Vec<u8>> = (0..20).map(|number| pseudorandom_bytes(100 + number, number as u64)).collect();
    let input: Vec<_> = messages.iter().map(Vec::as_slice).collect();
    for part in ["header", "bytes"] {
        let sandbox = Sandbox::new();
        for message in &input {
            sandbox.sha_api(["put"]).write_stdin(message.to_vec()).assert().code(0);
        }
        let log = sandbox.store().join("log/00000001.log");
        let mut bytes = std::fs::read(&log).unwrap();
        let offset = bytes.windows(100).position(|window| window == &messages[10][..100]).unwrap();
        bytes[if part == "header" { offset - 40 } else { offset + 40 }] ^= 0x10;
        std::fs::write(&log, &bytes).unwrap();
        std::fs::remove_dir_all(sandbox.store().join("index")).unwrap();
        let warning = predicate::str::contains(if part == "header" { "are damaged" } else { "is corrupt in the log" });
        sandbox.sha_api(["stats"]).assert().code(0).stderr(warning);
        for (number, message) in messages.iter().enumerate() {
            let get = sandbox.sha_api(["get", &digest(message)]).assert();
            match (number, part) {
                (10, "header") => get.code(1).stdout(""),
                (10, _) => get.code(4).stdout(""),
                _ => get.code(0).stdout(message.clone()),
            };
        }
    }
}

#[test]
fn a_message_that_looks_like_records_is_not_parsed_as_records() {
    let inner = Sandbox::with_messages(&[b"never put into the other store"]);
    let log = std::fs::read(inner.store().join("log/00000001.log")).unwrap();
    // Each message contains a log, at a different alignment. The index and the first record header are destroyed.
    let sandbox = Sandbox::new();
    let messages: Vec<Vec<u8>> = (0..8).map(|shift| [vec![b'x'; shift], log[..200].to_vec()].concat()).collect();
    for message in &messages {
        sandbox.sha_api(["put"]).write_stdin(message.clone()).assert().code(0);
    }
    let path = sandbox.store().join("log/00000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[64] ^= 0xff;
    std::fs::write(&path, bytes).unwrap();
    std::fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    let list = sandbox.sha_api(["list"]).assert().code(0).get_output().stdout.clone();
    let mut expected: Vec<_> = messages[1..].iter().map(|message| Digest::compute(message).to_string()).collect();
    expected.sort();
    assert_eq!(String::from_utf8(list).unwrap().lines().collect::<Vec<_>>(), expected);
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &to.join(entry.file_name())),
            false => std::fs::copy(entry.path(), to.join(entry.file_name())).map(drop).unwrap(),
        }
    }
}
