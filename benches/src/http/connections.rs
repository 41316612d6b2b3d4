//! Measures the cost of connections: full handshakes, and idle connections.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::OneMessageServer;
use super::client::{Client, Connection};
use super::gets::NGINX;
use super::servers::{PER_ADDRESS, Server, sha_api};
use crate::Environment;
use crate::rounds::{rate, rounds, run_alternately, scaled, seconds};
use crate::table::{Goal, Row, Table};

/// Number of threads that do handshakes.
const THREADS: u64 = 16;
/// Number of new clients that connect while all others are idle.
const NEW_CLIENTS: u64 = 20;

pub fn handshakes(one: &OneMessageServer, nginx: &Server, table: &mut Table) {
    let visits = |server: &Server| {
        let client = Client::new(&one.pair.certificate, server.port);
        rate(THREADS, |_, _| assert_eq!(client.connect().get(&one.path).0, 200))
    };
    let [ours, theirs] = run_alternately([&mut || visits(&one.server), &mut || visits(nginx)]);
    let work = "full TLS handshake and a GET for each connection, P-256";
    table.add(Row::ratio(work, "/s", ours, NGINX, theirs, Goal::AtLeast(0.8)));
}

/// Measures many connections that are idle after one request each.
pub fn idle(env: &Environment, table: &mut Table) {
    let count = scaled(10_000);
    raise_fd_limit(count + 1000);
    let most = (count + 100).to_string();
    let flags = ["--max-connections", &most, PER_ADDRESS, &most, "--idle-timeout", "10m"];
    let [mut memory, mut slowest] = [const { Vec::new() }; 2];
    for _ in 0..rounds() {
        let dir = env.scratch();
        let (server, pair) = sha_api(env, &dir.path().join("store"), &flags);
        let client = Client::new(&pair.certificate, server.port);
        let before = server.process.memory();
        let idle_connections = open(&client, count);
        // Worker threads release their buffers shortly after a response.
        std::thread::sleep(Duration::from_secs(1));
        memory.push((server.process.memory() - before) as f64 / 1024.0 / count as f64);
        let fresh = (0..NEW_CLIENTS).map(|_| seconds(|| assert_eq!(client.connect().get("/livez").0, 200)) * 1e3);
        slowest.push(fresh.fold(0.0, f64::max));
        drop(idle_connections);
    }
    table.add(Row::single(&format!("memory for each of {count} idle connections"), "KiB", memory, Goal::AtMost(64.0)));
    let work = format!("the slowest of {NEW_CLIENTS} new clients beside them, handshake included");
    table.add(Row::single(&work, "ms", slowest, Goal::AtMost(50.0)));
}

fn open(client: &Client, count: u64) -> Vec<Connection> {
    const OPENERS: u64 = 8;
    let one = || {
        let mut connection = client.connect();
        assert_eq!(connection.get("/livez").0, 200);
        connection
    };
    std::thread::scope(|scope| {
        let share = |opener| count / OPENERS + u64::from(opener < count % OPENERS);
        let openers: Vec<_> = (0..OPENERS)
            .map(|opener| scope.spawn(move || (0..share(opener)).map(|_| one()).collect::<Vec<_>>()))
            .collect();
        openers.into_iter().flat_map(|opener| opener.join().unwrap()).collect()
    })
}

/// Raises the limit on open files of this process and its children to at least `files`.
fn raise_fd_limit(files: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < files) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum }).unwrap();
    }
}
