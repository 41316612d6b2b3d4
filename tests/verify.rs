//! `verify` reports damage to a store and exits with status 4. `--repair` quarantines or restores the damaged messages.

use std::fs;
use std::path::PathBuf;

use predicates::prelude::*;

use crate::common::{Sandbox, digest, pseudorandom_bytes};

const MESSAGE_COUNT: u64 = 50;

/// Creates a store with `MESSAGE_COUNT` messages of 10,000 bytes. Returns the store and the messages.
fn store_with_messages() -> (Sandbox, Vec<Vec<u8>>) {
    let sandbox = Sandbox::new();
    let messages: Vec<_> = (0..MESSAGE_COUNT).map(|seed| pseudorandom_bytes(10_000, seed + 1)).collect();
    for (number, message) in messages.iter().enumerate() {
        sandbox.write_file(&format!("{number:02}"), message);
    }
    assert!(sandbox.run_shell("sha-api put --file ??").status.success());
    (sandbox, messages)
}

fn first_segment(sandbox: &Sandbox) -> PathBuf {
    sandbox.store().join("log/00000001.log")
}

/// Inverts the first occurrence of `bytes` in the first log segment.
fn invert_bytes(sandbox: &Sandbox, bytes: &[u8]) {
    let mut log = fs::read(first_segment(sandbox)).unwrap();
    let start = log.windows(bytes.len()).position(|window| window == bytes).unwrap();
    log[start..start + bytes.len()].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(first_segment(sandbox), log).unwrap();
}

/// Returns the 48-byte record header of a message in the first log segment.
fn record_header(sandbox: &Sandbox, message: &[u8]) -> Vec<u8> {
    let log = fs::read(first_segment(sandbox)).unwrap();
    let start = log.windows(message.len()).position(|window| window == message).unwrap();
    log[start - 48..start].to_vec()
}

#[test]
fn an_intact_store_verifies_and_stats_show_the_time() {
    let (sandbox, _) = store_with_messages();
    let report = format!("{MESSAGE_COUNT} messages, {} bytes: intact\n", MESSAGE_COUNT * 10_000);
    sandbox.sha_api(["stats"]).assert().code(0).stdout(predicate::str::contains("verified  -\ndamaged   0\n"));
    sandbox.sha_api(["verify"]).assert().code(0).stdout(report).stderr("");
    let verified = predicate::str::is_match("verified  20..-..-..T[0-9:.]+Z\ndamaged   0\n").unwrap();
    sandbox.sha_api(["stats"]).assert().code(0).stdout(verified);
    let json =
        format!("{{\"bytes\":{},\"damaged\":0,\"messages\":{MESSAGE_COUNT},\"repaired\":0}}\n", MESSAGE_COUNT * 10_000);
    sandbox.sha_api(["verify", "--json"]).assert().code(0).stdout(json).stderr("");
}

#[test]
fn an_empty_store_verifies() {
    let sandbox = Sandbox::with_messages(&[]);
    sandbox.sha_api(["verify"]).assert().code(0).stdout("0 messages, 0 bytes: intact\n").stderr("");
}

#[test]
fn a_corrupt_message_is_reported_quarantined_and_absent() {
    let (sandbox, messages) = store_with_messages();
    let (first, second) = (digest(&messages[3]), digest(&messages[30]));
    invert_bytes(&sandbox, &messages[3][5000..5010]);
    invert_bytes(&sandbox, &messages[30][..10]);
    let report = format!("corrupt    {first}\ncorrupt    {second}\n48 messages, 480000 bytes: intact; damaged: 2\n");
    sandbox.sha_api(["verify"]).assert().code(4).stdout(report.clone()).stderr("");
    sandbox.sha_api(["verify"]).assert().code(4).stdout(report.clone()).stderr("");
    sandbox.sha_api(["stats"]).assert().code(0).stdout(predicate::str::contains("damaged   2\n"));
    let repair_report = report.replace("damaged: 2", "damaged: 2, repaired: 0");
    let moved = predicate::str::contains(format!("moved the corrupt message {first} to "));
    sandbox.sha_api(["verify", "--repair"]).assert().code(4).stdout(repair_report).stderr(moved);
    let quarantined = fs::read(sandbox.store().join(format!("quarantine/{first}.corrupt"))).unwrap();
    assert_eq!(quarantined.iter().zip(&messages[3]).filter(|(actual, original)| actual != original).count(), 10);
    sandbox.sha_api(["verify"]).assert().code(0).stdout("48 messages, 480000 bytes: intact\n").stderr("");
    sandbox.sha_api(["get", &first]).assert().code(1).stdout("");
    fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    sandbox.sha_api(["get", "--quiet", &first]).assert().code(1).stdout("");
    sandbox.sha_api(["get", &digest(&messages[4])]).assert().code(0).stdout(messages[4].clone());
}

#[test]
fn corrupt_and_lost_messages_are_fetched_from_another_store() {
    let (sandbox, messages) = store_with_messages();
    let spare = sandbox.dir().join("spare").display().to_string();
    let store = sandbox.store().display().to_string();
    sandbox.sha_api(["copy", &store, &spare]).assert().code(0).stdout("50 copied, 500000 bytes; 0 already stored\n");
    invert_bytes(&sandbox, &messages[3][..10]);
    let header = record_header(&sandbox, &messages[30]);
    invert_bytes(&sandbox, &header);
    let verified = sandbox.sha_api(["verify", "--repair", "--from", &spare]).assert().code(4).stderr("");
    let stdout = String::from_utf8_lossy(&verified.get_output().stdout).into_owned();
    assert!(stdout.contains(&format!("corrupt    {}\n", digest(&messages[3]))), "{stdout}");
    assert!(stdout.contains("damaged    10048 bytes of segment 1, from offset "), "{stdout}");
    assert!(stdout.contains(&format!("lost       {}\n", digest(&messages[30]))), "{stdout}");
    // The damaged range counts as not repaired, although the message in it was restored.
    assert!(stdout.contains("damaged: 3, repaired: 2"), "{stdout}");
    for message in &messages {
        sandbox.sha_api(["get", &digest(message)]).assert().code(0).stdout(message.clone()).stderr("");
    }
    sandbox.sha_api(["verify"]).assert().code(0).stdout("50 messages, 500000 bytes: intact\n").stderr("");
}

#[test]
fn a_gap_in_the_log_is_quarantined_and_its_messages_are_absent() {
    let (sandbox, messages) = store_with_messages();
    let header = record_header(&sandbox, &messages[7]);
    invert_bytes(&sandbox, &header);
    // The message is damaged, too. Otherwise the repair would find it through the index and restore it.
    invert_bytes(&sandbox, &messages[7][..10]);
    sandbox.sha_api(["verify", "--repair"]).assert().code(4);
    let quarantine = fs::read_dir(sandbox.store().join("quarantine")).unwrap();
    let gap = quarantine.map(|file| file.unwrap().path()).find(|path| path.extension().is_some_and(|end| end == "gap"));
    let gap = fs::read(gap.unwrap()).unwrap();
    assert!(gap.windows(9_990).any(|window| window == &messages[7][10..]));
    sandbox.sha_api(["get", &digest(&messages[7])]).assert().code(1).stdout("");
    sandbox.sha_api(["verify"]).assert().code(0).stdout("49 messages, 490000 bytes: intact\n").stderr("");
}

#[test]
fn a_message_with_a_damaged_header_is_stored_again() {
    let (sandbox, messages) = store_with_messages();
    let header = record_header(&sandbox, &messages[7]);
    invert_bytes(&sandbox, &header);
    let verified = sandbox.sha_api(["verify", "--repair"]).assert().code(4).stderr("");
    let stdout = String::from_utf8_lossy(&verified.get_output().stdout).into_owned();
    assert!(stdout.contains("damaged: 2, repaired: 1"), "{stdout}");
    fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    sandbox.sha_api(["get", "--quiet", &digest(&messages[7])]).assert().code(0).stdout(messages[7].clone());
    sandbox.sha_api(["verify"]).assert().code(0).stdout("50 messages, 500000 bytes: intact\n").stderr("");
}

#[test]
fn a_put_stores_a_message_again_if_the_log_scan_cannot_find_it() {
    let (sandbox, messages) = store_with_messages();
    let header = record_header(&sandbox, &messages[7]);
    invert_bytes(&sandbox, &header);
    sandbox.sha_api(["put"]).write_stdin(messages[7].clone()).assert().code(0);
    fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    sandbox.sha_api(["get", "--quiet", &digest(&messages[7])]).assert().code(0).stdout(messages[7].clone());
}

/// Creates a store with 12 messages of 20,000 bytes, three per segment. Returns the store and the messages.
fn store_with_segments() -> (Sandbox, Vec<Vec<u8>>) {
    let sandbox = Sandbox::new();
    let messages: Vec<_> = (0..12).map(|seed| pseudorandom_bytes(20_000, seed + 1)).collect();
    for (number, message) in messages.iter().enumerate() {
        sandbox.write_file(&format!("{number:02}"), message);
    }
    assert!(sandbox.run_shell("sha-api --segment-size 64KiB put --file ??").status.success());
    (sandbox, messages)
}

#[test]
fn a_missing_segment_is_reported_and_its_messages_are_lost_until_fetched() {
    let (sandbox, messages) = store_with_segments();
    assert!(sandbox.run_shell("sha-api copy store spare").status.success());
    fs::remove_file(sandbox.store().join("log/00000002.log")).unwrap();
    let warning = "sha-api: missing log segment: 00000002.log; number of lost messages: 3\n";
    for (number, message) in messages.iter().enumerate() {
        let get = sandbox.sha_api(["get", &digest(message)]).assert();
        match number {
            3..6 => get
                .code(4)
                .stdout("")
                .stderr(predicate::str::contains(warning).and(predicate::str::contains("is corrupt"))),
            _ => get.code(0).stdout(message.clone()).stderr(warning),
        };
    }
    let verified = sandbox.sha_api(["verify", "--quiet"]).assert().code(4).stderr(warning);
    let stdout = String::from_utf8_lossy(&verified.get_output().stdout).into_owned();
    assert_eq!(stdout.matches("lost       ").count(), 3, "{stdout}");
    let repair = ["verify", "--quiet", "--repair", "--from", "spare"];
    sandbox.sha_api(repair).current_dir(sandbox.dir()).assert().code(0).stderr(warning);
    sandbox.sha_api(["verify"]).assert().code(0).stdout("12 messages, 240000 bytes: intact\n").stderr("");
}

#[test]
fn messages_of_a_missing_segment_are_absent_after_the_loss_is_accepted() {
    let (sandbox, messages) = store_with_segments();
    fs::remove_file(sandbox.store().join("log/00000002.log")).unwrap();
    sandbox.sha_api(["verify", "--repair"]).assert().code(4);
    let still_lost = predicate::str::contains(format!("lost       {}\n", digest(&messages[3])));
    sandbox.sha_api(["verify", "--accept-loss"]).assert().code(0).stdout(still_lost);
    sandbox.sha_api(["verify"]).assert().code(0).stdout("9 messages, 180000 bytes: intact\n").stderr("");
    sandbox.sha_api(["get", &digest(&messages[3])]).assert().code(1).stdout("");
}

/// Damages the header and the payload of the last record of the first segment, which is followed by other segments.
fn damage_end_of_sealed_segment(sandbox: &Sandbox, messages: &[Vec<u8>]) {
    let header = record_header(sandbox, &messages[2]);
    invert_bytes(sandbox, &messages[2][..10]);
    invert_bytes(sandbox, &header);
}

#[test]
fn damage_at_the_end_of_a_sealed_segment_is_reported_when_the_index_is_rebuilt() {
    let (sandbox, messages) = store_with_segments();
    damage_end_of_sealed_segment(&sandbox, &messages);
    fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    let gap = predicate::str::contains("20048 bytes of the log are damaged (segment 1, offset 40160)");
    sandbox.sha_api(["list"]).assert().code(0).stderr(gap);
    let listed = "damaged    20048 bytes of segment 1, from offset 40160\n";
    sandbox.sha_api(["verify"]).assert().code(4).stdout(predicate::str::contains(listed));
}

#[test]
fn damage_at_the_end_of_a_sealed_segment_is_quarantined_by_a_repair() {
    let (sandbox, messages) = store_with_segments();
    damage_end_of_sealed_segment(&sandbox, &messages);
    let listed = "damaged    20048 bytes of segment 1, from offset 40160\n";
    sandbox.sha_api(["verify", "--repair"]).assert().code(4).stdout(predicate::str::contains(listed));
    assert!(!first_segment(&sandbox).exists());
    let gap = fs::read(sandbox.store().join("quarantine/00000001-40160.gap")).unwrap();
    assert!(gap.windows(19_990).any(|window| window == &messages[2][10..]));
    for message in messages.iter().filter(|message| **message != messages[2]) {
        sandbox.sha_api(["get", &digest(message)]).assert().code(0).stdout(message.clone());
    }
}

#[test]
fn the_from_flag_requires_repair() {
    let (sandbox, _) = store_with_messages();
    sandbox.sha_api(["verify", "--from", "elsewhere"]).assert().code(2).stdout("");
}

#[test]
fn compressed_messages_are_verified() {
    let sandbox = Sandbox::new();
    let text = "to be or not to be ".repeat(1000);
    let text_digest = digest(text.as_bytes());
    sandbox.sha_api(["put", "--compression", "3", &text]).assert().code(0).stdout(format!("{text_digest}\n"));
    sandbox.sha_api(["verify"]).assert().code(0).stdout("1 messages, 19000 bytes: intact\n").stderr("");
    let mut log = fs::read(first_segment(&sandbox)).unwrap();
    log[64 + 48 + 20] ^= 1;
    fs::write(first_segment(&sandbox), log).unwrap();
    let report = format!("corrupt    {text_digest}\n0 messages, 0 bytes: intact; damaged: 1\n");
    sandbox.sha_api(["verify"]).assert().code(4).stdout(report).stderr("");
    sandbox.sha_api(["get", &text_digest]).assert().code(4).stdout("");
}
