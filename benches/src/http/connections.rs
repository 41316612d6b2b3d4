//! What a connection costs: a full handshake, and being idle.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::WithOne;
use super::client::{Client, Connection};
use super::gets::NGINX;
use super::servers::{PER_ADDRESS, Server, sha_api};
use crate::Place;
use crate::rounds::{in_turn, rate, rounds, seconds, sized};
use crate::table::{Goal, Row, Table};

/// Threads that shake hands.
const THREADS: u64 = 16;
/// Clients that come while all others idle.
const FRESH: u64 = 20;

pub fn handshakes(one: &WithOne, nginx: &Server, table: &mut Table) {
    let visits = |server: &Server| {
        let client = Client::new(&one.pair.certificate, server.port);
        rate(THREADS, |_, _| assert_eq!(client.connect().get(&one.path).0, 200))
    };
    let [ours, theirs] = in_turn([&mut || visits(&one.server), &mut || visits(nginx)]);
    let work = "full TLS handshake and a GET for each connection, P-256";
    table.add(Row::ratio(work, "/s", ours, NGINX, theirs, Goal::AtLeast(0.8)));
}

/// Many connections that each have asked once and stay.
pub fn idle(place: &Place, table: &mut Table) {
    let count = sized(10_000);
    allow(count + 1000);
    let most = (count + 100).to_string();
    let flags = ["--max-connections", &most, PER_ADDRESS, &most, "--idle-timeout", "10m"];
    let [mut memory, mut slowest] = [const { Vec::new() }; 2];
    for _ in 0..rounds() {
        let dir = place.scratch();
        let (server, pair) = sha_api(place, &dir.path().join("store"), &flags);
        let client = Client::new(&pair.certificate, server.port);
        let before = server.process.memory();
        let held = open(&client, count);
        // Threads that have just answered have not yet let go of what they used for it.
        std::thread::sleep(Duration::from_secs(1));
        memory.push((server.process.memory() - before) as f64 / 1024.0 / count as f64);
        let fresh = (0..FRESH).map(|_| seconds(|| assert_eq!(client.connect().get("/livez").0, 200)) * 1e3);
        slowest.push(fresh.fold(0.0, f64::max));
        drop(held);
    }
    table.add(Row::alone(&format!("memory for each of {count} idle connections"), "KiB", memory, Goal::AtMost(64.0)));
    let work = format!("the slowest of {FRESH} new clients beside them, handshake included");
    table.add(Row::alone(&work, "ms", slowest, Goal::AtMost(50.0)));
}

fn open(client: &Client, count: u64) -> Vec<Connection> {
    const HANDS: u64 = 8;
    let one = || {
        let mut connection = client.connect();
        assert_eq!(connection.get("/livez").0, 200);
        connection
    };
    std::thread::scope(|scope| {
        let share = |hand| count / HANDS + u64::from(hand < count % HANDS);
        let hands: Vec<_> =
            (0..HANDS).map(|hand| scope.spawn(move || (0..share(hand)).map(|_| one()).collect::<Vec<_>>())).collect();
        hands.into_iter().flat_map(|hand| hand.join().unwrap()).collect()
    })
}

/// Sees to it that so many files can be open, here and in what is started here.
fn allow(files: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < files) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum }).unwrap();
    }
}
