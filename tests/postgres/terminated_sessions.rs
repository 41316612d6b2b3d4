//! Database sessions are terminated repeatedly, and the database is restarted, under load: no acknowledged message is
//! lost, every request is answered, and the server recovers without a restart.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::cluster::{Cluster, database_sandbox};
use crate::common::digest;
use crate::common::server::{Server, post_request, wait_until};

/// Minimum number of sessions that a test terminates.
const MIN_TERMINATED_SESSIONS: usize = 30;

/// Terminates all database sessions of sha-api and returns their number.
fn terminate_all_sessions(cluster: &Cluster) -> usize {
    const TERMINATE: &str = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE application_name = 'sha-api'";
    cluster.sql("postgres", TERMINATE).trim().parse().unwrap()
}

/// Returns how many of the `acknowledged` digests the database does not have.
fn count_lost(url: &str, acknowledged: &[String]) -> usize {
    let has = database_sandbox(url).sha_api(["has", "-"]).write_stdin(acknowledged.join("\n")).output().unwrap();
    assert!([Some(0), Some(1)].contains(&has.status.code()), "{}", String::from_utf8_lossy(&has.stderr));
    String::from_utf8(has.stdout).unwrap().lines().count()
}

#[test]
fn acknowledged_puts_survive_terminated_sessions() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let sandbox = database_sandbox(&url);
    let (done, terminated) = (AtomicBool::new(false), Mutex::new(0));
    let (mut acknowledged, mut codes) = (Vec::new(), BTreeMap::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                *terminated.lock().unwrap() += terminate_all_sessions(&cluster);
            }
        });
        let mut round = 0;
        wait_until("enough sessions are terminated and messages acknowledged", || {
            round += 1;
            let lines = (0..10_000).fold(String::new(), |mut lines, number| {
                writeln!(lines, "{round} {number} {}", "x".repeat(300)).unwrap();
                lines
            });
            let put = sandbox.sha_api(["put", "--lines"]).write_stdin(lines.as_str()).output().unwrap();
            let stderr = String::from_utf8(put.stderr).unwrap();
            match put.status.code() {
                Some(0) => assert_eq!(stderr, ""),
                Some(3) => assert!(stderr.starts_with("sha-api: ") && stderr.contains("postgres@/one"), "{stderr}"),
                code => panic!("{code:?} {stderr}"),
            }
            *codes.entry(put.status.code()).or_insert(0) += 1;
            let printed = String::from_utf8(put.stdout).unwrap();
            let printed: Vec<_> = printed.lines().map(str::to_owned).collect();
            let expected: Vec<_> = lines.lines().take(printed.len()).map(|line| digest(line.as_bytes())).collect();
            assert!(printed == expected, "the digests are those of the lines, in their order");
            acknowledged.extend(printed);
            *terminated.lock().unwrap() >= MIN_TERMINATED_SESSIONS && acknowledged.len() > 1000
        });
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(count_lost(&url, &acknowledged), 0, "of {}, {codes:?}", acknowledged.len());
    sandbox.sha_api(["put", "after the load"]).assert().code(0);
}

/// Outcome of [`run_load`].
#[derive(Default)]
struct LoadResult {
    acknowledged: Vec<String>,
    /// Number of responses by status.
    statuses: BTreeMap<u16, usize>,
}

/// Puts messages with four clients until `inject_faults` returns. `inject_faults` receives a function that returns the
/// number of acknowledged messages so far.
fn run_load(server: &Server, inject_faults: impl FnOnce(&dyn Fn() -> usize)) -> LoadResult {
    let (done, result) = (AtomicBool::new(false), Mutex::new(LoadResult::default()));
    thread::scope(|scope| {
        for client in 0..4 {
            let (done, result) = (&done, &result);
            scope.spawn(move || {
                for number in 0.. {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let message = format!("client {client}, message {number}");
                    // The client panics if there is no response in time.
                    let status = server.client().call(&post_request(&message, "Connection: close\r\n")).status;
                    let mut result = result.lock().unwrap();
                    *result.statuses.entry(status).or_default() += 1;
                    if status == 200 {
                        result.acknowledged.push(digest(message.as_bytes()));
                    }
                }
            });
        }
        // The clients must be stopped even if an assertion fails.
        let injected = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            inject_faults(&|| result.lock().unwrap().acknowledged.len());
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = injected {
            std::panic::resume_unwind(panic);
        }
    });
    result.into_inner().unwrap()
}

/// Puts messages through a server while sessions are terminated, after running the SQL `sabotage`. Returns the number
/// of lost acknowledged messages, or `None` without PostgreSQL.
fn run_under_terminated_sessions(sabotage: Option<&str>) -> Option<usize> {
    let cluster = Cluster::new(&[])?;
    let url = cluster.database("one");
    let server = Server::start(database_sandbox(&url), &["--http", "--db-pool-size", "4"]);
    if let Some(sql) = sabotage {
        cluster.sql("one", sql);
    }
    let outcome = run_load(&server, |acknowledged| {
        let mut terminated = 0;
        wait_until("enough sessions are terminated and messages acknowledged", || {
            terminated += terminate_all_sessions(&cluster);
            terminated >= MIN_TERMINATED_SESSIONS && acknowledged() >= 300
        });
    });
    let LoadResult { acknowledged, statuses } = outcome;
    assert!(statuses.keys().all(|status| [200, 503].contains(status)), "{statuses:?}");
    server.wait_ready();
    assert!(!server.read_stderr().contains("panicked"), "{}", server.read_stderr());
    if sabotage.is_none() {
        server.assert_healthy();
    }
    Some(count_lost(&url, &acknowledged))
}

#[test]
fn a_server_with_terminated_sessions_answers_every_request_and_loses_nothing() {
    let Some(lost) = run_under_terminated_sessions(None) else { return };
    assert_eq!(lost, 0);
}

/// SQL that creates a trigger which deletes a quarter of the new messages after their insertion.
const DELETING_TRIGGER: &str = "\
CREATE FUNCTION delete_message() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM messages WHERE digest = NEW.digest AND get_byte(digest, 0) < 64;
    RETURN NULL;
END $$;
CREATE TRIGGER delete_new AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION delete_message()";

#[test]
fn a_database_that_loses_messages_is_detected() {
    let Some(lost) = run_under_terminated_sessions(Some(DELETING_TRIGGER)) else { return };
    assert!(lost > 0, "the loss was not detected");
}

#[test]
fn a_silently_discarded_message_is_not_acknowledged() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let sandbox = database_sandbox(&cluster.database("one"));
    sandbox.sha_api(["stats"]).assert().code(0);
    cluster.sql("one", &DELETING_TRIGGER.replace("AFTER INSERT", "BEFORE INSERT"));
    let refused = sandbox.sha_api(["put", "foo"]).assert().code(3).stdout("");
    refused.stderr(predicates::str::contains("other clients remove it again and again"));
}

#[test]
fn restarting_the_database_under_load_loses_nothing() {
    let Some(mut cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let server = Server::start(database_sandbox(&url), &["--http"]);
    let outcome = run_load(&server, |acknowledged| {
        for _ in 0..2 {
            let before = acknowledged();
            wait_until("messages are acknowledged", || acknowledged() > before + 100);
            cluster.stop();
            wait_until("the server is not ready", || server.get("/readyz").status == 503);
            cluster.start();
            server.wait_ready();
        }
    });
    let LoadResult { acknowledged, statuses } = outcome;
    assert!(statuses.keys().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!(statuses[&503] > 0 && acknowledged.len() > 200, "{statuses:?}");
    assert_eq!(count_lost(&url, &acknowledged), 0);
    server.assert_healthy();
}

#[test]
fn sessions_ended_by_the_database_are_replaced() {
    let Some(cluster) = Cluster::new(&["idle_session_timeout=100ms"]) else { return };
    let server = Server::start(database_sandbox(&cluster.database("one")), &["--http"]);
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sha-api'";
    for _ in 0..3 {
        server.assert_healthy();
        wait_until("the sessions are terminated", || cluster.sql("postgres", count).trim() == "0");
    }
    server.assert_healthy();
}
