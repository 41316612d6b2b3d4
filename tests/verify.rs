//! `verify` finds what is wrong with a store, says it with exit code 4, and `--repair` puts it right.

use std::fs;
use std::path::PathBuf;

use predicates::prelude::*;

use crate::common::{Sandbox, digest, pseudorandom_bytes};

const MESSAGE_COUNT: u64 = 50;

/// A store of `COUNT` messages of 10,000 bytes.
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

/// Changes bytes of the log: all of `what`, each bit of them.
fn invert_bytes(sandbox: &Sandbox, what: &[u8]) {
    let mut log = fs::read(first_segment(sandbox)).unwrap();
    let at = log.windows(what.len()).position(|window| window == what).unwrap();
    log[at..at + what.len()].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(first_segment(sandbox), log).unwrap();
}

/// What stands in front of a message in the log.
fn record_header(sandbox: &Sandbox, message: &[u8]) -> Vec<u8> {
    let log = fs::read(first_segment(sandbox)).unwrap();
    let at = log.windows(message.len()).position(|window| window == message).unwrap();
    log[at - 48..at].to_vec()
}

#[test]
fn an_intact_store_verifies_and_stats_show_the_time() {
    let (sandbox, _) = store_with_messages();
    let whole = format!("{MESSAGE_COUNT} messages, {} bytes: whole\n", MESSAGE_COUNT * 10_000);
    sandbox.sha_api(["stats"]).assert().code(0).stdout(predicate::str::contains("verified  -\ndamaged   0\n"));
    sandbox.sha_api(["verify"]).assert().code(0).stdout(whole).stderr("");
    let verified = predicate::str::is_match("verified  20..-..-..T[0-9:.]+Z\ndamaged   0\n").unwrap();
    sandbox.sha_api(["stats"]).assert().code(0).stdout(verified);
    let json =
        format!("{{\"bytes\":{},\"damaged\":0,\"mended\":0,\"messages\":{MESSAGE_COUNT}}}\n", MESSAGE_COUNT * 10_000);
    sandbox.sha_api(["verify", "--json"]).assert().code(0).stdout(json).stderr("");
}

#[test]
fn an_empty_store_verifies() {
    let sandbox = Sandbox::with_messages(&[]);
    sandbox.sha_api(["verify"]).assert().code(0).stdout("0 messages, 0 bytes: whole\n").stderr("");
}

#[test]
fn a_corrupt_message_is_reported_quarantined_and_absent() {
    let (sandbox, messages) = store_with_messages();
    let (one, other) = (digest(&messages[3]), digest(&messages[30]));
    invert_bytes(&sandbox, &messages[3][5000..5010]);
    invert_bytes(&sandbox, &messages[30][..10]);
    let found = format!("corrupt    {one}\ncorrupt    {other}\n48 messages, 480000 bytes: whole; damaged: 2\n");
    sandbox.sha_api(["verify"]).assert().code(4).stdout(found.clone()).stderr("");
    sandbox.sha_api(["verify"]).assert().code(4).stdout(found.clone()).stderr("");
    sandbox.sha_api(["stats"]).assert().code(0).stdout(predicate::str::contains("damaged   2\n"));
    let mended = found.replace("damaged: 2", "damaged: 2, of these mended: 0");
    let said = predicate::str::contains(format!("moved the corrupt message {one} to "));
    sandbox.sha_api(["verify", "--repair"]).assert().code(4).stdout(mended).stderr(said);
    let kept = fs::read(sandbox.store().join(format!("quarantine/{one}.corrupt"))).unwrap();
    assert_eq!(kept.iter().zip(&messages[3]).filter(|(one, other)| one != other).count(), 10);
    let whole = "48 messages, 480000 bytes: whole\n";
    sandbox.sha_api(["verify"]).assert().code(0).stdout(whole).stderr("");
    sandbox.sha_api(["get", &one]).assert().code(1).stdout("");
    fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    sandbox.sha_api(["get", "--quiet", &one]).assert().code(1).stdout("");
    sandbox.sha_api(["get", &digest(&messages[4])]).assert().code(0).stdout(messages[4].clone());
}

#[test]
fn corrupt_and_lost_messages_are_fetched_from_another_store() {
    let (sandbox, messages) = store_with_messages();
    let spare = sandbox.dir().join("spare").display().to_string();
    let store = sandbox.store().display().to_string();
    sandbox.sha_api(["copy", &store, &spare]).assert().code(0).stdout("50 copied, 500000 bytes; 0 were there\n");
    invert_bytes(&sandbox, &messages[3][..10]);
    let lost = record_header(&sandbox, &messages[30]);
    invert_bytes(&sandbox, &lost);
    let verified = sandbox.sha_api(["verify", "--repair", "--from", &spare]).assert().code(4).stderr("");
    let stdout = String::from_utf8_lossy(&verified.get_output().stdout).into_owned();
    assert!(stdout.contains(&format!("corrupt    {}\n", digest(&messages[3]))), "{stdout}");
    assert!(stdout.contains("damaged    10048 bytes of segment 1, from offset "), "{stdout}");
    assert!(stdout.contains(&format!("lost       {}\n", digest(&messages[30]))), "{stdout}");
    // The gap is said for what it is, though all that was in it is back.
    assert!(stdout.contains("damaged: 3, of these mended: 2"), "{stdout}");
    for message in &messages {
        sandbox.sha_api(["get", &digest(message)]).assert().code(0).stdout(message.clone()).stderr("");
    }
    sandbox.sha_api(["verify"]).assert().code(0).stdout("50 messages, 500000 bytes: whole\n").stderr("");
}

#[test]
fn a_gap_in_the_log_is_quarantined_and_its_messages_are_absent() {
    let (sandbox, messages) = store_with_messages();
    let lost = record_header(&sandbox, &messages[7]);
    invert_bytes(&sandbox, &lost);
    // Its bytes as well: else they would still be found by the index, and put right.
    invert_bytes(&sandbox, &messages[7][..10]);
    sandbox.sha_api(["verify", "--repair"]).assert().code(4);
    let quarantine = fs::read_dir(sandbox.store().join("quarantine")).unwrap();
    let gap = quarantine.map(|file| file.unwrap().path()).find(|path| path.extension().is_some_and(|end| end == "gap"));
    let gap = fs::read(gap.unwrap()).unwrap();
    assert!(gap.windows(9_990).any(|window| window == &messages[7][10..]));
    sandbox.sha_api(["get", &digest(&messages[7])]).assert().code(1).stdout("");
    sandbox.sha_api(["verify"]).assert().code(0).stdout("49 messages, 490000 bytes: whole\n").stderr("");
}

#[test]
fn a_message_with_a_damaged_header_is_stored_again() {
    let (sandbox, messages) = store_with_messages();
    let lost = record_header(&sandbox, &messages[7]);
    invert_bytes(&sandbox, &lost);
    let verified = sandbox.sha_api(["verify", "--repair"]).assert().code(4).stderr("");
    let stdout = String::from_utf8_lossy(&verified.get_output().stdout).into_owned();
    assert!(stdout.contains("damaged: 2, of these mended: 1"), "{stdout}");
    fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    sandbox.sha_api(["get", "--quiet", &digest(&messages[7])]).assert().code(0).stdout(messages[7].clone());
    sandbox.sha_api(["verify"]).assert().code(0).stdout("50 messages, 500000 bytes: whole\n").stderr("");
}

#[test]
fn a_put_stores_a_message_again_that_only_the_index_has() {
    let (sandbox, messages) = store_with_messages();
    let lost = record_header(&sandbox, &messages[7]);
    invert_bytes(&sandbox, &lost);
    sandbox.sha_api(["put"]).write_stdin(messages[7].clone()).assert().code(0);
    fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    sandbox.sha_api(["get", "--quiet", &digest(&messages[7])]).assert().code(0).stdout(messages[7].clone());
}

/// A store of 12 messages of 20,000 bytes, three in a segment.
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
    let said = "sha-api: missing log segment: 00000002.log; number of lost messages: 3\n";
    for (number, message) in messages.iter().enumerate() {
        let get = sandbox.sha_api(["get", &digest(message)]).assert();
        match number {
            3..6 => get
                .code(4)
                .stdout("")
                .stderr(predicate::str::contains(said).and(predicate::str::contains("is corrupt"))),
            _ => get.code(0).stdout(message.clone()).stderr(said),
        };
    }
    let verified = sandbox.sha_api(["verify", "--quiet"]).assert().code(4).stderr(said);
    let stdout = String::from_utf8_lossy(&verified.get_output().stdout).into_owned();
    assert_eq!(stdout.matches("lost       ").count(), 3, "{stdout}");
    let repair = ["verify", "--quiet", "--repair", "--from", "spare"];
    sandbox.sha_api(repair).current_dir(sandbox.dir()).assert().code(0).stderr(said);
    sandbox.sha_api(["verify"]).assert().code(0).stdout("12 messages, 240000 bytes: whole\n").stderr("");
}

#[test]
fn messages_of_a_missing_segment_are_absent_after_the_loss_is_accepted() {
    let (sandbox, messages) = store_with_segments();
    fs::remove_file(sandbox.store().join("log/00000002.log")).unwrap();
    sandbox.sha_api(["verify", "--repair"]).assert().code(4);
    let still_lost = predicate::str::contains(format!("lost       {}\n", digest(&messages[3])));
    sandbox.sha_api(["verify", "--accept-loss"]).assert().code(0).stdout(still_lost);
    sandbox.sha_api(["verify"]).assert().code(0).stdout("9 messages, 180000 bytes: whole\n").stderr("");
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
fn from_requires_repair() {
    let (sandbox, _) = store_with_messages();
    sandbox.sha_api(["verify", "--from", "elsewhere"]).assert().code(2).stdout("");
}

#[test]
fn compressed_messages_are_verified() {
    let sandbox = Sandbox::new();
    let text = "to be or not to be ".repeat(1000);
    sandbox
        .sha_api(["put", "--compression", "3", &text])
        .assert()
        .code(0)
        .stdout(format!("{}\n", digest(text.as_bytes())));
    sandbox.sha_api(["verify"]).assert().code(0).stdout("1 messages, 19000 bytes: whole\n").stderr("");
    let mut log = fs::read(first_segment(&sandbox)).unwrap();
    log[64 + 48 + 20] ^= 1;
    fs::write(first_segment(&sandbox), log).unwrap();
    let found = format!("corrupt    {}\n0 messages, 0 bytes: whole; damaged: 1\n", digest(text.as_bytes()));
    sandbox.sha_api(["verify"]).assert().code(4).stdout(found).stderr("");
    sandbox.sha_api(["get", &digest(text.as_bytes())]).assert().code(4).stdout("");
}
