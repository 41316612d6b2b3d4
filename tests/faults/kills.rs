//! `kill -9` at every system call of creating a store, committing, replaying, repairing, rolling a segment and closing,
//! and at random moments under load.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::faulted_store::{FaultedStore, message, message_groups};
use super::scenarios::{CallScope, READ_CALLS, Scenario, WRITE_CALLS, call_indices, cleanly_closed};
use super::strace::{Injection, exec_under};
use super::{Tally, run_in_parallel, try_post};
use crate::common::server::Server;
use crate::common::{Random, can_trace, digest, has_tool};

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_at_any_system_call_loses_nothing() {
    if !can_trace() {
        return;
    }
    for scenario in Scenario::all() {
        let tally = run_in_parallel(WRITE_CALLS.into_iter().chain(READ_CALLS), |(scope, call)| {
            kill_at_each_call(&scenario, scope, call)
        });
        tally.assert_nothing_lost(&format!("kill -9 while {}", scenario.name));
    }
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_during_an_index_merge_loses_nothing() {
    if !can_trace() {
        return;
    }
    let scenario = Scenario::merging();
    let calls = ["pwrite64", "fsync", "write", "openat"].map(|call| (CallScope::Index, call));
    let tally = run_in_parallel(calls, |(scope, call)| kill_at_each_call(&scenario, scope, call));
    tally.assert_nothing_lost(&format!("kill -9 while {}", scenario.name));
}

/// Kills the process at the first call, then at the second and so on, until a run makes fewer calls.
fn kill_at_each_call(scenario: &Scenario, scope: CallScope, call: &'static str) -> Tally {
    let mut tally = Tally::default();
    for n in call_indices(12) {
        let Some(store) = scenario.inject(scope, call, &format!("signal=KILL:when={n}")) else { break };
        tally += store.into_tally();
    }
    tally
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_at_a_random_moment_loses_nothing() {
    if !has_tool("timeout") {
        return;
    }
    let mut random = Random(0xdead);
    let jobs: Vec<_> = (0..8).map(|job| (job, [(); 8].map(|()| random.below(400)))).collect();
    let tally = run_in_parallel(jobs, |(job, delays)| {
        let mut store = FaultedStore::new();
        let mut tally = Tally::default();
        for (round, delay) in delays.into_iter().enumerate() {
            let mut command = Command::new("timeout");
            command.args(["--signal", "KILL", &format!("0.{:03}", delay + 5)]);
            exec_under(&mut command, &store.command(&["put", "--lines"]));
            let sizes: Vec<_> = (0..2000).map(|group| 1 + group * group % 97).collect();
            store.put_with(command, &message_groups(1000 + job * 100 + round as u64, &sizes));
            tally += store.finish_run();
        }
        tally
    });
    tally.assert_nothing_lost("kill -9 at random moments of put");
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_of_the_server_loses_nothing() {
    let mut random = Random(0xbeef);
    let jobs: Vec<_> = (0..12).map(|round| (round, random.below(500))).collect();
    let tally = run_in_parallel(jobs, |(round, delay)| {
        let mut store = FaultedStore::new();
        let server =
            Server::spawn(crate::common::Sandbox::new(), &["--http", "--store", store.path().to_str().unwrap()]);
        server.wait_ready();
        let address = server.address;
        let clients: Vec<_> =
            (0..8).map(|client| std::thread::spawn(move || run_load(address, round * 8 + client))).collect();
        // The random time of the kill is under test.
        std::thread::sleep(Duration::from_millis(30 + delay));
        server.signal(Signal::KILL);
        for client in clients {
            store.acknowledged.extend(client.join().unwrap().into_iter().map(|message| (digest(&message), message)));
        }
        drop(server);
        store.into_tally()
    });
    tally.assert_nothing_lost("kill -9 of a server under load");
}

/// Posts messages until a request fails. Returns the acknowledged messages.
fn run_load(address: std::net::SocketAddr, seed: u64) -> Vec<Vec<u8>> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let message =
            format!("{seed} {number} {}", "m".repeat(usize::try_from(number % 7 * 100).unwrap())).into_bytes();
        let Ok(stream) = TcpStream::connect(address) else { break };
        if try_post(stream, &message) != Some(200) {
            break;
        }
        acknowledged.push(message);
    }
    acknowledged
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_during_a_segment_change_loses_nothing() {
    if !can_trace() {
        return;
    }
    let mut base = FaultedStore::new();
    // The first segment is almost full, so that the next large message starts a new segment.
    let large = |number: usize, length: usize| {
        let mut message = format!("large {number} ").into_bytes();
        message.resize(length, b'z');
        message
    };
    let fill: Vec<_> =
        (0..17).map(|number| vec![large(number, if number < 16 { 62 << 20 } else { 20 << 20 })]).collect();
    base.put(None, &fill);
    base.acknowledged.retain(|_, message| message.len() < 21 << 20);
    base.put(None, &message_groups(7, &[1, 5]));
    let second = "log/00000002.log";
    let calls = ["openat", "write", "fsync", "pwrite64", "fdatasync"];
    let mut tally = Tally::default();
    for call in calls {
        for n in 1..20 {
            let mut store = base.copy(format!("segment change, {call} {n}"));
            let paths = vec![store.path().join(second), store.path().join("log")];
            let kill = Injection::new(call, format!("signal=KILL:when={n}")).on_paths(paths);
            let (_, hits) =
                store.put(Some(&kill), &[vec![message(8, n, 99)], vec![large(99, 30 << 20), message(8, n + 50, 99)]]);
            if hits == 0 {
                break;
            }
            tally += store.into_tally();
        }
    }
    tally.assert_nothing_lost("kill -9 while a segment is rolled");
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_before_an_acknowledged_write_is_detected_as_a_loss() {
    if !can_trace() {
        return;
    }
    let mut store = cleanly_closed();
    let message = |number| format!("as long as the other {number}").into_bytes();
    // The write of the first message is skipped but acknowledged. The sync of the second message kills the process
    // before the index is flushed. It is the third sync of its thread: the first one synced the replayed log.
    let injection = Injection::new("pwrite64", format!("retval={}", super::skipped_writes::record_len(&message(1))));
    let injection = injection.with_call("fdatasync", "signal=KILL:when=3").on_paths(vec![store.first_segment()]);
    let before = store.acknowledged.len();
    let (result, _) = store.put(Some(&injection), &[vec![message(1)], vec![message(2)]]);
    assert!(result.killed && store.acknowledged.len() == before + 1);
    store.find_missing();
    store.tally.assert_loss_detected("kill -9 of a put whose write was skipped");
}
