//! Locked tables, a hanging database and too few sessions: every request is answered within a bounded time, and
//! requests succeed again when the cause is gone.

use std::thread;

use predicates::prelude::*;
use predicates::str::contains;

use crate::common::cluster::{Cluster, database_sandbox};
use crate::common::server::{Response, Server, build_request, post_request};
use crate::common::{FOO, digest};

const LOCK_TABLE: &str = "BEGIN; LOCK TABLE messages IN ACCESS EXCLUSIVE MODE";

#[test]
fn commands_on_a_locked_table_fail_with_the_reason() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let sandbox = database_sandbox(&cluster.database("one"));
    sandbox.sha_api(["put", "foo"]).assert().code(0);
    let lock_holder = cluster.open_session("one", LOCK_TABLE);
    let cause = || contains("postgres@/one is unavailable").and(contains("--db-statement-timeout"));
    for args in [&["put", "bar"][..], &["get", FOO], &["has", FOO], &["rm", FOO], &["list"], &["stats"], &["verify"]] {
        let mut command = sandbox.sha_api(args);
        let failed = command.args(["--db-statement-timeout", "300ms"]).timeout(super::COMMAND_TIMEOUT).assert();
        failed.code(3).stdout("").stderr(cause());
    }
    // The lock timeout of the database is reported in the same way.
    cluster.sql("postgres", "ALTER DATABASE one SET lock_timeout = '300ms'");
    let failed = sandbox.sha_api(["put", "bar"]).timeout(super::COMMAND_TIMEOUT).assert();
    failed.code(3).stdout("").stderr(contains("postgres@/one is unavailable").and(contains("lock")));
    drop(lock_holder);
    sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
    sandbox.sha_api(["put", "bar"]).assert().code(0).stderr("");
}

#[test]
fn a_server_on_a_locked_table_answers_every_request_and_recovers() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let flags = ["--http", "--db-statement-timeout", "300ms", "--db-connect-timeout", "1s", "--db-pool-size", "2"];
    let server = Server::start(database_sandbox(&cluster.database("one")), &flags);
    server.put("foo");
    let path = |message: &[u8]| format!("/messages/{}", digest(message));
    let lock_holder = cluster.open_session("one", LOCK_TABLE);
    let requests = [
        post_request("new", "").into_bytes(),
        build_request("PUT", &path(b"other"), "", "other"),
        build_request("GET", &path(b"absent"), "", ""),
        build_request(
            "POST",
            "/messages/missing",
            "Content-Type: application/x-ndjson\r\n",
            format!("{{\"digest\":\"{FOO}\"}}"),
        ),
    ];
    thread::scope(|scope| {
        // There are more concurrent requests than database sessions.
        let server = &server;
        for request in requests.iter().cycle().take(24) {
            scope.spawn(move || {
                let response: Response = server.client().call_bytes(request);
                assert_eq!((response.status, response.text()), (503, r#"{"err_msg": "The store cannot be reached"}"#));
                assert_eq!(response.header("Retry-After"), Some("1"));
            });
        }
        assert_eq!(server.get("/livez").status, 200);
        // The metrics query the store totals, within the same time limit.
        assert_eq!(server.get("/metrics").status, 200);
    });
    drop(lock_holder);
    server.wait_ready();
    server.assert_healthy();
    assert_eq!(server.get(&path(b"foo")).status, 200);
    assert!(!server.read_stderr().contains("panicked"), "{}", server.read_stderr());
}

#[test]
fn a_server_with_too_few_database_connections_answers_200_or_503() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    database_sandbox(&url).sha_api(["stats"]).assert().code(0);
    let limited_role = "CREATE ROLE few LOGIN CONNECTION LIMIT 2; GRANT ALL ON ALL TABLES IN SCHEMA public TO few";
    cluster.sql("one", limited_role);
    let server = Server::start(
        database_sandbox(&url.replace("postgres:not-to-be-seen@", "few@")),
        &["--http", "--db-pool-size", "8"],
    );
    let statuses: Vec<_> = thread::scope(|scope| {
        let spawn_client = |client: u32| {
            let server = &server;
            let put = move |number| post_request(&format!("{client} {number}"), "Connection: close\r\n");
            scope.spawn(move || (0..20).map(|number| server.client().call(&put(number)).status).collect::<Vec<_>>())
        };
        let clients: Vec<_> = (0..8).map(spawn_client).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200), "{statuses:?}");
    server.assert_healthy();
}

#[test]
fn requests_to_a_hanging_database_time_out_and_work_again_later() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let sandbox = database_sandbox(&cluster.database("one"));
    sandbox.sha_api(["put", "foo"]).assert().code(0);
    let limits = ["--db-statement-timeout", "300ms", "--db-connect-timeout", "300ms"];
    let mut flags = vec!["--http"];
    flags.extend(limits);
    let server = Server::start(database_sandbox(&cluster.url("one")), &flags);
    server.put("bar");
    cluster.freeze();
    thread::scope(|scope| {
        for client in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let response = server.client().call(&post_request(&format!("client {client}"), ""));
                assert_eq!((response.status, response.text()), (503, r#"{"err_msg": "The store cannot be reached"}"#));
            });
        }
        let mut put = sandbox.sha_api(["put", "baz", "--ready-timeout", "0s"]);
        let failed = put.args(limits).timeout(super::COMMAND_TIMEOUT).assert();
        failed.code(3).stdout("").stderr(contains("postgres@/one is unavailable"));
        assert_eq!(server.get("/livez").status, 200);
    });
    cluster.thaw();
    server.wait_ready();
    server.assert_healthy();
    sandbox.sha_api(["put", "baz"]).assert().code(0).stderr("");
}
