//! A PostgreSQL store supports every command and keeps the promises of a local store. An unavailable database is
//! reported, and the server recovers when the database is back.

mod concurrency;
mod foreign_table;
mod full_disk;
mod locked_tables;
mod pooler;
mod readiness;
mod silence;
mod standby;
mod synchronous_standby;
mod terminated_sessions;
mod tls;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use predicates::prelude::*;

use crate::common::cluster::{Cluster, database_sandbox};
use crate::common::server::{Server, post_request, wait_until};
use crate::common::{FOO, Sandbox, digest, pseudorandom_bytes};

/// Timeout of a command that does not wait for the database. It is shorter than the default of `--ready-timeout`.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(9);

#[test]
fn every_command_works_on_a_database() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let sandbox = database_sandbox(&url);
    sandbox.sha_api(["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    sandbox.sha_api(["get", &FOO[..8]]).assert().code(0).stdout("foo").stderr("");
    let absent = digest(b"absent");
    sandbox.sha_api(["has", FOO, &absent]).assert().code(1).stdout(format!("{absent}\n")).stderr("");
    sandbox.sha_api(["list"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    sandbox.sha_api(["verify"]).assert().code(0).stdout("1 messages, 3 bytes: intact\n").stderr("");
    let stats =
        predicate::str::starts_with("messages  1\nbytes     3\n").and(predicate::str::contains("health    ok\n"));
    sandbox.sha_api(["stats"]).assert().code(0).stdout(stats).stderr("");
    sandbox.sha_api(["rm", FOO]).assert().code(0).stderr("");
    sandbox.sha_api(["get", FOO]).assert().code(1).stdout("");
}

#[test]
fn messages_round_trip_through_a_database_unchanged() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let source = Sandbox::new();
    let lines: Vec<u8> = (0..5000).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
    source.sha_api(["put", "--lines"]).write_stdin(lines).assert().code(0);
    source.sha_api(["put"]).write_stdin(pseudorandom_bytes(20 << 20, 3)).assert().code(0);
    source.sha_api(["put", ""]).assert().code(0);
    let store = source.store().display().to_string();
    let copy = source.dir().join("copy").display().to_string();
    let output = source.sha_api(["copy", &store, &url]).assert().code(0).stderr("");
    assert!(String::from_utf8_lossy(&output.get_output().stdout).starts_with("5002 copied, "));
    source.sha_api(["copy", &url, &copy]).assert().code(0).stderr("");
    let export =
        |store: &str| source.sha_api(["--store", store, "export"]).assert().code(0).get_output().stdout.clone();
    assert!(export(&store) == export(&copy) && export(&store) == export(&url));
}

#[test]
fn a_changed_row_is_corrupt_and_a_put_repairs_it() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let sandbox = database_sandbox(&cluster.database("one"));
    sandbox.sha_api(["put", "foo"]).assert().code(0);
    let change_row = || cluster.sql("one", "UPDATE messages SET message = 'fox'");
    change_row();
    sandbox.sha_api(["get", FOO]).assert().code(4).stdout("").stderr(predicate::str::contains("is corrupt"));
    let report = format!("corrupt    {FOO}\n0 messages, 0 bytes: intact; damaged: 1\n");
    sandbox.sha_api(["verify"]).assert().code(4).stdout(report);
    sandbox.sha_api(["put", "foo"]).assert().code(0);
    sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo");
    change_row();
    let moved = predicate::str::contains("moved to the table messages_quarantine");
    sandbox.sha_api(["verify", "--repair"]).assert().code(4).stderr(moved);
    sandbox.sha_api(["get", FOO]).assert().code(1);
    assert_eq!(cluster.sql("one", "SELECT message FROM messages_quarantine").trim(), "\\x666f78");
}

#[test]
fn an_unreachable_database_is_reported_without_its_password() {
    let sandbox = database_sandbox("postgres://me:not-to-be-seen@/db?host=/nowhere");
    let put = sandbox.sha_api(["put", "foo", "--ready-timeout", "0s"]).assert();
    let cause = predicate::str::contains("postgres://me@/db is unavailable");
    put.code(3).stdout("").stderr(cause.and(predicate::str::contains("not-to-be-seen").not()));
    let check = sandbox.sha_api(["serve", "--check"]).assert().code(0);
    let stdout = String::from_utf8_lossy(&check.get_output().stdout).into_owned();
    assert!(stdout.contains("store = postgres://me@/db  # variable") && !stdout.contains("not-to-be-seen"), "{stdout}");
    let serve = sandbox.sha_api(["serve"]).assert();
    serve.code(3).stdout("").stderr(predicate::str::contains("--tls-cert").and(predicate::str::contains("--http")));
}

#[test]
fn newer_tables_are_refused_and_a_read_only_database_rejects_puts() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let sandbox = database_sandbox(&cluster.database("one"));
    sandbox.sha_api(["put", "foo"]).assert().code(0);
    cluster.sql("one", "ALTER DATABASE one SET default_transaction_read_only = on");
    sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo");
    sandbox.sha_api(["put", "bar"]).assert().code(3).stdout("").stderr(predicate::str::contains("read-only"));
    cluster.sql("postgres", "ALTER DATABASE one SET default_transaction_read_only = off");
    cluster.sql("one", "INSERT INTO messages_version VALUES (2)");
    sandbox.sha_api(["get", FOO]).assert().code(3).stdout("").stderr(predicate::str::contains("version 2"));
}

#[test]
fn a_read_only_role_can_only_read() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    database_sandbox(&url).sha_api(["put", "foo"]).assert().code(0);
    let setup = "CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader; CREATE DATABASE two";
    setup.split("; ").for_each(|sql| drop(cluster.sql("one", sql)));
    let as_reader = |url: &str| url.replace("postgres:not-to-be-seen@", "reader@");
    let sandbox = database_sandbox(&as_reader(&url));
    sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
    sandbox.sha_api(["verify"]).assert().code(0).stderr("");
    let cause = || predicate::str::contains("reader@/one: permission denied for table messages");
    for args in [["put", "bar"], ["put", "foo"], ["rm", FOO]] {
        sandbox.sha_api(args).timeout(COMMAND_TIMEOUT).assert().code(5).stdout("").stderr(cause());
    }
    // The role cannot create the tables in a database that has none.
    cluster.sql("two", "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let get = database_sandbox(&as_reader(&cluster.url("two"))).sha_api(["get", FOO]).timeout(COMMAND_TIMEOUT).assert();
    get.code(5).stdout("").stderr(predicate::str::contains("permission denied for schema public"));
    let server = Server::spawn(sandbox, &["--http"]);
    wait_until("messages can be read", || server.get(&format!("/messages/{FOO}")).status == 200);
    // A server that must store messages is not ready.
    assert_eq!(server.get("/readyz").status, 503);
    let refused = server.client().call(&post_request("bar", ""));
    assert_eq!((refused.status, refused.text()), (500, r#"{"err_msg": "Internal server error"}"#));
    assert!(server.read_stderr().contains("permission denied for table messages"), "{}", server.read_stderr());
}

#[test]
fn acknowledged_messages_survive_a_killed_database() {
    // sha-api sets synchronous_commit=on for its sessions. Without that setting, this test loses messages.
    let Some(mut cluster) = Cluster::new(&["synchronous_commit=off"]) else { return };
    let url = cluster.database("one");
    let sandbox = database_sandbox(&url);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut put = sandbox.std_command(["put", "--lines", "--ready-timeout", "0s"]);
        let mut put = put.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = put.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || {
            (0..100_000).try_for_each(|number| writeln!(stdin, "{round} {number} {}", "x".repeat(500)))
        });
        let mut lines = BufReader::new(put.stdout.take().unwrap()).lines();
        acknowledged.extend(lines.by_ref().take(500).map(Result::unwrap));
        cluster.kill();
        acknowledged.extend(lines.map_while(Result::ok));
        put.wait().unwrap();
        let _ = feeder.join().unwrap();
        cluster.start();
    }
    assert!(acknowledged.len() >= 1500);
    let has = sandbox.sha_api(["has", "-"]).write_stdin(acknowledged.join("\n")).assert();
    has.code(0).stdout("").stderr("");
}

#[test]
fn a_server_waits_for_its_database_and_survives_its_crash() {
    let Some(mut cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    cluster.kill();
    let server = Server::spawn(database_sandbox(&url), &["--http"]);
    assert_eq!((server.get("/livez").status, server.get("/readyz").status), (200, 503));
    cluster.start();
    server.wait_ready();
    server.assert_healthy();
    cluster.kill();
    let path = format!("/messages/{}", digest(b"another"));
    wait_until("requests get 503", || server.get(&path).status == 503);
    wait_until("the server is not ready", || server.get("/readyz").status == 503);
    cluster.start();
    server.wait_ready();
    server.assert_healthy();
}

#[test]
fn a_put_warns_about_a_database_without_fsync() {
    let Some(cluster) = Cluster::new(&["fsync=off"]) else { return };
    let warning = predicate::str::contains(
        "fsync is off in postgres://postgres@/one: a power cut can lose acknowledged messages",
    );
    database_sandbox(&cluster.database("one"))
        .sha_api(["put", "foo"])
        .assert()
        .code(0)
        .stdout(format!("{FOO}\n"))
        .stderr(warning);
}
