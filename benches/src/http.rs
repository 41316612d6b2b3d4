//! Compares the server with nginx (GET), Redis (POST), the Python ancestor and docker-registry, and measures
//! connections.

mod alternatives;
mod client;
mod connections;
mod gets;
mod load;
mod posts;
mod servers;

use std::path::Path;

use sha_api::digest::Digest;

use crate::Environment;
use crate::messages::text;
use crate::store::{fill, open};
use crate::table::Table;
use crate::tools;

use client::Client;
use load::Wrk;
use servers::{Pair, Server, sha_api};

/// Length of each message in bytes.
const LENGTH: usize = 200;

pub fn run(env: &Environment) {
    tools::require(&[
        ("docker-registry", "docker-registry"),
        ("nginx", "nginx-light"),
        ("python3", "python3"),
        ("redis-benchmark", "redis-tools"),
        ("redis-server", "redis-server"),
        ("setpriv", "util-linux"),
        ("wrk", "wrk"),
    ]);
    let mut table = Table::new("http", "make bench-http", env);
    gets::hot(env, &mut table);
    gets::uniform(env, &mut table);
    posts::new(env, &mut table);
    alternatives::all(env, &mut table);
    connections::idle(env, &mut table);
    table.save();
}

/// sha-api serving a store with one message.
struct OneMessageServer {
    server: Server,
    pair: Pair,
    /// Path of the message.
    path: String,
    /// Body of the response.
    body: String,
}

impl OneMessageServer {
    fn new(env: &Environment, store: &Path) -> Self {
        let message = text(LENGTH, 0, 0);
        fill(&open(store, None), std::iter::once(message.clone().into_bytes()));
        let (server, pair) = sha_api(env, store, &[]);
        let path = path_of(&message);
        let body = get(&server, &pair, &path);
        Self { server, pair, path, body }
    }
}

fn path_of(message: &str) -> String {
    format!("/messages/{}", Digest::compute(message.as_bytes()))
}

/// Returns the body of a path. Panics unless the status is 200.
fn get(server: &Server, pair: &Pair, path: &str) -> String {
    let (status, body) = Client::new(&pair.certificate, server.port).connect().get(path);
    assert_eq!(status, 200, "{body}");
    body
}

/// Returns GETs per second of one path.
fn get_rate(server: &Server, path: &str, connections: u64) -> f64 {
    Wrk { port: server.port, connections, path, script: None }.run()
}
