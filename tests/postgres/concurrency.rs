//! Concurrent clients of one database: messages put by two servers and a command are stored once, and a copy during
//! writes loses no message.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use crate::common::cluster::{Cluster, database_sandbox};
use crate::common::server::{Server, build_request, post_request, wait_until};
use crate::common::{Sandbox, digest};

const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";

fn message(number: u32) -> String {
    format!("put by every client, {number}")
}

#[test]
fn concurrent_puts_of_the_same_messages_store_each_once_and_report_new_once() {
    const COUNT: u32 = 1500;
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let servers = [(); 2].map(|()| Server::start(database_sandbox(&url), &["--http"]));
    // Each client puts the messages in a different order, in overlapping batches.
    let put = |server: &Server, step: u32| -> usize {
        let numbers: Vec<_> = (0..COUNT).map(|number| number * step % COUNT).collect();
        let batches = numbers.chunks(50).map(|batch| {
            let lines: String =
                batch.iter().map(|number| format!("{{\"message\": \"{}\"}}\n", message(*number))).collect();
            let response = server.client().call_bytes(build_request("POST", "/messages", NDJSON, lines));
            assert_eq!(response.status, 200, "{}", response.text());
            let lines: Vec<Value> = response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(lines.len(), batch.len());
            for (line, number) in lines.iter().zip(batch) {
                assert_eq!(line["digest"], digest(message(*number).as_bytes()));
            }
            lines.iter().filter(|line| line["new"] == true).count()
        });
        batches.sum()
    };
    let line = |number| {
        let message = message(number);
        format!("{{\"digest\": \"{}\", \"message\": \"{message}\"}}\n", digest(message.as_bytes()))
    };
    let input: String = (0..COUNT).map(line).collect();
    let new: usize = thread::scope(|scope| {
        let command = scope.spawn(|| database_sandbox(&url).sha_api(["import"]).write_stdin(input).output().unwrap());
        let steps = [(0, 1), (0, 7), (1, 11), (1, 1499)];
        let clients = steps.map(|(server, step)| {
            scope.spawn({
                let (put, servers) = (&put, &servers);
                move || put(&servers[server], step)
            })
        });
        let output = command.join().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8(output.stdout).unwrap();
        let new_by_command: usize = stdout.split_once(" new, ").unwrap().0.parse().unwrap();
        new_by_command + clients.into_iter().map(|client| client.join().unwrap()).sum::<usize>()
    });
    let stored = cluster.sql("one", "SELECT count(*) || ' ' || count(DISTINCT message) FROM messages");
    assert_eq!((stored.trim(), new), (format!("{COUNT} {COUNT}").as_str(), COUNT as usize));
    database_sandbox(&url).sha_api(["verify"]).assert().code(0).stderr("");
}

fn list_digests(sandbox: &Sandbox) -> BTreeSet<String> {
    let list = sandbox.sha_api(["list"]).assert().code(0);
    String::from_utf8_lossy(&list.get_output().stdout).lines().map(str::to_owned).collect()
}

/// Puts messages through a server until `stop` is set. Returns the digests of the acknowledged messages.
fn put_until_stopped(server: &Server, name: &str, stop: &AtomicBool) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let message = format!("{name} {number}");
        let response = server.client().call(&post_request(&message, "Connection: close\r\n"));
        assert_eq!(response.status, 200, "{}", response.text());
        acknowledged.insert(digest(message.as_bytes()));
    }
    acknowledged
}

#[test]
fn copying_in_both_directions_during_writes_loses_nothing() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let (local, database) = (Sandbox::new(), database_sandbox(&url));
    for (sandbox, name) in [(&local, "local"), (&database, "database")] {
        let lines: String = (0..3000).map(|number| format!("{name} before {number}\n")).collect();
        sandbox.sha_api(["put", "--lines"]).write_stdin(lines).assert().code(0);
    }
    let (local, database) = (Server::start(local, &["--http"]), Server::start(database, &["--http"]));
    let directory = local.sandbox.store().display().to_string();
    let stop = AtomicBool::new(false);
    let initial = [list_digests(&local.sandbox), list_digests(&database.sandbox)];
    let [put_locally, put_to_database] = thread::scope(|scope| {
        let writers = [(&local, "local"), (&database, "database")].map(|(server, name)| {
            scope.spawn({
                let stop = &stop;
                move || put_until_stopped(server, name, stop)
            })
        });
        // The writers must be stopped even if an assertion fails.
        let copied = std::panic::catch_unwind(|| {
            for round in 0..2 {
                let before = [list_digests(&local.sandbox), list_digests(&database.sandbox)];
                local.sandbox.sha_api(["copy", &directory, &url]).assert().code(0).stderr("");
                local.sandbox.sha_api(["copy", &url, &directory]).assert().code(0).stderr("");
                // Both stores have every message that was acknowledged before the copy started.
                let after = [list_digests(&local.sandbox), list_digests(&database.sandbox)];
                for (before, after) in [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(from, to)| (&before[from], &after[to])) {
                    assert!(
                        before.is_subset(after),
                        "round {round}: {} of {}",
                        before.difference(after).count(),
                        before.len()
                    );
                }
            }
            wait_until("both writers have put messages", || {
                let mut stores = initial.iter().zip([&local, &database]);
                stores.all(|(initial, server)| list_digests(&server.sandbox).len() > initial.len())
            });
        });
        stop.store(true, Ordering::Relaxed);
        let written = writers.map(|writer| writer.join().unwrap());
        copied.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written
    });
    local.sandbox.sha_api(["copy", &directory, &url]).assert().code(0).stderr("");
    local.sandbox.sha_api(["copy", &url, &directory]).assert().code(0).stderr("");
    let (in_directory, in_database) = (list_digests(&local.sandbox), list_digests(&database.sandbox));
    assert!(
        in_directory == in_database,
        "{} in the directory, {} in the database",
        in_directory.len(),
        in_database.len()
    );
    for acknowledged in initial.iter().chain([&put_locally, &put_to_database]) {
        assert!(acknowledged.is_subset(&in_directory));
    }
    for sandbox in [&local.sandbox, &database.sandbox] {
        sandbox.sha_api(["verify"]).assert().code(0).stderr("");
    }
}
