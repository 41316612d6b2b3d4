//! `rm` removes for good, on every way to a message, and gives the space back.

use predicates::prelude::*;

use crate::common::server::{Server, build_request, wait_until};
use crate::common::{FOO, Sandbox, digest, pseudorandom_bytes};

#[test]
fn a_removed_message_is_absent_until_it_is_put_again() {
    let sandbox = Sandbox::with_messages(&[b"foo", b"bar"]);
    sandbox.sha_api(["rm", FOO]).assert().code(0).stdout("").stderr("");
    let absent = format!("sha-api: absent: {FOO}\n");
    sandbox.sha_api(["get", FOO]).assert().code(1).stdout("").stderr(absent.clone());
    sandbox.sha_api(["get", &FOO[..8]]).assert().code(1).stdout("");
    sandbox.sha_api(["has", FOO]).assert().code(1).stdout(format!("{FOO}\n")).stderr("");
    sandbox.sha_api(["list"]).assert().code(0).stdout(format!("{}\n", digest(b"bar"))).stderr("");
    sandbox.sha_api(["rm", FOO]).assert().code(1).stdout("").stderr(absent);
    sandbox.sha_api(["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
}

#[test]
fn rm_reads_digests_from_stdin_and_reports_the_absent_ones() {
    let sandbox = Sandbox::with_messages(&[b"foo", b"bar"]);
    let [bar, baz] = [b"bar", b"baz"].map(|message| digest(message));
    let lines = format!("{FOO}\n{baz}\n{bar}\n");
    let absent = format!("sha-api: absent: {baz}\n");
    sandbox.sha_api(["rm", "-"]).write_stdin(lines.clone()).assert().code(1).stdout("").stderr(absent);
    sandbox.sha_api(["list"]).assert().code(0).stdout("").stderr("");
    let json = format!("{{\"digest\":\"{FOO}\",\"removed\":false}}\n");
    let said = format!("{{\"err_msg\":\"absent: {FOO}\"}}\n");
    sandbox.sha_api(["rm", "--json", FOO]).assert().code(1).stdout(json).stderr(said);
}

#[test]
fn rm_rejects_prefixes() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let refused = predicate::str::contains("expected 64 hex digits, got 8");
    sandbox.sha_api(["rm", &FOO[..8]]).assert().code(2).stdout("").stderr(refused);
    sandbox.sha_api(["has", FOO]).assert().code(0);
}

#[test]
fn a_removed_message_stays_removed_when_the_index_is_lost() {
    let sandbox = Sandbox::with_messages(&[b"foo", b"bar"]);
    sandbox.sha_api(["rm", FOO]).assert().code(0);
    std::fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    sandbox.sha_api(["list"]).assert().code(0).stdout(format!("{}\n", digest(b"bar")));
}

/// What the log takes on disk.
fn log_size(sandbox: &Sandbox) -> u64 {
    let files = std::fs::read_dir(sandbox.store().join("log")).unwrap();
    // A segment may go at any moment.
    files.filter_map(|file| file.unwrap().metadata().ok()).map(|file| file.len()).sum()
}

#[test]
fn the_space_of_removed_messages_is_reclaimed_and_nothing_else_is_lost() {
    const LENGTH: u64 = 100_000;
    let sandbox = Sandbox::new();
    let messages: Vec<_> = (0..60).map(|seed| pseudorandom_bytes(usize::try_from(LENGTH).unwrap(), seed + 1)).collect();
    for (number, message) in messages.iter().enumerate() {
        sandbox.write_file(&format!("{number:02}"), message);
    }
    assert!(sandbox.run_shell("sha-api put --file ??").status.success());
    assert!(log_size(&sandbox) > 60 * LENGTH);
    let mut gone = Vec::new();
    // The second time, the removals of the first are in the way; the last time, nothing is left.
    for (round, rest) in [(0..40, 20), (40..55, 5), (55..60, 0)] {
        let digests: Vec<_> = messages[round].iter().map(|message| digest(message)).collect();
        sandbox.sha_api(["rm".to_owned()].iter().chain(&digests)).assert().code(0).stdout("").stderr("");
        gone.extend(digests);
        assert!(log_size(&sandbox) < (rest + 1) * LENGTH + (1 << 20), "{rest}: {}", log_size(&sandbox));
        let has = sandbox.sha_api(["has".to_owned()].iter().chain(&gone)).assert().code(1).stderr("");
        assert_eq!(String::from_utf8_lossy(&has.get_output().stdout).lines().count(), gone.len());
        for message in &messages[gone.len()..] {
            sandbox.sha_api(["get", &digest(message)]).assert().code(0).stdout(message.clone()).stderr("");
        }
        // What is left of the log says the same as the index.
        let list = sandbox.sha_api(["list"]).assert().code(0).get_output().stdout.clone();
        std::fs::remove_dir_all(sandbox.store().join("index")).unwrap();
        sandbox.sha_api(["list"]).assert().code(0).stdout(list);
        sandbox.sha_api(["verify"]).assert().code(0).stderr("");
    }
}

#[test]
fn a_running_server_reclaims_space() {
    let server = Server::http(&[]);
    let (log, mut client) = (log_size(&server.sandbox), server.local_client());
    assert!(log < 1 << 20);
    let messages: Vec<_> = (0..60).map(|seed| pseudorandom_bytes(100_000, seed + 1)).collect();
    for message in &messages {
        let put = build_request("PUT", &format!("/messages/{}", digest(message)), "", message);
        assert_eq!(client.call_bytes(put).status, 201);
    }
    assert!(self::log_size(&server.sandbox) > 6_000_000);
    for message in &messages[..50] {
        let delete = build_request("DELETE", &format!("/messages/{}", digest(message)), "", "");
        assert_eq!(client.call_bytes(delete).status, 204);
    }
    // Less than 1 MiB is not worth a compaction, and there are zeros ahead of what is put.
    wait_until("the space is back", || self::log_size(&server.sandbox) < 10 * 100_000 + (3 << 19));
    for (number, message) in messages.iter().enumerate() {
        let accept = "Accept: application/octet-stream\r\n";
        let reply = client.call_bytes(build_request("GET", &format!("/messages/{}", digest(message)), accept, ""));
        match number {
            0..50 => assert_eq!(reply.status, 404),
            _ => assert!(reply.status == 200 && reply.body == *message),
        }
    }
}

#[test]
fn a_compaction_of_short_segments_terminates() {
    let sandbox = Sandbox::new();
    let lines: Vec<String> = (0..200).map(|number| format!("{number:0400}\n")).collect();
    let digests: Vec<_> = lines[..140].iter().map(|line| digest(line.trim_end().as_bytes())).collect();
    let short = ["--segment-size", "16KiB"];
    sandbox.sha_api(["put", "--lines"].iter().chain(&short)).write_stdin(lines.concat()).assert().code(0);
    sandbox.sha_api(["rm", "-"].iter().chain(&short)).write_stdin(digests.join("\n")).assert().code(0).stderr("");
    let files = std::fs::read_dir(sandbox.store().join("log")).unwrap();
    let last = files.map(|file| file.unwrap().file_name().into_string().unwrap()).max().unwrap();
    // What is moved is not moved again and again.
    assert!(last.as_str() < "00000030.log", "{last}");
    sandbox.sha_api(["verify"]).assert().code(0).stdout("60 messages, 24000 bytes: whole\n").stderr("");
}
