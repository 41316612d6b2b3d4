//! The server: GET beside nginx, POST beside Redis, both beside the stack that sha-api comes from; and connections.

mod client;
mod connections;
mod elders;
mod gets;
mod load;
mod posts;
mod servers;

use std::path::Path;

use sha_api::digest::Digest;

use crate::Place;
use crate::messages::text;
use crate::store::{fill, open};
use crate::table::Table;
use crate::tools;

use client::Client;
use load::Wrk;
use servers::{Pair, Server, sha_api};

/// Of each message, in bytes.
const LENGTH: usize = 200;

pub fn run(place: &Place) {
    tools::need(&[
        ("docker-registry", "docker-registry"),
        ("nginx", "nginx-light"),
        ("python3", "python3"),
        ("redis-benchmark", "redis-tools"),
        ("redis-server", "redis-server"),
        ("setpriv", "util-linux"),
        ("wrk", "wrk"),
    ]);
    let mut table = Table::new("http", "make bench-http", place);
    gets::hot(place, &mut table);
    gets::uniform(place, &mut table);
    posts::new(place, &mut table);
    elders::all(place, &mut table);
    connections::idle(place, &mut table);
    table.keep();
}

/// sha-api with one message in its store.
struct WithOne {
    server: Server,
    pair: Pair,
    /// What the message is asked for by.
    path: String,
    /// What is answered.
    body: String,
}

impl WithOne {
    fn new(place: &Place, store: &Path) -> Self {
        let message = text(LENGTH, 0, 0);
        fill(&open(store, None), std::iter::once(message.clone().into_bytes()));
        let (server, pair) = sha_api(place, store, &[]);
        let path = path_of(&message);
        let body = get(&server, &pair, &path);
        Self { server, pair, path, body }
    }
}

fn path_of(message: &str) -> String {
    format!("/messages/{}", Digest::of(message.as_bytes()))
}

/// The body of what is there.
fn get(server: &Server, pair: &Pair, path: &str) -> String {
    let (status, body) = Client::new(&pair.certificate, server.port).connect().get(path);
    assert_eq!(status, 200, "{body}");
    body
}

/// GETs a second of one path.
fn gets_of(server: &Server, path: &str, connections: u64) -> f64 {
    Wrk { port: server.port, connections, path, script: None }.run()
}
