//! GET and POST beside the Python service that sha-api comes from, behind nginx; GET beside the registry of container
//! images, which also finds what it keeps by SHA-256.

use sha_api::digest::Digest;

use super::posts::Poster;
use super::servers::{ancestor, registry};
use super::{WithOne, get, gets_of};
use crate::Place;
use crate::messages::text;
use crate::rounds::in_turn;
use crate::table::{Goal, Row, Table};

/// More than that the ancestor has to refuse.
const CONNECTIONS: u64 = 16;
const ANCESTOR: &str = "nginx, bottle, SQLite";

pub fn all(place: &Place, table: &mut Table) {
    let [dir, registry_dir, ancestor_dir] = [(); 3].map(|()| place.scratch());
    let one = WithOne::new(place, &dir.path().join("store"));
    let digest = Digest::of(one.body.as_bytes()).to_string();
    let (registry, blob) = registry(registry_dir.path(), &one.pair, &one.body, &digest);
    assert_eq!(get(&registry, &one.pair, &blob), one.body);
    let message = text(super::LENGTH, 0, 0);
    let (ancestor, _behind) = ancestor(place, ancestor_dir.path(), &one.pair, &message);
    assert_eq!(get(&ancestor, &one.pair, &one.path), one.body);
    let [ours, theirs, blobs] = in_turn([
        &mut || gets_of(&one.server, &one.path, CONNECTIONS),
        &mut || gets_of(&ancestor, &one.path, CONNECTIONS),
        &mut || gets_of(&registry, &blob, CONNECTIONS),
    ]);
    let work = format!("GET of one message, {CONNECTIONS} connections");
    let row = |who, theirs| Row::ratio(&work, "/s", ours.clone(), who, theirs, Goal::AtLeast(10.0));
    table.add(row("docker-registry, a blob", blobs));
    table.add(row(ANCESTOR, theirs));
    let poster = Poster::new(dir.path());
    let (mut our_round, mut their_round) = (0, 0);
    let mut ours = || {
        our_round += 1;
        poster.posts(&one.server, our_round, CONNECTIONS)
    };
    let mut theirs = || {
        their_round += 1;
        poster.posts(&ancestor, their_round, CONNECTIONS)
    };
    let [ours, theirs] = in_turn([&mut ours, &mut theirs]);
    let work = format!("POST of new messages, {CONNECTIONS} connections");
    table.add(Row::ratio(&work, "/s", ours, ANCESTOR, theirs, Goal::AtLeast(10.0)));
}
