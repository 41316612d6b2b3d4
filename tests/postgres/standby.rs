//! Messages are read from a standby. Writes to it fail with the reason, and succeed after its promotion.

use predicates::prelude::*;
use predicates::str::contains;

use crate::common::cluster::{Cluster, database_sandbox};
use crate::common::server::{Server, post_request, wait_until};
use crate::common::{FOO, digest};

/// Starts a primary that stores `foo` and a standby that has replicated it. Returns both and the URL of the standby.
fn primary_and_standby() -> Option<(Cluster, Cluster, String)> {
    let primary = Cluster::new(&[])?;
    database_sandbox(&primary.database("one")).sha_api(["put", "foo"]).assert().code(0);
    let standby = primary.standby();
    let url = standby.url("one");
    wait_until("the standby has replicated the message", || {
        database_sandbox(&url).sha_api(["has", FOO]).output().unwrap().status.code() == Some(0)
    });
    Some((primary, standby, url))
}

#[test]
fn commands_read_a_standby_and_puts_fail_with_the_reason() {
    let Some((primary, standby, url)) = primary_and_standby() else { return };
    let sandbox = database_sandbox(&url);
    sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
    sandbox.sha_api(["list"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    sandbox.sha_api(["verify"]).assert().code(0).stdout("1 messages, 3 bytes: intact\n").stderr("");
    let read_only = || contains("the database is read-only").and(contains("postgres@/one"));
    sandbox.sha_api(["stats"]).assert().code(0).stdout(read_only()).stderr("");
    for args in [["put", "bar"], ["put", "foo"], ["rm", FOO]] {
        sandbox.sha_api(args).timeout(super::COMMAND_TIMEOUT).assert().code(3).stdout("").stderr(read_only());
    }
    // The tables are missing in this database and cannot be created.
    primary.database("two");
    wait_until("the standby has replicated the database", || {
        !standby.sql("postgres", "SELECT 1 FROM pg_database WHERE datname = 'two'").is_empty()
    });
    let get = database_sandbox(&standby.url("two")).sha_api(["get", FOO]).timeout(super::COMMAND_TIMEOUT).assert();
    get.code(3).stdout("").stderr(contains("the database is read-only"));
}

#[test]
fn a_server_reads_a_standby_and_writes_after_its_promotion() {
    let Some((_primary, standby, url)) = primary_and_standby() else { return };
    let server = Server::spawn(database_sandbox(&url), &["--http"]);
    let reader = Server::start(database_sandbox(&url), &["--http", "--read-only"]);
    let path = format!("/messages/{FOO}");
    wait_until("messages can be read", || server.get(&path).status == 200);
    assert_eq!(server.get(&format!("/messages/{}", digest(b"absent"))).status, 404);
    let refused = server.client().call(&post_request("bar", ""));
    assert_eq!((refused.status, refused.text()), (503, r#"{"err_msg": "The store is read-only"}"#));
    // A server that must store messages is not ready. A read-only server is.
    assert_eq!((server.get("/readyz").status, reader.get("/readyz").status), (503, 200));
    assert_eq!((server.get("/livez").status, reader.get(&path).status), (200, 200));
    standby.sql("postgres", "SELECT pg_promote()");
    server.wait_ready();
    server.assert_healthy();
    assert_eq!(reader.get("/readyz").status, 200);
}
