//! Compares durable POSTs over HTTPS, and durable puts through the library, with Redis that syncs before it answers.

use std::fs;
use std::path::{Path, PathBuf};

use sha_api::message_store::MessageStore;

use super::LENGTH;
use super::load::{Wrk, redis_sets};
use super::servers::{Server, redis, sha_api};
use crate::Environment;
use crate::messages::message;
use crate::rounds::{rate, run_alternately};
use crate::store::open;
use crate::table::{Goal, Row, Table};

/// Number of concurrent clients.
const CLIENTS: u64 = 64;

pub fn new(env: &Environment, table: &mut Table) {
    let (dir, redis_dir) = (env.scratch(), env.scratch());
    let (ours, _) = sha_api(env, &dir.path().join("store"), &[]);
    let store = open(&dir.path().join("library"), None);
    let redis = redis(redis_dir.path());
    let poster = Poster::new(dir.path());
    let (mut post_round, mut store_round) = (0, 0);
    let mut over_https = || {
        post_round += 1;
        poster.post_rate(&ours, post_round, CLIENTS)
    };
    let mut directly = || {
        store_round += 1;
        let name = |thread| store_round << 8 | thread;
        rate(CLIENTS, |thread, number| drop(store.put(vec![message(LENGTH, name(thread), number)]).unwrap()))
    };
    let mut sets = || redis_sets(redis.port, CLIENTS, LENGTH);
    let [over_https, directly, sets] = run_alternately([&mut over_https, &mut directly, &mut sets]);
    let competitor = "Redis SET, appendfsync always";
    let work = format!("POST of new messages, {CLIENTS} connections");
    table.add(Row::ratio(&work, "/s", over_https, competitor, sets.clone(), Goal::AtLeast(0.5)));
    let work = format!("durable puts of 200 B, {CLIENTS} threads, no server");
    table.add(Row::ratio(&work, "/s", directly, competitor, sets, Goal::AtLeast(1.0)));
}

/// Posts messages that no other run has posted.
pub struct Poster(PathBuf);

impl Poster {
    /// Writes the wrk script to `dir`.
    pub fn new(dir: &Path) -> Self {
        let script = dir.join("post.lua");
        fs::write(&script, include_str!("post.lua")).unwrap();
        Self(script)
    }

    /// Returns POSTs per second. Rounds post different messages.
    pub fn post_rate(&self, server: &Server, round: u64, connections: u64) -> f64 {
        let name = format!("{round:04}");
        // The script adds the thread number, nine digits and two dashes.
        let rest = "x".repeat(LENGTH - name.len() - 12);
        let script = Some((self.0.as_path(), vec![name, rest]));
        Wrk { port: server.port, connections, path: "/", script }.run()
    }
}
