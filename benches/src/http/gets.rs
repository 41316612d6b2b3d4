//! Compares GETs of one message, and of random ones of many, with nginx serving the same bytes as files.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use super::load::Wrk;
use super::servers::{Server, nginx, sha_api};
use super::{LENGTH, OneMessageServer, connections, get, get_rate, path_of};
use crate::Environment;
use crate::messages::text;
use crate::rounds::{run_alternately, scaled};
use crate::store::{fill, open, size_of_count};
use crate::table::{Goal, Row, Table};

pub const NGINX: &str = "nginx, a static file";

pub fn hot(env: &Environment, table: &mut Table) {
    let (dir, files) = (env.scratch(), env.scratch());
    let one = OneMessageServer::new(env, &dir.path().join("store"));
    let path = &one.path;
    fs::create_dir(files.path().join("messages")).unwrap();
    fs::write(files.path().join(&path[1..]), &one.body).unwrap();
    // sha-api caches the response; nginx caches the open file.
    let nginx = nginx(files.path(), &one.pair, &format!("root {}; open_file_cache max=1000;", files.path().display()));
    assert_eq!(get(&nginx, &one.pair, path), one.body);
    for connections in [16, 64] {
        let [ours, theirs] = run_alternately([&mut || get_rate(&one.server, path, connections), &mut || {
            get_rate(&nginx, path, connections)
        }]);
        let work = format!("GET of one message, {connections} connections");
        table.add(Row::ratio(&work, "/s", ours, NGINX, theirs, Goal::AtLeast(0.8)));
    }
    connections::handshakes(&one, &nginx, table);
}

pub fn uniform(env: &Environment, table: &mut Table) {
    let count = scaled(1_000_000);
    let (dir, files) = (env.scratch(), env.scratch());
    let store = dir.path().join("store");
    fill(&open(&store, None), (0..count).map(|number| text(LENGTH, 0, number).into_bytes()));
    let (ours, pair) = sha_api(env, &store, &["--cache-size", "0"]);
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
    let [ours, theirs] = run_alternately([&mut || any(&ours), &mut || any(&nginx)]);
    let work = format!("GET of any of {} messages, no cache, 64 connections", size_of_count(count));
    table.add(Row::ratio(&work, "/s", ours, "nginx, as many files", theirs, Goal::AtLeast(0.35)));
}

/// Writes the response body of each message as a file below `root`, and the list of digests.
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
