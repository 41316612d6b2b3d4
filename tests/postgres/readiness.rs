//! `/readyz` reports what requests need: the tables exist, and the role may read and write them. A running server does
//! not create lost tables again.

use crate::common::FOO;
use crate::common::cluster::{Cluster, database_sandbox};
use crate::common::server::{Server, post_request, wait_until};

fn wait_readyz(server: &Server, status: u16) {
    wait_until("the readiness has changed", || server.get("/readyz").status == status);
}

#[test]
fn a_server_is_not_ready_without_its_tables_and_does_not_create_them_again() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let server = Server::start(database_sandbox(&cluster.database("one")), &["--http", "--cache-size", "0"]);
    server.put("foo");
    cluster.sql("postgres", "DROP DATABASE one WITH (FORCE)");
    wait_readyz(&server, 503);
    cluster.sql("postgres", "CREATE DATABASE one");
    assert_eq!(server.get(&format!("/messages/{FOO}")).status, 503);
    assert_eq!(server.client().call(&post_request("bar", "")).status, 503);
    wait_readyz(&server, 503);
    let tables = "SELECT count(*) FROM pg_class WHERE relname LIKE 'messages%'";
    assert_eq!(cluster.sql("one", tables).trim(), "0");
    let stderr = server.read_stderr();
    assert!(stderr.contains("the table was dropped, or the database was replaced; restore it"), "{stderr}");
}

#[test]
fn a_server_is_ready_only_while_its_role_has_the_rights() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    database_sandbox(&url).sha_api(["put", "foo"]).assert().code(0);
    cluster.sql("one", "CREATE ROLE limited LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO limited");
    let sandbox = || database_sandbox(&url.replace("postgres:not-to-be-seen@", "limited@"));
    let writer = Server::start(sandbox(), &["--http"]);
    let reader = Server::start(sandbox(), &["--http", "--read-only"]);
    cluster.sql("one", "REVOKE INSERT ON messages FROM limited");
    wait_readyz(&writer, 503);
    assert_eq!(reader.get("/readyz").status, 200);
    cluster.sql("one", "REVOKE SELECT ON messages FROM limited");
    wait_readyz(&reader, 503);
    assert_eq!(writer.get("/livez").status, 200);
    cluster.sql("one", "GRANT ALL ON messages TO limited");
    wait_readyz(&writer, 200);
    wait_readyz(&reader, 200);
}
