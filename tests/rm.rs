//! `rm` removes messages permanently, and compaction reclaims their disk space.

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
    let error = format!("{{\"err_msg\":\"absent: {FOO}\"}}\n");
    sandbox.sha_api(["rm", "--json", FOO]).assert().code(1).stdout(json).stderr(error);
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

/// Returns the size of the log in bytes.
fn log_size(sandbox: &Sandbox) -> u64 {
    let files = std::fs::read_dir(sandbox.store().join("log")).unwrap();
    // Compaction may delete a segment at any time.
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
    let mut removed = Vec::new();
    // The second round finds the tombstones of the first. After the last round, the store is empty.
    for (range, remaining) in [(0..40, 20), (40..55, 5), (55..60, 0)] {
        let digests: Vec<_> = messages[range].iter().map(|message| digest(message)).collect();
        sandbox.sha_api(["rm".to_owned()].iter().chain(&digests)).assert().code(0).stdout("").stderr("");
        removed.extend(digests);
        assert!(log_size(&sandbox) < (remaining + 1) * LENGTH + (1 << 20), "{remaining}: {}", log_size(&sandbox));
        let has = sandbox.sha_api(["has".to_owned()].iter().chain(&removed)).assert().code(1).stderr("");
        assert_eq!(String::from_utf8_lossy(&has.get_output().stdout).lines().count(), removed.len());
        for message in &messages[removed.len()..] {
            sandbox.sha_api(["get", &digest(message)]).assert().code(0).stdout(message.clone()).stderr("");
        }
        // An index rebuilt from the compacted log is equal to the previous index.
        let list = sandbox.sha_api(["list"]).assert().code(0).get_output().stdout.clone();
        std::fs::remove_dir_all(sandbox.store().join("index")).unwrap();
        sandbox.sha_api(["list"]).assert().code(0).stdout(list);
        sandbox.sha_api(["verify"]).assert().code(0).stderr("");
    }
}

#[test]
fn a_running_server_reclaims_space() {
    let server = Server::http(&[]);
    let mut client = server.local_client();
    assert!(log_size(&server.sandbox) < 1 << 20);
    let messages: Vec<_> = (0..60).map(|seed| pseudorandom_bytes(100_000, seed + 1)).collect();
    for message in &messages {
        let put = build_request("PUT", &format!("/messages/{}", digest(message)), "", message);
        assert_eq!(client.call_bytes(put).status, 201);
    }
    assert!(log_size(&server.sandbox) > 6_000_000);
    for message in &messages[..50] {
        let delete = build_request("DELETE", &format!("/messages/{}", digest(message)), "", "");
        assert_eq!(client.call_bytes(delete).status, 204);
    }
    // Compaction starts at 1 MiB of dead bytes, and the active segment is preallocated.
    wait_until("the space is reclaimed", || log_size(&server.sandbox) < 10 * 100_000 + (3 << 19));
    for (number, message) in messages.iter().enumerate() {
        let accept = "Accept: application/octet-stream\r\n";
        let response = client.call_bytes(build_request("GET", &format!("/messages/{}", digest(message)), accept, ""));
        match number {
            0..50 => assert_eq!(response.status, 404),
            _ => assert!(response.status == 200 && response.body == *message),
        }
    }
}

#[test]
fn a_compaction_of_short_segments_terminates() {
    let sandbox = Sandbox::new();
    let lines: Vec<String> = (0..200).map(|number| format!("{number:0400}\n")).collect();
    let digests: Vec<_> = lines[..140].iter().map(|line| digest(line.trim_end().as_bytes())).collect();
    let short_segments = ["--segment-size", "16KiB"];
    sandbox.sha_api(["put", "--lines"].iter().chain(&short_segments)).write_stdin(lines.concat()).assert().code(0);
    sandbox
        .sha_api(["rm", "-"].iter().chain(&short_segments))
        .write_stdin(digests.join("\n"))
        .assert()
        .code(0)
        .stderr("");
    let files = std::fs::read_dir(sandbox.store().join("log")).unwrap();
    let last = files.map(|file| file.unwrap().file_name().into_string().unwrap()).max().unwrap();
    // Repeated compaction of the same records would create more segments.
    assert!(last.as_str() < "00000030.log", "{last}");
    sandbox.sha_api(["verify"]).assert().code(0).stdout("60 messages, 24000 bytes: intact\n").stderr("");
}
