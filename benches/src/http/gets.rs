//! GETs beside nginx, which sends the same bytes as a file: of one message, and of any of many.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use super::load::Wrk;
use super::servers::{Server, nginx, sha_api};
use super::{LENGTH, WithOne, connections, get, gets_of, path_of};
use crate::Place;
use crate::messages::text;
use crate::rounds::{in_turn, sized};
use crate::store::{fill, open, size_of_count};
use crate::table::{Goal, Row, Table};

pub const NGINX: &str = "nginx, a static file";

pub fn hot(place: &Place, table: &mut Table) {
    let (dir, files) = (place.scratch(), place.scratch());
    let one = WithOne::new(place, &dir.path().join("store"));
    let path = &one.path;
    fs::create_dir(files.path().join("messages")).unwrap();
    fs::write(files.path().join(&path[1..]), &one.body).unwrap();
    // As we keep the reply, it keeps the file open.
    let nginx = nginx(files.path(), &one.pair, &format!("root {}; open_file_cache max=1000;", files.path().display()));
    assert_eq!(get(&nginx, &one.pair, path), one.body);
    for connections in [16, 64] {
        let [ours, theirs] =
            in_turn([&mut || gets_of(&one.server, path, connections), &mut || gets_of(&nginx, path, connections)]);
        let work = format!("GET of one message, {connections} connections");
        table.add(Row::ratio(&work, "/s", ours, NGINX, theirs, Goal::AtLeast(0.8)));
    }
    connections::handshakes(&one, &nginx, table);
}

pub fn uniform(place: &Place, table: &mut Table) {
    let count = sized(1_000_000);
    let (dir, files) = (place.scratch(), place.scratch());
    let store = dir.path().join("store");
    fill(&open(&store, None), (0..count).map(|number| text(LENGTH, 0, number).into_bytes()));
    let (ours, pair) = sha_api(place, &store, &["--cache-size", "0"]);
    let first = text(LENGTH, 0, 0);
    let body = get(&ours, &pair, &path_of(&first));
    let around = body.split_once(&first).unwrap();
    let digests = dir.path().join("digests");
    write(files.path(), around, count, &digests);
    let nginx = nginx(files.path(), &pair, &format!("root {};", files.path().display()));
    assert_eq!(get(&nginx, &pair, &path_of(&first)), body);
    let script = dir.path().join("get.lua");
    fs::write(&script, include_str!("get.lua")).unwrap();
    let any = |server: &Server| {
        let script = Some((script.as_path(), vec![digests.display().to_string()]));
        Wrk { port: server.port, connections: 64, path: "/", script }.run()
    };
    let [ours, theirs] = in_turn([&mut || any(&ours), &mut || any(&nginx)]);
    let work = format!("GET of any of {} messages, no cache, 64 connections", size_of_count(count));
    table.add(Row::ratio(&work, "/s", ours, "nginx, as many files", theirs, Goal::AtLeast(0.35)));
}

/// Writes what is sent for each message as a file below `root`, and the list of digests.
fn write(root: &Path, around: (&str, &str), count: u64, digests: &Path) {
    fs::create_dir(root.join("messages")).unwrap();
    let mut digests = BufWriter::new(File::create(digests).unwrap());
    for number in 0..count {
        let message = text(LENGTH, 0, number);
        let path = path_of(&message);
        fs::write(root.join(&path[1..]), [around.0, &message, around.1].concat()).unwrap();
        writeln!(digests, "{}", path.rsplit('/').next().unwrap()).unwrap();
    }
    digests.flush().unwrap();
}
