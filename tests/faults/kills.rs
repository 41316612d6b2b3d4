//! `kill -9` at every step: of making a store, committing, replaying, mending, changing segments, closing; and at
//! random moments under load.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::scenes::{CHANGES, LOOKS, Reach, Scene, closed, numbers};
use super::strace::{Injection, instead};
use super::victim::{Victim, groups, message};
use super::{Tally, each, post};
use crate::common::server::Server;
use crate::common::{Random, can_trace, digest, has_tool};

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_at_any_step_loses_nothing() {
    if !can_trace() {
        return;
    }
    for scene in Scene::all() {
        let tally = each(CHANGES.into_iter().chain(LOOKS), |(reach, call)| at_every(&scene, reach, call));
        tally.row(&format!("kill -9 while {}", scene.name), false);
    }
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_while_runs_of_the_index_are_merged_loses_nothing() {
    if !can_trace() {
        return;
    }
    let scene = Scene::merging();
    let calls = ["pwrite64", "fsync", "write", "openat"].map(|call| (Reach::Index, call));
    let tally = each(calls, |(reach, call)| at_every(&scene, reach, call));
    tally.row(&format!("kill -9 while {}", scene.name), false);
}

/// Kills at the first such call, at the second, and so on until there are no more of them.
fn at_every(scene: &Scene, reach: Reach, call: &'static str) -> Tally {
    let mut tally = Tally::default();
    for n in numbers(12) {
        let Some(victim) = scene.play(reach, call, &format!("signal=KILL:when={n}")) else { break };
        tally += victim.judge();
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
    let tally = each(jobs, |(store, moments)| {
        let mut victim = Victim::new();
        let mut tally = Tally::default();
        for (round, moment) in moments.into_iter().enumerate() {
            let own = victim.command(&["put", "--lines"]);
            let mut command = Command::new("timeout");
            command.args(["--signal", "KILL", &format!("0.{:03}", moment + 5)]);
            instead(&mut command, &own);
            let sizes: Vec<_> = (0..2000).map(|group| 1 + group * group % 97).collect();
            victim.put_by(command, &groups(1000 + store * 100 + round as u64, &sizes));
            tally += victim.end_run();
        }
        tally
    });
    tally.row("kill -9 at random moments of put", false);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_of_the_server_loses_nothing() {
    let mut random = Random(0xbeef);
    let moments: Vec<_> = (0..12).map(|round| (round, random.below(500))).collect();
    let tally = each(moments, |(round, moment)| {
        let mut victim = Victim::new();
        let server =
            Server::begin(crate::common::Sandbox::new(), &["--http", "--store", victim.store().to_str().unwrap()]);
        server.is_ready();
        let address = server.address;
        let clients: Vec<_> =
            (0..8).map(|client| std::thread::spawn(move || load(address, round * 8 + client))).collect();
        // When it is killed is what is tried here, not something that is waited for.
        std::thread::sleep(Duration::from_millis(30 + moment));
        server.signal(Signal::KILL);
        for client in clients {
            victim.known.extend(client.join().unwrap().into_iter().map(|message| (digest(&message), message)));
        }
        drop(server);
        victim.judge()
    });
    tally.row("kill -9 of a server under load", false);
}

/// Posts until nobody answers; what was acknowledged.
fn load(address: std::net::SocketAddr, seed: u64) -> Vec<Vec<u8>> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let message =
            format!("{seed} {number} {}", "m".repeat(usize::try_from(number % 7 * 100).unwrap())).into_bytes();
        let Ok(stream) = TcpStream::connect(address) else { break };
        if post(stream, &message) != Some(200) {
            break;
        }
        acknowledged.push(message);
    }
    acknowledged
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_while_the_segment_changes_loses_nothing() {
    if !can_trace() {
        return;
    }
    let mut base = Victim::new();
    // All but full, so that the next large message needs another segment.
    let large = |number: usize, length: usize| {
        let mut message = format!("large {number} ").into_bytes();
        message.resize(length, b'z');
        message
    };
    let fill: Vec<_> =
        (0..17).map(|number| vec![large(number, if number < 16 { 62 << 20 } else { 20 << 20 })]).collect();
    base.put(None, &fill);
    base.known.retain(|_, message| message.len() < 21 << 20);
    base.put(None, &groups(7, &[1, 5]));
    let second = "log/00000002.log";
    let calls = ["openat", "write", "fsync", "pwrite64", "fdatasync"];
    let mut tally = Tally::default();
    for call in calls {
        for n in 1..20 {
            let mut victim = base.copy(format!("segment change, {call} {n}"));
            let paths = vec![victim.store().join(second), victim.store().join("log")];
            let kill = Injection::new(call, format!("signal=KILL:when={n}")).on(paths);
            let (_, hits) =
                victim.put(Some(&kill), &[vec![message(8, n, 99)], vec![large(99, 30 << 20), message(8, n + 50, 99)]]);
            if hits == 0 {
                break;
            }
            tally += victim.judge();
        }
    }
    tally.row("kill -9 while the segment changes", false);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_before_what_was_acknowledged_is_written_is_seen_as_a_loss() {
    if !can_trace() {
        return;
    }
    let mut victim = closed();
    let message = |number| format!("as long as the other {number}").into_bytes();
    // The first is acknowledged without being written, and before the index knows it the second brings the end. The
    // thread that commits them has synced the log before, when it was replayed.
    let lie = Injection::new("pwrite64", format!("retval={}", super::lies::record(&message(1))));
    let lie = lie.and("fdatasync", "signal=KILL:when=3").on(vec![victim.log()]);
    let before = victim.known.len();
    let (ran, _) = victim.put(Some(&lie), &[vec![message(1)], vec![message(2)]]);
    assert!(ran.killed && victim.known.len() == before + 1);
    victim.check();
    victim.tally.control("kill -9 of a put that does not write");
}
