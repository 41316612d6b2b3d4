//! PostgreSQL over several nodes by `postgres_fdw`, set up by the very SQL of `docs/scaling.md`.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::Barrier;
use std::thread;

use predicates::prelude::*;

use crate::common::cluster::{Cluster, database_sandbox};
use crate::common::{FOO, Sandbox, digest};

const NODES: usize = 3;

/// Three nodes, and a coordinator that keeps nothing itself.
struct ShardedDatabase {
    nodes: Vec<Cluster>,
    coordinator: Cluster,
    url: String,
}

/// The block of SQL in the document.
fn sharding_sql() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/scaling.md");
    let text = std::fs::read_to_string(path).unwrap();
    text.split_once("```sql\n").unwrap().1.split_once("```").unwrap().0.to_owned()
}

/// The directory of a node's socket.
fn host_parameter(url: &str) -> &str {
    url.split_once("?host=").unwrap().1
}

impl ShardedDatabase {
    /// `settings` are those of the nodes, `change` is made in the SQL.
    fn new(settings: &[&str], change: impl Fn(String) -> String) -> Option<Self> {
        let nodes = (0..NODES).map(|_| Cluster::new(settings)).collect::<Option<Vec<_>>>()?;
        let coordinator = Cluster::new(&[])?;
        let url = coordinator.database("messages");
        let mut sql = change(sharding_sql());
        for (at, node) in nodes.iter().enumerate() {
            let url = node.database("messages");
            // As the document says, this makes the tables.
            database_sandbox(&url).sha_api(["stats"]).assert().code(0);
            let name = format!("'node{at}.example'");
            assert_eq!(sql.matches(&name).count(), 1);
            sql = sql.replace(&name, &format!("'{}'", host_parameter(&url)));
        }
        assert_eq!(sql.matches("user 'sha'").count(), NODES);
        coordinator.sql("messages", &sql.replace("user 'sha'", "user 'postgres'"));
        Some(Self { nodes, coordinator, url })
    }

    fn sandbox(&self) -> Sandbox {
        database_sandbox(&self.url)
    }

    /// Returns the number of messages on each node.
    fn rows_per_node(&self) -> Vec<usize> {
        let count = |node: &Cluster| node.sql("messages", "SELECT count(*) FROM messages").trim().parse().unwrap();
        self.nodes.iter().map(count).collect()
    }
}

fn numbered_lines(count: usize) -> String {
    (0..count).map(|number| format!("line {number}\n")).collect()
}

#[test]
fn every_command_works_on_three_shards() {
    let Some(shards) = ShardedDatabase::new(&[], |sql| sql) else { return };
    let sandbox = shards.sandbox();
    let count = 3000;
    let put = sandbox.sha_api(["put", "--lines"]).write_stdin(numbered_lines(count)).assert().code(0).stderr("");
    let digests = String::from_utf8(put.get_output().stdout.clone()).unwrap();
    let counts = shards.rows_per_node();
    assert_eq!(counts.iter().sum::<usize>(), count);
    assert!(counts.iter().all(|held| (count / 4..count * 5 / 12).contains(held)), "{counts:?}");
    // All that is known is known.
    sandbox
        .sha_api(["put", "--lines"])
        .write_stdin(numbered_lines(count))
        .assert()
        .code(0)
        .stdout(digests.clone())
        .stderr("");
    assert_eq!(shards.rows_per_node(), counts);
    sandbox
        .sha_api(["get", "--lines"])
        .write_stdin(digests.clone())
        .assert()
        .code(0)
        .stdout(numbered_lines(count))
        .stderr("");
    sandbox.sha_api(["has", FOO, "-"]).assert().code(2);
    sandbox.sha_api(["has", "-"]).write_stdin(digests.clone()).assert().code(0).stdout("").stderr("");
    sandbox.sha_api(["has", FOO]).assert().code(1).stdout(format!("{FOO}\n"));
    let mut sorted: Vec<_> = digests.lines().collect();
    sorted.sort_unstable();
    sandbox.sha_api(["list"]).assert().code(0).stdout(sorted.join("\n") + "\n").stderr("");
    sandbox.sha_api(["stats"]).assert().code(0).stdout(predicate::str::starts_with("messages  3000\n")).stderr("");
    sandbox.sha_api(["verify"]).assert().code(0).stdout(predicate::str::starts_with("3000 messages, ")).stderr("");
    sandbox.sha_api(["get", &sorted[7][..10], "--output", "/dev/null"]).assert().code(0).stderr("");
    sandbox.sha_api(["rm", sorted[0]]).assert().code(0).stderr("");
    sandbox.sha_api(["get", sorted[0]]).assert().code(1).stdout("");
    assert_eq!(shards.rows_per_node().iter().sum::<usize>(), count - 1);
    // One digest is asked of one node only.
    let plan = format!("EXPLAIN SELECT message FROM messages WHERE digest = ANY (ARRAY['\\x{FOO}'::bytea])");
    let plan = shards.coordinator.sql("messages", &plan);
    assert_eq!(plan.matches("Foreign Scan on").count(), 1, "{plan}");
}

#[test]
fn a_row_changed_on_a_shard_is_corrupt_and_a_put_repairs_it() {
    let Some(shards) = ShardedDatabase::new(&[], |sql| sql) else { return };
    let sandbox = shards.sandbox();
    sandbox.sha_api(["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    let change =
        || shards.nodes.iter().for_each(|node| drop(node.sql("messages", "UPDATE messages SET message = 'fox'")));
    change();
    sandbox.sha_api(["get", FOO]).assert().code(4).stdout("").stderr(predicate::str::contains("is corrupt"));
    sandbox.sha_api(["put", "foo"]).assert().code(0);
    sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
    change();
    sandbox.sha_api(["verify", "--repair"]).assert().code(4).stderr(predicate::str::contains("messages_quarantine"));
    sandbox.sha_api(["get", FOO]).assert().code(1).stdout("");
}

#[test]
fn concurrent_puts_of_the_same_message_both_succeed() {
    let Some(shards) = ShardedDatabase::new(&[], |sql| sql) else { return };
    let (count, racers) = (2000, 3);
    let start = Barrier::new(racers);
    thread::scope(|scope| {
        for racer in 0..racers {
            let (shards, start) = (&shards, &start);
            scope.spawn(move || {
                let sandbox = shards.sandbox();
                // In different orders.
                let text = numbered_lines(count);
                let mut all: Vec<_> = text.lines().collect();
                all.rotate_left(racer * 100);
                let digests: String = all.iter().map(|line| digest(line.as_bytes()) + "\n").collect();
                start.wait();
                let put = sandbox.sha_api(["put", "--lines"]).write_stdin(all.join("\n") + "\n").assert();
                put.code(0).stdout(digests).stderr("");
            });
        }
    });
    assert_eq!(shards.rows_per_node().iter().sum::<usize>(), count);
}

/// Kills a node under load, three times, and answers with how many were acknowledged and how many of these are lost.
fn kill_nodes_under_load(shards: &mut ShardedDatabase, acknowledgements: usize) -> (usize, usize) {
    let sandbox = shards.sandbox();
    let mut acknowledged = Vec::new();
    for round in 0..NODES {
        let mut put = sandbox.std_command(["put", "--lines", "--ready-timeout", "0s"]);
        let mut put = put.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = put.stdin.take().unwrap();
        let feed = thread::spawn(move || {
            (0..100_000).try_for_each(|number| writeln!(stdin, "{round} {number} {}", "x".repeat(500)))
        });
        let mut lines = BufReader::new(put.stdout.take().unwrap()).lines();
        acknowledged.extend(lines.by_ref().take(acknowledgements).map(Result::unwrap));
        shards.nodes[round].kill();
        acknowledged.extend(lines.map_while(Result::ok));
        assert_eq!(put.wait().unwrap().code(), Some(3), "a put that a node was missing for");
        let _ = feed.join().unwrap();
        shards.nodes[round].start();
    }
    let has = sandbox.sha_api(["has", "-"]).write_stdin(acknowledged.join("\n")).output().unwrap();
    (acknowledged.len(), String::from_utf8(has.stdout).unwrap().lines().count())
}

/// Settings of the nodes under which a commit is not durable, unless the SQL sets `synchronous_commit`.
const ASYNC_COMMIT_SETTINGS: [&str; 2] = ["synchronous_commit=off", "wal_writer_delay=10s"];

#[test]
fn acknowledged_messages_survive_the_kill_of_each_node() {
    let Some(mut shards) = ShardedDatabase::new(&ASYNC_COMMIT_SETTINGS, |sql| sql) else { return };
    let (acknowledged, lost) = kill_nodes_under_load(&mut shards, 500);
    assert!(acknowledged >= 1500 && lost == 0, "{acknowledged} acknowledged, {lost} lost");
    shards.sandbox().sha_api(["verify"]).assert().code(0).stderr("");
}

#[test]
fn nodes_with_asynchronous_commit_lose_acknowledged_messages() {
    let lazy = |sql: String| sql.replace("synchronous_commit=on", "synchronous_commit=off");
    let Some(mut shards) = ShardedDatabase::new(&ASYNC_COMMIT_SETTINGS, lazy) else { return };
    let (acknowledged, lost) = kill_nodes_under_load(&mut shards, 500);
    assert!(lost > 0, "a loss is not seen: {acknowledged} acknowledged");
}
