//! A loss is recorded when it is found, and every command reports it until the messages are stored again or the user
//! accepts the loss.

use std::fs;

use predicates::prelude::*;

use crate::common::server::Server;
use crate::common::{Sandbox, digest};

const MESSAGE_COUNT: usize = 1000;
const RECORDED: &str = "sha-api: data loss: number of lost messages: 1000; `sha-api verify` lists them";

/// Returns the message `number`.
fn message(number: usize) -> String {
    format!("message {number}")
}

/// Creates a store of [`MESSAGE_COUNT`] messages in segments of at most `segment_size`.
fn store_with_messages(segment_size: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let lines: Vec<_> = (0..MESSAGE_COUNT).map(message).collect();
    let mut put = sandbox.sha_api(["put", "--lines", "--segment-size", segment_size]);
    put.write_stdin(lines.join("\n")).assert().code(0);
    sandbox
}

/// Creates a store whose log is deleted.
fn store_without_log() -> Sandbox {
    let sandbox = store_with_messages("1GiB");
    for entry in fs::read_dir(sandbox.store().join("log")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    sandbox
}

/// Returns stdout of `verify`, which must exit with 4.
fn verify_lost(sandbox: &Sandbox) -> String {
    let verify = sandbox.sha_api(["verify"]).assert().code(4);
    String::from_utf8(verify.get_output().stdout.clone()).unwrap()
}

#[test]
fn a_deleted_log_is_reported_by_every_command_until_the_loss_is_accepted() {
    let sandbox = store_without_log();
    let lost = digest(message(7).as_bytes());
    let found = predicate::str::contains("data loss: 1000 of 1000 stored messages missing from the log");
    sandbox.sha_api(["list", "--quiet"]).assert().code(0).stdout("").stderr(found);
    for args in [&["list", "--quiet"][..], &["has", "--quiet", &lost], &["put", "--quiet", "another"]] {
        sandbox.sha_api(args).assert().stderr(predicate::str::starts_with(RECORDED));
    }
    for _ in 0..2 {
        let stdout = verify_lost(&sandbox);
        assert_eq!(stdout.lines().filter(|line| line.starts_with("lost       ")).count(), MESSAGE_COUNT);
        assert!(stdout.contains(&format!("lost       {lost}\n")));
        assert!(stdout.ends_with("1 messages, 7 bytes: intact; damaged: 1000\n"), "{stdout}");
    }
    let stats = predicate::str::contains("lost      1000\nhealth    data loss: number of lost messages: 1000");
    sandbox.sha_api(["stats"]).assert().code(0).stdout(stats);
    let is_lost = predicate::str::contains(format!("message {lost} is lost"));
    sandbox.sha_api(["get", &lost]).assert().code(4).stdout("").stderr(is_lost);
    let incomplete = || predicate::str::contains("the output is incomplete: number of lost messages: 1000");
    sandbox.sha_api(["export", "--quiet"]).assert().code(4).stderr(incomplete());
    let (store, copy) = (sandbox.store(), sandbox.dir().join("copy"));
    sandbox
        .sha_api(["copy", "--quiet", store.to_str().unwrap(), copy.to_str().unwrap()])
        .assert()
        .code(4)
        .stderr(incomplete());

    let accepted = "1 messages, 7 bytes: intact; damaged: 1000; losses accepted: 1000\n";
    sandbox.sha_api(["verify", "--accept-loss"]).assert().code(0).stdout(predicate::str::ends_with(accepted));
    sandbox.sha_api(["verify"]).assert().code(0).stdout("1 messages, 7 bytes: intact\n").stderr("");
    sandbox.sha_api(["get", &lost]).assert().code(1).stdout("");
    sandbox.sha_api(["export"]).assert().code(0).stderr("");
}

#[test]
fn a_deleted_log_is_reported_after_the_index_is_deleted_too() {
    let sandbox = store_without_log();
    fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    let found = predicate::str::contains("data loss: 1000 of 1000 stored messages missing from the log");
    sandbox.sha_api(["stats"]).assert().code(0).stderr(found);
    sandbox.sha_api(["put", "another"]).assert().code(0);
    fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    for _ in 0..2 {
        let stdout = verify_lost(&sandbox);
        assert!(stdout.starts_with("lost       1000 messages, digests unknown\n"), "{stdout}");
    }
    sandbox.sha_api(["verify", "--quiet", "--accept-loss"]).assert().code(0);
    sandbox.sha_api(["verify"]).assert().code(0).stdout("1 messages, 7 bytes: intact\n").stderr("");
}

#[test]
fn a_loss_is_settled_by_messages_that_are_stored_again() {
    let sandbox = store_with_messages("1GiB");
    assert!(sandbox.run_shell("sha-api copy store spare && rm store/log/*").status.success());
    sandbox.sha_api(["put", &message(0)]).assert().code(0);
    assert_eq!(verify_lost(&sandbox).matches("lost       ").count(), MESSAGE_COUNT - 1);
    sandbox.sha_api(["verify", "--repair"]).assert().code(4);
    assert_eq!(verify_lost(&sandbox).matches("lost       ").count(), MESSAGE_COUNT - 1);
    sandbox.sha_api(["verify", "--repair", "--from", "spare"]).current_dir(sandbox.dir()).assert().code(0);
    let bytes: usize = (0..MESSAGE_COUNT).map(|number| message(number).len()).sum();
    let whole = format!("1000 messages, {bytes} bytes: intact\n");
    sandbox.sha_api(["verify"]).assert().code(0).stdout(whole).stderr("");
    assert!(!sandbox.store().join("losses").exists());
}

#[test]
fn a_newest_segment_that_is_missing_or_truncated_stays_reported() {
    for is_removed in [true, false] {
        let sandbox = store_with_messages("16KiB");
        let mut segments: Vec<_> =
            fs::read_dir(sandbox.store().join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
        segments.sort();
        assert!(segments.len() > 2);
        let newest = segments.last().unwrap();
        match is_removed {
            true => fs::remove_file(newest).unwrap(),
            false => fs::File::options().write(true).open(newest).unwrap().set_len(200).unwrap(),
        }
        sandbox.sha_api(["stats", "--quiet"]).assert().code(0).stderr(predicate::str::contains("data loss: "));
        let stdout = verify_lost(&sandbox);
        let lost: Vec<_> = stdout.lines().filter_map(|line| line.strip_prefix("lost       ")).collect();
        assert!(lost.len() > 50, "{stdout}");
        let intact = MESSAGE_COUNT - lost.len();
        assert!(stdout.contains(&format!("{intact} messages, ")), "{stdout}");
        for digest in [lost[0], lost[lost.len() - 1]] {
            sandbox.sha_api(["get", digest]).assert().code(4).stdout("");
        }
        assert_eq!(verify_lost(&sandbox), stdout);
    }
}

#[test]
fn a_missing_segment_stays_reported_after_the_index_is_rebuilt() {
    let sandbox = store_with_messages("16KiB");
    fs::remove_file(sandbox.store().join("log/00000002.log")).unwrap();
    let lost = verify_lost(&sandbox).matches("lost       ").count();
    assert!(lost > 50);
    fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    for _ in 0..2 {
        assert_eq!(verify_lost(&sandbox).matches("lost       ").count(), lost);
        let stats = predicate::str::contains(format!("lost      {lost}\n"));
        sandbox.sha_api(["stats"]).assert().code(0).stdout(stats);
    }
    sandbox.sha_api(["verify", "--accept-loss"]).assert().code(0);
    sandbox.sha_api(["verify"]).assert().code(0).stderr("");
}

#[test]
fn a_server_reports_a_loss_until_it_is_accepted() {
    let server = Server::start(store_without_log(), &["--http", "--quiet"]);
    server.wait_local_socket();
    let get_locally = |path: &str| {
        let response =
            server.local_client().call(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        response.text().to_owned()
    };
    assert!(server.read_stderr().contains("data loss: 1000 of 1000 stored messages"), "{}", server.read_stderr());
    let lost = digest(message(7).as_bytes());
    let response = server.get(&format!("/messages/{lost}"));
    assert_eq!((response.status, response.text()), (500, r#"{"err_msg": "Message is lost"}"#));
    assert_eq!(server.get("/readyz").text(), r#"{"status": "damaged"}"#);
    let stats = get_locally("/stats");
    assert!(stats.contains(r#""lost": 1000, "health": "data loss: number of lost messages: 1000"#), "{stats}");
    assert!(get_locally("/metrics").contains("\nsha_api_lost_messages 1000\n"));
    let sandbox = &server.sandbox;
    assert_eq!(verify_lost(sandbox).matches("lost       ").count(), MESSAGE_COUNT);
    let is_lost = predicate::str::contains(format!("message {lost} is lost"));
    sandbox.sha_api(["get", &lost]).assert().code(4).stdout("").stderr(is_lost.clone());
    sandbox.sha_api(["get", &lost, &digest(message(8).as_bytes())]).assert().code(4).stdout("").stderr(is_lost);
    let incomplete = predicate::str::contains("the output is incomplete: number of lost messages: 1000");
    sandbox.sha_api(["export"]).assert().code(4).stdout("").stderr(incomplete);
    sandbox.sha_api(["put", &message(7)]).assert().code(0);
    assert_eq!(server.get(&format!("/messages/{lost}")).status, 200);
    sandbox.sha_api(["verify", "--accept-loss"]).assert().code(0);
    sandbox.sha_api(["verify"]).assert().code(0).stdout("1 messages, 9 bytes: intact\n").stderr("");
    assert_eq!(server.get("/readyz").text(), r#"{"status": "ready"}"#);
}
