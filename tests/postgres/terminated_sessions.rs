//! Sessions that are ended again and again, and a database that is stopped, under load: everything acknowledged is there,
//! every request is answered, and the server goes on without being started again.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::cluster::{Cluster, database_sandbox};
use crate::common::digest;
use crate::common::server::{Server, post_request, wait_until};

/// How many sessions are ended in a storm, at least.
const MIN_ENDED_SESSIONS: usize = 30;

/// Ends every session that is ours.
fn terminate_all_sessions(cluster: &Cluster) -> usize {
    const TERMINATE: &str = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'sha-api'";
    cluster.sql("postgres", TERMINATE).trim().parse().unwrap()
}

/// Which of them a command on the database itself does not find.
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
    let (done, ended) = (AtomicBool::new(false), Mutex::new(0));
    let (mut acknowledged, mut codes) = (Vec::new(), BTreeMap::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                *ended.lock().unwrap() += terminate_all_sessions(&cluster);
            }
        });
        let mut round = 0;
        wait_until("the storm is over", || {
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
            *ended.lock().unwrap() >= MIN_ENDED_SESSIONS && acknowledged.len() > 1000
        });
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(count_lost(&url, &acknowledged), 0, "of {}, {codes:?}", acknowledged.len());
    sandbox.sha_api(["put", "calm"]).assert().code(0);
}

/// What came of the load on a server.
#[derive(Default)]
struct LoadResult {
    acknowledged: Vec<String>,
    /// How often each status was answered.
    statuses: BTreeMap<u16, usize>,
}

/// Puts through the server by four clients for as long as `trouble` lasts, which is told how much is acknowledged.
fn under_load(server: &Server, trouble: impl FnOnce(&dyn Fn() -> usize)) -> LoadResult {
    let (done, sum) = (AtomicBool::new(false), Mutex::new(LoadResult::default()));
    thread::scope(|scope| {
        for client in 0..4 {
            let (done, sum) = (&done, &sum);
            scope.spawn(move || {
                for number in 0.. {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let message = format!("client {client}, message {number}");
                    // No reply at all, or none in time, is a panic.
                    let status = server.client().call(&post_request(&message, "Connection: close\r\n")).status;
                    let mut sum = sum.lock().unwrap();
                    *sum.statuses.entry(status).or_default() += 1;
                    if status == 200 {
                        sum.acknowledged.push(digest(message.as_bytes()));
                    }
                }
            });
        }
        // The clients end also when something here fails.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            trouble(&|| sum.lock().unwrap().acknowledged.len());
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(why) = ended {
            std::panic::resume_unwind(why);
        }
    });
    sum.into_inner().unwrap()
}

/// A server in a storm; answers how many acknowledged messages are not there after it.
fn run_under_terminated_sessions(sabotage: Option<&str>) -> Option<usize> {
    let cluster = Cluster::new(&[])?;
    let url = cluster.database("one");
    let server = Server::start(database_sandbox(&url), &["--http", "--db-pool-size", "4"]);
    if let Some(sql) = sabotage {
        cluster.sql("one", sql);
    }
    let outcome = under_load(&server, |acknowledged| {
        let mut ended = 0;
        wait_until("there was enough of a storm", || {
            ended += terminate_all_sessions(&cluster);
            ended >= MIN_ENDED_SESSIONS && acknowledged() >= 300
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

/// Removes what was stored, after it was said that it was.
const DELETING_TRIGGER: &str = "\
CREATE FUNCTION steal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM messages WHERE digest = NEW.digest AND get_byte(digest, 0) < 64;
    RETURN NULL;
END $$;
CREATE TRIGGER thief AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION steal()";

#[test]
fn a_database_that_loses_messages_is_detected() {
    let Some(lost) = run_under_terminated_sessions(Some(DELETING_TRIGGER)) else { return };
    assert!(lost > 0, "a loss was not seen");
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
    let outcome = under_load(&server, |acknowledged| {
        for _ in 0..2 {
            let before = acknowledged();
            wait_until("messages are put", || acknowledged() > before + 100);
            cluster.stop();
            wait_until("the server says so", || server.get("/readyz").status == 503);
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
        wait_until("its sessions were ended", || cluster.sql("postgres", count).trim() == "0");
    }
    server.assert_healthy();
}
