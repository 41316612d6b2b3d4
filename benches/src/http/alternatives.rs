//! Compares GET and POST with the Python ancestor behind nginx, and GET with docker-registry, which also finds blobs by
//! their SHA-256.

use sha_api::digest::Digest;

use super::posts::Poster;
use super::servers::{ancestor, registry};
use super::{OneMessageServer, get, get_rate};
use crate::Environment;
use crate::messages::text;
use crate::rounds::run_alternately;
use crate::table::{Goal, Row, Table};

/// Number of connections; the ancestor refuses some if there are more.
const CONNECTIONS: u64 = 16;
const ANCESTOR: &str = "nginx, bottle, SQLite";

pub fn all(env: &Environment, table: &mut Table) {
    let [dir, registry_dir, ancestor_dir] = [(); 3].map(|()| env.scratch());
    let one = OneMessageServer::new(env, &dir.path().join("store"));
    let digest = Digest::compute(one.body.as_bytes()).to_string();
    let (registry, blob) = registry(registry_dir.path(), &one.pair, &one.body, &digest);
    assert_eq!(get(&registry, &one.pair, &blob), one.body);
    let message = text(super::LENGTH, 0, 0);
    let (ancestor, _behind) = ancestor(env, ancestor_dir.path(), &one.pair, &message);
    assert_eq!(get(&ancestor, &one.pair, &one.path), one.body);
    let [ours, theirs, blobs] = run_alternately([
        &mut || get_rate(&one.server, &one.path, CONNECTIONS),
        &mut || get_rate(&ancestor, &one.path, CONNECTIONS),
        &mut || get_rate(&registry, &blob, CONNECTIONS),
    ]);
    let work = format!("GET of one message, {CONNECTIONS} connections");
    let row = |competitor, theirs| Row::ratio(&work, "/s", ours.clone(), competitor, theirs, Goal::AtLeast(10.0));
    table.add(row("docker-registry, a blob", blobs));
    table.add(row(ANCESTOR, theirs));
    let poster = Poster::new(dir.path());
    let (mut our_round, mut their_round) = (0, 0);
    let mut ours = || {
        our_round += 1;
        poster.post_rate(&one.server, our_round, CONNECTIONS)
    };
    let mut theirs = || {
        their_round += 1;
        poster.post_rate(&ancestor, their_round, CONNECTIONS)
    };
    let [ours, theirs] = run_alternately([&mut ours, &mut theirs]);
    let work = format!("POST of new messages, {CONNECTIONS} connections");
    table.add(Row::ratio(&work, "/s", ours, ANCESTOR, theirs, Goal::AtLeast(10.0)));
}
