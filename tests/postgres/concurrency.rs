//! Several at once: what two servers and a command put at the same time is stored once, and a copy beside writers loses
//! nothing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use crate::common::cluster::{Cluster, database_sandbox};
use crate::common::server::{Server, build_request, post_request, wait_until};
use crate::common::{Sandbox, digest};

const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";

fn message(number: u32) -> String {
    format!("the same from everybody, {number}")
}

#[test]
fn concurrent_puts_of_the_same_messages_store_each_once_and_report_new_once() {
    const COUNT: u32 = 1500;
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let servers = [(); 2].map(|()| Server::start(database_sandbox(&url), &["--http"]));
    // Each in another order, in batches that overlap.
    let put = |server: &Server, step: u32| -> usize {
        let numbers: Vec<_> = (0..COUNT).map(|number| number * step % COUNT).collect();
        let batches = numbers.chunks(50).map(|batch| {
            let lines: String =
                batch.iter().map(|number| format!("{{\"message\": \"{}\"}}\n", message(*number))).collect();
            let reply = server.client().call_bytes(build_request("POST", "/messages", NDJSON, lines));
            assert_eq!(reply.status, 200, "{}", reply.text());
            let lines: Vec<Value> = reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
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
        let said = String::from_utf8(output.stdout).unwrap();
        let by_command: usize = said.split_once(" new, ").unwrap().0.parse().unwrap();
        by_command + clients.into_iter().map(|client| client.join().unwrap()).sum::<usize>()
    });
    let stored = cluster.sql("one", "SELECT count(*) || ' ' || count(DISTINCT message) FROM messages");
    assert_eq!((stored.trim(), new), (format!("{COUNT} {COUNT}").as_str(), COUNT as usize));
    database_sandbox(&url).sha_api(["verify"]).assert().code(0).stderr("");
}

/// What a store holds.
fn list_digests(at: &Sandbox) -> BTreeSet<String> {
    let list = at.sha_api(["list"]).assert().code(0);
    String::from_utf8_lossy(&list.get_output().stdout).lines().map(str::to_owned).collect()
}

/// Puts through a server until told to stop; what was acknowledged.
fn put_until_stopped(server: &Server, name: &str, stop: &AtomicBool) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let message = format!("{name} {number}");
        let reply = server.client().call(&post_request(&message, "Connection: close\r\n"));
        assert_eq!(reply.status, 200, "{}", reply.text());
        acknowledged.insert(digest(message.as_bytes()));
    }
    acknowledged
}

#[test]
fn copying_both_ways_beside_writers_loses_nothing() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let (near, far) = (Sandbox::new(), database_sandbox(&url));
    for (sandbox, name) in [(&near, "near"), (&far, "far")] {
        let lines: String = (0..3000).map(|number| format!("{name} before {number}\n")).collect();
        sandbox.sha_api(["put", "--lines"]).write_stdin(lines).assert().code(0);
    }
    let (near, far) = (Server::start(near, &["--http"]), Server::start(far, &["--http"]));
    let directory = near.sandbox.store().display().to_string();
    let stop = AtomicBool::new(false);
    let begun = [list_digests(&near.sandbox), list_digests(&far.sandbox)];
    let [by_near, by_far] = thread::scope(|scope| {
        let writers = [(&near, "near"), (&far, "far")].map(|(server, name)| {
            scope.spawn({
                let stop = &stop;
                move || put_until_stopped(server, name, stop)
            })
        });
        let copied = std::panic::catch_unwind(|| {
            for round in 0..2 {
                let before = [list_digests(&near.sandbox), list_digests(&far.sandbox)];
                near.sandbox.sha_api(["copy", &directory, &url]).assert().code(0).stderr("");
                near.sandbox.sha_api(["copy", &url, &directory]).assert().code(0).stderr("");
                // All that was acknowledged before a copy began is on both sides after it.
                let after = [list_digests(&near.sandbox), list_digests(&far.sandbox)];
                for (before, after) in [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(one, two)| (&before[one], &after[two])) {
                    assert!(
                        before.is_subset(after),
                        "round {round}: {} of {}",
                        before.difference(after).count(),
                        before.len()
                    );
                }
            }
            wait_until("the writers have written", || {
                begun.iter().zip([&near, &far]).all(|(begun, server)| list_digests(&server.sandbox).len() > begun.len())
            });
        });
        stop.store(true, Ordering::Relaxed);
        let written = writers.map(|writer| writer.join().unwrap());
        copied.unwrap_or_else(|why| std::panic::resume_unwind(why));
        written
    });
    near.sandbox.sha_api(["copy", &directory, &url]).assert().code(0).stderr("");
    near.sandbox.sha_api(["copy", &url, &directory]).assert().code(0).stderr("");
    let (here, there) = (list_digests(&near.sandbox), list_digests(&far.sandbox));
    assert!(here == there, "{} here, {} there", here.len(), there.len());
    for acknowledged in begun.iter().chain([&by_near, &by_far]) {
        assert!(acknowledged.is_subset(&here));
    }
    for sandbox in [&near.sandbox, &far.sandbox] {
        sandbox.sha_api(["verify"]).assert().code(0).stderr("");
    }
}
