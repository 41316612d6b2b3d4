//! Durable POSTs beside Redis that syncs before it answers; and `Store` beside it, without HTTPS.

use std::fs;
use std::path::{Path, PathBuf};

use sha_api::messages::Messages;

use super::LENGTH;
use super::load::{Wrk, redis_sets};
use super::servers::{Server, redis, sha_api};
use crate::Place;
use crate::messages::message;
use crate::rounds::{in_turn, rate};
use crate::store::open;
use crate::table::{Goal, Row, Table};

/// Those who put at the same time.
const CLIENTS: u64 = 64;

pub fn new(place: &Place, table: &mut Table) {
    let (dir, redis_dir) = (place.scratch(), place.scratch());
    let (ours, _) = sha_api(place, &dir.path().join("store"), &[]);
    let store = open(&dir.path().join("library"), None);
    let redis = redis(redis_dir.path());
    let poster = Poster::new(dir.path());
    let (mut post_round, mut store_round) = (0, 0);
    let mut over_https = || {
        post_round += 1;
        poster.posts(&ours, post_round, CLIENTS)
    };
    let mut directly = || {
        store_round += 1;
        let name = |thread| store_round << 8 | thread;
        rate(CLIENTS, |thread, number| drop(store.put(vec![message(LENGTH, name(thread), number)]).unwrap()))
    };
    let mut sets = || redis_sets(redis.port, CLIENTS, LENGTH);
    let [over_https, directly, sets] = in_turn([&mut over_https, &mut directly, &mut sets]);
    let who = "Redis SET, appendfsync always";
    let work = format!("POST of new messages, {CLIENTS} connections");
    table.add(Row::ratio(&work, "/s", over_https, who, sets.clone(), Goal::AtLeast(0.5)));
    let work = format!("durable puts of 200 B, {CLIENTS} threads, no server");
    table.add(Row::ratio(&work, "/s", directly, who, sets, Goal::AtLeast(1.0)));
}

/// Posts what nobody has posted before.
pub struct Poster(PathBuf);

impl Poster {
    /// Its script lies in `dir`.
    pub fn new(dir: &Path) -> Self {
        let script = dir.join("post.lua");
        fs::write(&script, include_str!("post.lua")).unwrap();
        Self(script)
    }

    /// POSTs a second; no other round posts the same.
    pub fn posts(&self, server: &Server, round: u64, connections: u64) -> f64 {
        let name = format!("{round:04}");
        // The script adds the number of its thread, nine digits, and two dashes.
        let rest = "x".repeat(LENGTH - name.len() - 12);
        let script = Some((self.0.as_path(), vec![name, rest]));
        Wrk { port: server.port, connections, path: "/", script }.run()
    }
}
