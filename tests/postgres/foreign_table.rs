//! A table `messages` that sha-api did not create is reported with the remedy before any table is created.

use predicates::prelude::*;
use predicates::str::contains;

use crate::common::FOO;
use crate::common::cluster::{Cluster, database_sandbox};

#[test]
fn a_foreign_table_is_reported_with_the_remedy_and_nothing_is_created() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    for (columns, cause) in [
        ("id serial PRIMARY KEY, body text", "column \"digest\" does not exist"),
        ("digest text PRIMARY KEY, message bytea, stored_at timestamptz", "column \"digest\" is text, not bytea"),
        ("digest bytea PRIMARY KEY, message text, stored_at timestamptz", "column \"message\" is text, not bytea"),
        ("digest bytea PRIMARY KEY, message bytea", "column \"stored_at\" does not exist"),
    ] {
        cluster.sql("one", &format!("CREATE TABLE messages ({columns})"));
        let error = contains(format!(
            "cannot use postgres://postgres@/one: its table `messages` was not created by sha-api: {cause}"
        ));
        let remedy = || contains("use another database").and(contains("?options=-csearch_path%3DSCHEMA"));
        for args in [["put", "foo"], ["get", FOO], ["has", FOO], ["serve", "--http"]] {
            let refused = database_sandbox(&url).sha_api(args).timeout(super::COMMAND_TIMEOUT).assert();
            refused.code(3).stderr(error.clone().and(remedy()));
        }
        let tables = "SELECT string_agg(relname, ' ') FROM pg_class WHERE relname LIKE 'messages%' AND relkind = 'r'";
        assert_eq!(cluster.sql("one", tables).trim(), "messages");
        cluster.sql("one", "DROP TABLE messages");
    }
}

#[test]
fn a_separate_schema_avoids_the_foreign_table() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    cluster.sql("one", "CREATE TABLE messages (id int); INSERT INTO messages VALUES (1); CREATE SCHEMA sha");
    let sandbox = database_sandbox(&format!("{url}&options=-csearch_path%3Dsha"));
    sandbox.sha_api(["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
    sandbox.sha_api(["stats"]).assert().code(0).stdout(contains("messages  1\nbytes     3\n")).stderr("");
    assert_eq!(cluster.sql("one", "SELECT count(*) FROM public.messages").trim(), "1");
}
