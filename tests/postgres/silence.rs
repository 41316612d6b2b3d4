//! A database that stops answering, or closes the connection, after any message of the protocol: every command ends
//! within its time limits, and nothing is acknowledged that is not stored.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use predicates::prelude::*;
use predicates::str::contains;

use crate::common::cluster::{Cluster, Fault, ProtocolProxy, database_sandbox};
use crate::common::{FOO, digest};

const LIMITS: [&str; 6] = ["--ready-timeout", "1s", "--db-connect-timeout", "1s", "--db-statement-timeout", "1s"];
/// Sum of all time limits of a command, and ample time for a busy machine.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(25);
/// Number of commands that wait at the same time.
const THREADS: usize = 16;

/// Calls `inject` with 0, 1, 2, … on several threads until it returns `false`. Returns the number of calls.
fn for_each_position(inject: impl Fn(usize) -> bool + Sync) -> usize {
    let (next, end) = (AtomicUsize::new(0), Mutex::new(None));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while end.lock().unwrap().is_none() {
                    if !inject(next.fetch_add(1, Ordering::SeqCst)) {
                        *end.lock().unwrap() = Some(());
                    }
                }
            });
        }
    });
    next.into_inner()
}

#[test]
fn a_command_ends_in_time_if_the_database_falls_silent_after_any_message() {
    let Some(cluster) = Cluster::new(&["max_connections=300"]) else { return };
    cluster.database("one");
    database_sandbox(&cluster.url("one")).sha_api(["put", "foo"]).assert().code(0);
    for args in [&["put", "bar"][..], &["stats"], &["rm", &digest(b"absent")], &["get", FOO]] {
        let positions = for_each_position(|position| {
            let proxy = ProtocolProxy::start(&cluster, Fault::Silence, position);
            let mut command = database_sandbox(&proxy.url("one")).sha_api(args);
            let ended = command.args(LIMITS).timeout(COMMAND_TIMEOUT).assert();
            if proxy.is_fault_injected() {
                let output = ended.get_output();
                let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
                // `stats` prints the error of the health check, which is its last step.
                let is_health = stdout.contains("\nhealth    ");
                assert_eq!(output.status.code(), Some(if is_health { 0 } else { 3 }), "{position} {stderr}");
                let (error, other) = if is_health { (stdout, stderr) } else { (stderr, stdout) };
                assert!(error.contains("is unavailable: no ") && error.contains(" in time; raise --db-"), "{error}");
                assert_eq!(other, "");
                return true;
            }
            ended.stderr(contains("unavailable").not());
            false
        });
        assert!(positions > 40, "{positions}");
    }
}

#[test]
fn a_put_succeeds_if_the_connection_is_cut_after_any_message() {
    let Some(cluster) = Cluster::new(&["max_connections=300"]) else { return };
    cluster.database("one");
    database_sandbox(&cluster.url("one")).sha_api(["put", "foo"]).assert().code(0);
    let positions = for_each_position(|position| {
        let proxy = ProtocolProxy::start(&cluster, Fault::Cut, position);
        let message = format!("cut after {position}");
        let put = database_sandbox(&proxy.url("one")).sha_api(["put", &message]).timeout(COMMAND_TIMEOUT).assert();
        put.code(0).stdout(format!("{}\n", digest(message.as_bytes()))).stderr("");
        let has = database_sandbox(&cluster.url("one")).sha_api(["has", &digest(message.as_bytes())]).assert();
        has.code(0);
        proxy.is_fault_injected()
    });
    assert!(positions > 40, "{positions}");
}
