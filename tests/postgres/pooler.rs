//! `PgBouncer` in front of a database: every command works, in both pool modes, and a statement never executes in place
//! of another one.

use std::thread;

use predicates::str::contains;

use crate::common::cluster::{Cluster, Fault, PoolMode, Pooler, ProtocolProxy, database_sandbox};
use crate::common::server::{Server, post_request};
use crate::common::{FOO, Sandbox, digest};

const POOL_MODES: [PoolMode; 2] = [PoolMode::Session, PoolMode::Transaction];

#[test]
fn every_command_works_through_a_pooler() {
    for mode in POOL_MODES {
        let Some(cluster) = Cluster::new(&[]) else { return };
        cluster.database("one");
        let Some(pooler) = Pooler::start(&cluster, mode, 1) else { return };
        let sandbox = database_sandbox(&pooler.url("one"));
        sandbox.sha_api(["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
        sandbox.sha_api(["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
        sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
        sandbox.sha_api(["has", FOO, &digest(b"absent")]).assert().code(1).stderr("");
        sandbox.sha_api(["list"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
        sandbox.sha_api(["stats"]).assert().code(0).stdout(contains("messages  1\nbytes     3\n")).stderr("");
        let lines: String = (0..3000).map(|number| format!("line {number}\n")).collect();
        sandbox.sha_api(["put", "--lines"]).write_stdin(lines).assert().code(0).stderr("");
        let local = Sandbox::new();
        let copy = local.sha_api(["copy".into(), sandbox.location(), local.location()]).assert().code(0).stderr("");
        copy.stdout(contains("3001 copied"));
        cluster.sql("one", &format!("UPDATE messages SET message = 'fox' WHERE digest = '\\x{FOO}'"));
        sandbox.sha_api(["verify", "--repair"]).assert().code(4).stderr(contains("moved to the table"));
        sandbox.sha_api(["rm", &digest(b"line 0")]).assert().code(0).stderr("");
        sandbox.sha_api(["verify"]).assert().code(0).stdout(contains("2999 messages")).stderr("");
    }
}

#[test]
fn concurrent_clients_of_a_pooler_execute_only_their_own_statements() {
    const COUNT: usize = 60;
    for mode in POOL_MODES {
        let Some(cluster) = Cluster::new(&[]) else { return };
        cluster.database("one");
        let Some(pooler) = Pooler::start(&cluster, mode, if mode == PoolMode::Session { 20 } else { 2 }) else {
            return;
        };
        let sandbox = || database_sandbox(&pooler.url("one"));
        let messages = |name: &str| (0..COUNT).map(|number| format!("{name} {number}")).collect::<Vec<_>>();
        let kept = messages("kept");
        sandbox().sha_api(["put", "--lines"]).write_stdin(kept.join("\n")).assert().code(0);
        let digests: Vec<_> = kept.iter().map(|message| digest(message.as_bytes())).collect();
        let flags = ["--http", "--db-pool-size", "4"];
        let servers = [(); 2].map(|()| Server::start(sandbox(), &flags));
        thread::scope(|scope| {
            for (client, server) in servers.iter().cycle().take(4).enumerate() {
                scope.spawn(move || {
                    for message in messages(&format!("client {client}")) {
                        let path = format!("/messages/{}", digest(message.as_bytes()));
                        assert_eq!(server.client().call(&post_request(&message, "")).status, 200);
                        assert!(server.get(&path).text().contains(&message), "{message}");
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..5 {
                    sandbox().sha_api(["has"]).args(&digests).assert().code(0).stdout("").stderr("");
                    sandbox().sha_api(["put", "transient"]).assert().code(0).stderr("");
                    sandbox().sha_api(["rm", &digest(b"transient")]).assert().code(0).stderr("");
                }
            });
        });
        sandbox().sha_api(["verify"]).assert().code(0).stderr("");
        let stored = "SELECT count(*) FROM messages WHERE encode(message, 'escape') LIKE 'kept %'";
        assert_eq!(cluster.sql("one", stored).trim(), COUNT.to_string());
    }
}

#[test]
fn a_pooler_in_transaction_mode_does_not_weaken_the_commit() {
    let Some(mut cluster) = Cluster::new(&["synchronous_commit=off"]) else { return };
    cluster.database("one");
    let mut acknowledged = String::new();
    for round in 0..3 {
        let Some(pooler) = Pooler::start(&cluster, PoolMode::Transaction, 2) else { return };
        let put = database_sandbox(&pooler.url("one")).sha_api(["put", &format!("round {round}")]).assert().code(0);
        acknowledged += &String::from_utf8_lossy(&put.get_output().stdout);
        drop(pooler);
        cluster.kill();
        cluster.start();
    }
    let has = database_sandbox(&cluster.url("one")).sha_api(["has", "-"]).write_stdin(acknowledged).assert();
    has.code(0).stdout("").stderr("");
}

#[test]
fn no_statement_has_a_name_and_each_is_sent_in_one_piece() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    cluster.database("one");
    let proxy = ProtocolProxy::start(&cluster, Fault::Silence, usize::MAX);
    let sandbox = database_sandbox(&proxy.url("one"));
    sandbox.sha_api(["put", "foo"]).assert().code(0);
    for args in [&["put", "foo"][..], &["get", FOO], &["has", FOO], &["list"], &["stats"], &["verify"], &["rm", FOO]] {
        sandbox.sha_api(args).assert().code(0).stderr("");
    }
    let sent = proxy.sent_messages();
    let parsed = sent.iter().enumerate().filter(|(_, (kind, _))| *kind == b'P');
    assert!(parsed.clone().count() > 20);
    for (index, (_, content)) in parsed {
        // The name of the statement comes first and ends with NUL.
        assert_eq!(content[0], 0, "{}", String::from_utf8_lossy(content));
        let kinds: Vec<_> = sent[index..].iter().take(5).map(|(kind, _)| char::from(*kind)).collect();
        assert_eq!(kinds, ['P', 'B', 'D', 'E', 'S'], "{}", String::from_utf8_lossy(content));
    }
}
