//! With a synchronous standby, an acknowledged change is replicated, whatever interrupts the wait for the standby.

use std::process::{Child, Output, Stdio};

use predicates::str::contains;

use crate::common::cluster::{Cluster, database_sandbox};
use crate::common::server::{Server, build_request, post_request, wait_until};
use crate::common::{FOO, Sandbox, digest};

/// Ends the wait of all sessions of sha-api for the standby.
const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
const CANCEL: &str = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
const LIMITS: [&str; 4] = ["--ready-timeout", "0s", "--db-statement-timeout", "2s"];

/// A primary that stores `foo`, and its synchronous standby.
struct SynchronousPair {
    primary: Cluster,
    standby: Cluster,
    url: String,
}

impl SynchronousPair {
    fn new() -> Option<Self> {
        let primary = Cluster::new(&[])?;
        let url = primary.database("one");
        let standby = primary.standby();
        primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
        primary.sql("postgres", "SELECT pg_reload_conf()");
        let pair = Self { primary, standby, url };
        pair.wait_standbys("1");
        database_sandbox(&pair.url).sha_api(["put", "foo"]).assert().code(0).stderr("");
        Some(pair)
    }

    fn wait_standbys(&self, count: &str) {
        let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        wait_until("the standby is connected or not", || self.primary.sql("postgres", synchronous).trim() == count);
    }

    /// Stops the WAL receiver of the standby: commits of the primary wait.
    fn disconnect(&self) {
        self.standby.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
        self.standby.sql("postgres", "SELECT pg_reload_conf()");
        self.wait_standbys("0");
    }

    /// Starts the WAL receiver again.
    fn reconnect(&self) {
        self.standby.sql("postgres", "ALTER SYSTEM RESET primary_conninfo");
        let connection = self.primary.url("one").split_once("host=").unwrap().1.to_owned();
        self.standby.sql(
            "postgres",
            &format!(
                "ALTER SYSTEM SET primary_conninfo = 'user=postgres port={} host={connection}'",
                self.primary.port()
            ),
        );
        self.standby.sql("postgres", "SELECT pg_reload_conf()");
        self.wait_standbys("1");
    }

    /// Starts a command and waits until it waits for the standby.
    fn spawn_waiting(&self, args: &[&str]) -> Child {
        let mut command = database_sandbox(&self.url).std_command([args, &LIMITS].concat());
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        self.wait_for_waiting_sessions();
        child
    }

    fn wait_for_waiting_sessions(&self) {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        wait_until("a commit waits for the standby", || self.primary.sql("postgres", waiting).trim() != "0");
    }

    /// Replaces the primary by the standby.
    fn fail_over(&mut self) -> Sandbox {
        self.primary.kill();
        self.standby.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''");
        self.standby.sql("postgres", "SELECT pg_promote()");
        database_sandbox(&self.standby.url("one"))
    }
}

fn assert_refused(output: &Output, cause: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b""[..]), "{stderr}");
    assert!(stderr.contains("postgres@/one is unavailable") && stderr.contains(cause), "{stderr}");
}

#[test]
fn a_put_whose_wait_is_interrupted_is_not_acknowledged() {
    let Some(mut pair) = SynchronousPair::new() else { return };
    pair.disconnect();
    for (interrupt, message, cause) in [
        (TERMINATE, "terminated", "no response in time"),
        (CANCEL, "cancelled", "the change may not be replicated to the standby: canceling wait"),
    ] {
        let put = pair.spawn_waiting(&["put", message]);
        pair.primary.sql("postgres", interrupt);
        assert_refused(&put.wait_with_output().unwrap(), cause);
        // The message is stored on the primary now, but a further put does not acknowledge it either.
        assert_eq!(
            database_sandbox(&pair.url).sha_api(["get", &digest(message.as_bytes())]).output().unwrap().stdout,
            message.as_bytes()
        );
        let again = database_sandbox(&pair.url).sha_api(["put", message]).args(LIMITS).output().unwrap();
        assert_refused(&again, "no response in time");
    }
    let standby = pair.fail_over();
    standby.sha_api(["list"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
}

#[test]
fn a_put_that_waits_during_a_shutdown_is_not_acknowledged() {
    let Some(mut pair) = SynchronousPair::new() else { return };
    pair.disconnect();
    let put = pair.spawn_waiting(&["put", "waiting"]);
    pair.primary.stop();
    assert_refused(&put.wait_with_output().unwrap(), "");
    pair.primary.start();
    let again = database_sandbox(&pair.url).sha_api(["put", "waiting"]).args(LIMITS).output().unwrap();
    assert_refused(&again, "no response in time");
}

#[test]
fn a_put_of_a_known_message_is_acknowledged_when_it_is_replicated() {
    let Some(mut pair) = SynchronousPair::new() else { return };
    pair.disconnect();
    let put = pair.spawn_waiting(&["put", "late"]);
    pair.primary.sql("postgres", CANCEL);
    assert_refused(&put.wait_with_output().unwrap(), "the change may not be replicated");
    pair.reconnect();
    let late = digest(b"late");
    database_sandbox(&pair.url).sha_api(["put", "late"]).assert().code(0).stdout(format!("{late}\n")).stderr("");
    let standby = pair.fail_over();
    standby.sha_api(["get", &late]).assert().code(0).stdout("late").stderr("");
}

#[test]
fn a_removal_whose_wait_is_interrupted_is_not_acknowledged() {
    let Some(pair) = SynchronousPair::new() else { return };
    pair.disconnect();
    let removal = pair.spawn_waiting(&["rm", FOO]);
    pair.primary.sql("postgres", CANCEL);
    assert_refused(&removal.wait_with_output().unwrap(), "the change may not be replicated");
    // The message is absent on the primary now, but a further removal does not report it as absent.
    database_sandbox(&pair.url).sha_api(["has", FOO]).assert().code(1);
    let again = database_sandbox(&pair.url).sha_api(["rm", FOO]).args(LIMITS).output().unwrap();
    assert_refused(&again, "no response in time");
}

#[test]
fn a_repair_whose_wait_is_interrupted_fails() {
    let Some(pair) = SynchronousPair::new() else { return };
    pair.primary.sql("one", "UPDATE messages SET message = 'fox'");
    pair.disconnect();
    let repair = pair.spawn_waiting(&["verify", "--repair"]);
    pair.primary.sql("postgres", CANCEL);
    let output = repair.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("postgres@/one is unavailable"), "{stderr}");
}

#[test]
fn a_server_answers_503_while_the_standby_is_missing() {
    let Some(pair) = SynchronousPair::new() else { return };
    let server = Server::start(database_sandbox(&pair.url), &["--http", "--db-statement-timeout", "2s"]);
    pair.disconnect();
    let message = "put twice";
    let upload = build_request("PUT", &format!("/messages/{}", digest(message.as_bytes())), "", message);
    let requests = [post_request(message, "").into_bytes(), upload];
    for request in requests.iter().cycle().take(4) {
        let response = server.client().call_bytes(request);
        assert_eq!((response.status, response.text()), (503, r#"{"err_msg": "The store cannot be reached"}"#));
    }
    pair.reconnect();
    assert_eq!(server.client().call_bytes(&requests[0]).status, 200);
    assert_eq!(server.client().call_bytes(&requests[1]).status, 200);
    server.assert_healthy();
}

#[test]
fn without_a_synchronous_standby_a_known_message_writes_nothing() {
    let Some(cluster) = Cluster::new(&["autovacuum=off"]) else { return };
    let sandbox = database_sandbox(&cluster.database("one"));
    sandbox.sha_api(["put", "foo"]).assert().code(0);
    let xid = || cluster.sql("one", "SELECT pg_snapshot_xmax(pg_current_snapshot())");
    let before = xid();
    sandbox.sha_api(["put", "foo"]).assert().code(0).stdout(contains(FOO)).stderr("");
    sandbox.sha_api(["rm", &digest(b"absent")]).assert().code(1);
    assert_eq!(xid(), before);
}
