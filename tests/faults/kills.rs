//! `kill -9` at every step: of making a store, committing, replaying, mending, changing segments, closing; and at
//! random moments under load.

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
    for scene in Scenario::all() {
        let tally = run_in_parallel(WRITE_CALLS.into_iter().chain(READ_CALLS), |(reach, call)| {
            kill_at_each_call(&scene, reach, call)
        });
        tally.record_and_assert(&format!("kill -9 while {}", scene.name), false);
    }
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_during_an_index_merge_loses_nothing() {
    if !can_trace() {
        return;
    }
    let scene = Scenario::merging();
    let calls = ["pwrite64", "fsync", "write", "openat"].map(|call| (CallScope::Index, call));
    let tally = run_in_parallel(calls, |(reach, call)| kill_at_each_call(&scene, reach, call));
    tally.record_and_assert(&format!("kill -9 while {}", scene.name), false);
}

/// Kills at the first such call, at the second, and so on until there are no more of them.
fn kill_at_each_call(scene: &Scenario, reach: CallScope, call: &'static str) -> Tally {
    let mut tally = Tally::default();
    for n in call_indices(12) {
        let Some(victim) = scene.inject(reach, call, &format!("signal=KILL:when={n}")) else { break };
        tally += victim.into_tally();
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
    let jobs: Vec<_> = (0..8).map(|store| (store, [(); 8].map(|()| random.below(400)))).collect();
    let tally = run_in_parallel(jobs, |(store, moments)| {
        let mut victim = FaultedStore::new();
        let mut tally = Tally::default();
        for (round, moment) in moments.into_iter().enumerate() {
            let own = victim.command(&["put", "--lines"]);
            let mut command = Command::new("timeout");
            command.args(["--signal", "KILL", &format!("0.{:03}", moment + 5)]);
            exec_under(&mut command, &own);
            let sizes: Vec<_> = (0..2000).map(|group| 1 + group * group % 97).collect();
            victim.put_with(command, &message_groups(1000 + store * 100 + round as u64, &sizes));
            tally += victim.finish_run();
        }
        tally
    });
    tally.record_and_assert("kill -9 at random moments of put", false);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_of_the_server_loses_nothing() {
    let mut random = Random(0xbeef);
    let moments: Vec<_> = (0..12).map(|round| (round, random.below(500))).collect();
    let tally = run_in_parallel(moments, |(round, moment)| {
        let mut victim = FaultedStore::new();
        let server =
            Server::spawn(crate::common::Sandbox::new(), &["--http", "--store", victim.store().to_str().unwrap()]);
        server.wait_ready();
        let address = server.address;
        let clients: Vec<_> =
            (0..8).map(|client| std::thread::spawn(move || load(address, round * 8 + client))).collect();
        // When it is killed is what is tried here, not something that is waited for.
        std::thread::sleep(Duration::from_millis(30 + moment));
        server.signal(Signal::KILL);
        for client in clients {
            victim.acknowledged.extend(client.join().unwrap().into_iter().map(|message| (digest(&message), message)));
        }
        drop(server);
        victim.into_tally()
    });
    tally.record_and_assert("kill -9 of a server under load", false);
}

/// Posts until nobody answers; what was acknowledged.
fn load(address: std::net::SocketAddr, seed: u64) -> Vec<Vec<u8>> {
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
    // All but full, so that the next large message needs another segment.
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
            let mut victim = base.copy(format!("segment change, {call} {n}"));
            let paths = vec![victim.store().join(second), victim.store().join("log")];
            let kill = Injection::new(call, format!("signal=KILL:when={n}")).on_paths(paths);
            let (_, hits) =
                victim.put(Some(&kill), &[vec![message(8, n, 99)], vec![large(99, 30 << 20), message(8, n + 50, 99)]]);
            if hits == 0 {
                break;
            }
            tally += victim.into_tally();
        }
    }
    tally.record_and_assert("kill -9 while the segment changes", false);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_before_an_acknowledged_write_is_detected_as_a_loss() {
    if !can_trace() {
        return;
    }
    let mut victim = cleanly_closed();
    let message = |number| format!("as long as the other {number}").into_bytes();
    // The first is acknowledged without being written, and before the index knows it the second brings the end. The
    // thread that commits them has synced the log before, when it was replayed.
    let lie = Injection::new("pwrite64", format!("retval={}", super::skipped_writes::record_len(&message(1))));
    let lie = lie.with_call("fdatasync", "signal=KILL:when=3").on_paths(vec![victim.first_segment()]);
    let before = victim.acknowledged.len();
    let (ran, _) = victim.put(Some(&lie), &[vec![message(1)], vec![message(2)]]);
    assert!(ran.killed && victim.acknowledged.len() == before + 1);
    victim.find_missing();
    victim.tally.record_and_assert_loss("kill -9 of a put that does not write");
}
