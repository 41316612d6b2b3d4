//! Several servers over one database behind nginx, as `deploy/nginx.conf` has it: one is killed, another drained and
//! started again under load. No request fails, and nothing that was acknowledged is lost. `make test-cluster` does more of it.

use std::fmt::Display;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::cluster::{Cluster, on};
use crate::common::proxy::{Kind, Proxy, replace};
use crate::common::server::{Server, post, request, until};
use crate::common::{Sandbox, digest};

const CLIENTS: usize = 4;
/// Requests on one connection; nginx closes after 1000.
const VISIT: usize = 500;

/// What came of some load.
#[derive(Debug, Default)]
struct Outcome {
    requests: usize,
    failed: usize,
    /// What was acknowledged.
    digests: Vec<String>,
}

/// Whether the servers speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
}

/// A sandbox on the database, with a pair that all servers share if they speak TLS.
fn place(url: &str, way: Way) -> (Sandbox, Vec<String>) {
    let sandbox = on(url);
    if way == Way::Plain {
        return (sandbox, vec!["--http".to_owned()]);
    }
    let tls = sandbox.store().join("tls");
    std::fs::create_dir_all(&tls).unwrap();
    (sandbox, vec!["--tls-cert".to_owned(), tls.join("cert.pem").display().to_string()])
}

/// Three servers of one database.
struct Fleet {
    url: String,
    way: Way,
    flags: Vec<&'static str>,
    pem: String,
    servers: Vec<Server>,
    /// Where nginx finds them, also after they were started again.
    addresses: Vec<String>,
}

impl Fleet {
    fn new(url: &str, way: Way, count: usize, flags: &[&'static str]) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let pem = made.cert.pem() + &made.signing_key.serialize_pem();
        let mut fleet =
            Self { url: url.to_owned(), way, flags: flags.to_vec(), pem, servers: Vec::new(), addresses: Vec::new() };
        for _ in 0..count {
            let server = fleet.start(&[]);
            fleet.addresses.push(server.address.to_string());
            fleet.servers.push(server);
        }
        fleet
    }

    fn start(&self, flags: &[&str]) -> Server {
        let (sandbox, mut all) = place(&self.url, self.way);
        if self.way == Way::Tls {
            std::fs::write(&all[1], &self.pem).unwrap();
        }
        all.extend(self.flags.iter().chain(flags).map(|flag| (*flag).to_owned()));
        Server::start(sandbox, &all.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn again(&mut self, at: usize) {
        self.servers[at] = self.start(&["--listen", &self.addresses[at]]);
    }

    fn nginx(&self, change: &dyn Fn(&mut String)) -> Option<Proxy> {
        Kind::Nginx.changed_before(&self.servers.iter().collect::<Vec<_>>(), change)
    }
}

/// Puts and gets through nginx until told to stop. What is got must be what was put.
fn load(proxy: &Proxy, client: usize, stop: &AtomicBool, done: &AtomicUsize) -> Outcome {
    let mut outcome = Outcome::default();
    let mut acknowledged: Vec<String> = Vec::new();
    let mut connection = proxy.client();
    for number in 0..1_000_000 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if number % VISIT == VISIT - 1 {
            connection = proxy.client();
        }
        let message = format!("client {client}, message {number}");
        let known = acknowledged.get(number * 7 % acknowledged.len().max(1));
        let path = |message: &str| format!("/messages/{}", digest(message.as_bytes()));
        let (request, expected) = match (number % 3, known) {
            (1, Some(known)) => (request("GET", &path(known), "", ""), Some(format!("{{\"message\": \"{known}\"}}"))),
            (2, _) => (request("PUT", &path(&message), "", &message), None),
            _ => (post(&message, "").into(), None),
        };
        let reply = connection.exchange(request);
        outcome.requests += 1;
        done.fetch_add(1, Ordering::Relaxed);
        let is_done = [200, 201].contains(&reply.status);
        if !is_done || expected.as_ref().is_some_and(|expected| expected.as_bytes() != reply.body) {
            outcome.failed += 1;
        } else if expected.is_none() {
            acknowledged.push(message);
        }
    }
    outcome.digests = acknowledged.iter().map(|message| digest(message.as_bytes())).collect();
    outcome
}

/// Load on all of them, while one is killed and started, and another drained and started; `more`: requests in between.
fn ordeal(fleet: &mut Fleet, proxy: &Proxy, rounds: usize, more: usize) -> Outcome {
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let sum = Mutex::new(Outcome::default());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (stop, done, sum) = (&stop, &done, &sum);
            scope.spawn(move || {
                let outcome = load(proxy, client, stop, done);
                let mut sum = sum.lock().unwrap();
                sum.requests += outcome.requests;
                sum.failed += outcome.failed;
                sum.digests.extend(outcome.digests);
            });
        }
        // The clients end also when something here fails.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let go_on = || {
                let from = done.load(Ordering::Relaxed);
                until("requests are done", || done.load(Ordering::Relaxed) >= from + more);
            };
            for round in 0..rounds {
                let (first, second) = (round % fleet.servers.len(), (round + 1) % fleet.servers.len());
                go_on();
                fleet.servers[first].signal(Signal::KILL);
                fleet.servers[first].ended();
                go_on();
                fleet.again(first);
                go_on();
                fleet.servers[second].signal(Signal::TERM);
                assert!(fleet.servers[second].ended().success());
                go_on();
                fleet.again(second);
                go_on();
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(why) = ended {
            std::panic::resume_unwind(why);
        }
    });
    sum.into_inner().unwrap()
}

/// Which of them a command on the database itself does not find.
fn lost(url: &str, digests: &[String]) -> usize {
    let has = on(url).sha_api(["has", "-"]).write_stdin(digests.join("\n")).output().unwrap();
    assert!([Some(0), Some(1)].contains(&has.status.code()), "{}", String::from_utf8_lossy(&has.stderr));
    String::from_utf8(has.stdout).unwrap().lines().count()
}

/// Requests that nginx sent to more than one server.
fn retried(proxy: &Proxy) -> usize {
    proxy.tries().lines().filter(|line| line.contains(", ")).count()
}

/// One line of the table of `make test-cluster`.
fn row(name: &str, cells: [&dyn Display; 5]) {
    let cells: String = cells.iter().map(|cell| format!(" {:>12}", cell.to_string())).collect();
    let line = format!("{name:<46}{cells}");
    println!("{line}");
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/cluster");
    let mut table = std::fs::File::options().create(true).append(true).open(path).unwrap();
    writeln!(table, "{line}").unwrap();
}

/// The ordeal from beginning to end, and what must hold after it.
fn holds(way: Way, rounds: usize, more: usize) {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let mut fleet = Fleet::new(&url, way, 3, &[]);
    let Some(proxy) = fleet.nginx(&|_| ()) else { return };
    let outcome = ordeal(&mut fleet, &proxy, rounds, more);
    let (tries, retried) = (proxy.tries(), retried(&proxy));
    let lost = lost(&url, &outcome.digests);
    let name = if way == Way::Tls { "killed and drained, TLS to the servers" } else { "killed and drained" };
    row(name, [&outcome.requests, &retried, &outcome.failed, &outcome.digests.len(), &lost]);
    assert_eq!((outcome.failed, lost), (0, 0), "{}", proxy.said());
    assert!(retried > 0, "nothing was asked twice");
    for address in &fleet.addresses {
        assert!(tries.lines().any(|line| line.starts_with(&format!("{address}|20"))), "{address} did nothing");
    }
    // What is not there is seen.
    cluster.sql("one", &format!("DELETE FROM messages WHERE digest = '\\x{}'", outcome.digests[0]));
    assert_eq!(self::lost(&url, &outcome.digests), 1);
}

/// The same where nginx asks nobody else: requests fail, and that is seen.
fn control(rounds: usize, more: usize) {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let mut fleet = Fleet::new(&url, Way::Plain, 3, &[]);
    let retries = "proxy_next_upstream error timeout http_503 non_idempotent;";
    let Some(proxy) = fleet.nginx(&|file| replace(file, retries, "proxy_next_upstream off;")) else { return };
    let outcome = ordeal(&mut fleet, &proxy, rounds, more);
    let lost = lost(&url, &outcome.digests);
    let (again, acknowledged) = (retried(&proxy), outcome.digests.len());
    row("(control) nothing asked again", [&outcome.requests, &again, &outcome.failed, &acknowledged, &lost]);
    assert!(outcome.failed > 0, "requests that fail are not seen");
    assert_eq!(lost, 0, "what was acknowledged is kept all the same");
}

#[test]
fn no_request_fails_and_nothing_is_lost_while_one_of_three_servers_is_killed_and_another_drained() {
    holds(Way::Plain, 1, 300);
}

#[test]
fn the_same_holds_with_tls_to_the_servers() {
    holds(Way::Tls, 1, 300);
}

#[test]
fn without_asking_again_requests_fail() {
    control(1, 300);
}

/// The settings for a cache in `deploy/SCALING.md`, put into nginx's file.
fn cached(file: &mut String) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/SCALING.md");
    let text = std::fs::read_to_string(path).unwrap();
    let settings = text.split_once("```nginx\n").unwrap().1.split_once("```").unwrap().0;
    let mut settings = settings.to_owned();
    replace(&mut settings, "/var/cache/nginx/sha-api", "{dir}/cache");
    replace(file, "    upstream sha-api {\n", &format!("{settings}    upstream sha-api {{\n"));
}

#[test]
fn nginx_hands_out_what_it_keeps_though_no_server_answers() {
    let mut server = Server::http(&[]);
    let Some(proxy) = Kind::Nginx.changed_before(&[&server], &cached) else { return };
    let path = server.put("foo");
    let absent = format!("/messages/{}", digest(b"bar"));
    let raw = "Accept: application/octet-stream\r\n";
    let ask = |path: &str, fields: &str| proxy.client().exchange(request("GET", path, fields, ""));
    let expected = [("", "{\"message\": \"foo\"}"), (raw, "foo")];
    let token = "Authorization: Bearer any\r\n";
    assert_eq!(ask(&absent, "").status, 404);
    server.put("bar");
    assert_eq!(ask(&absent, token).status, 200, "that it was absent is not kept");
    for (fields, body) in &expected {
        assert_eq!(ask(&path, fields).text(), *body);
    }
    server.signal(Signal::KILL);
    server.ended();
    for (fields, body) in expected {
        let reply = ask(&path, fields);
        assert_eq!((reply.status, reply.text()), (200, body), "{fields}");
    }
    assert_eq!(ask(&path, token).status, 503, "who shows a token asks a server");
    assert_eq!(ask(&absent, "").status, 503, "what was answered to a token is not kept");
}

/// Requests a second of eight clients, each on a kept connection, for a second.
fn rate(proxy: &Proxy, make: impl Fn(usize) -> Vec<u8> + Sync) -> f64 {
    const TIME: Duration = Duration::from_secs(1);
    let (count, start) = (AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while start.elapsed() < TIME {
                    let mut connection = proxy.client();
                    for _ in 0..VISIT {
                        let reply = connection.exchange(make(count.fetch_add(1, Ordering::Relaxed)));
                        assert_eq!(reply.status, 200, "{}", reply.head);
                        if start.elapsed() >= TIME {
                            break;
                        }
                    }
                }
            });
        }
    });
    f64::from(u32::try_from(count.into_inner()).unwrap()) / start.elapsed().as_secs_f64()
}

/// So many servers with their caches and as many without, each behind nginx.
struct Side {
    name: &'static str,
    hot: (Fleet, Proxy),
    cold: (Fleet, Proxy),
    best: [f64; 3],
}

fn side(url: &str, name: &'static str, count: usize, change: &dyn Fn(&mut String)) -> Option<Side> {
    let hot = Fleet::new(url, Way::Plain, count, &[]);
    let cold = Fleet::new(url, Way::Plain, count, &["--cache-size", "0"]);
    let hot = hot.nginx(change).map(|proxy| (hot, proxy))?;
    let cold = cold.nginx(&|_| ()).map(|proxy| (cold, proxy))?;
    (0..1000).for_each(|number| on_each(&hot.0, &kilobyte(number)));
    Some(Side { name, hot, cold, best: [0.0; 3] })
}

fn kilobyte(number: usize) -> String {
    format!("{number} {}", "x".repeat(1000))
}

/// Puts a message on one server and gets it from all.
fn on_each(fleet: &Fleet, message: &str) {
    let path = fleet.servers[0].put(message);
    fleet.servers.iter().for_each(|server| assert_eq!(server.get(&path).status, 200));
}

#[test]
#[ignore = "`make test-cluster`"]
fn what_one_two_and_three_servers_do() {
    row("requests/s through nginx, 1 KB messages", [&"GET hot", &"GET cold", &"POST", &"", &""]);
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let plain = |_: &mut String| ();
    let sides = [
        side(&url, "one", 1, &plain),
        side(&url, "two", 2, &plain),
        side(&url, "three", 3, &plain),
        side(&url, "one, with nginx's cache", 1, &cached),
    ];
    let get = |number: usize| {
        let path = format!("/messages/{}", digest(kilobyte(number % 1000).as_bytes()));
        request("GET", &path, "", "")
    };
    let Some(mut sides) = sides.into_iter().collect::<Option<Vec<_>>>() else { return };
    // In turns, and the best of each, since others may be at work here.
    for turn in 0..4 {
        for side in &mut sides {
            let put = |number: usize| post(&format!("{} {turn} {}", side.name, kilobyte(number)), "").into();
            let now = [rate(&side.hot.1, get), rate(&side.cold.1, get), rate(&side.cold.1, put)];
            side.best = std::array::from_fn(|at| side.best[at].max(now[at]));
        }
    }
    for Side { name, best: [hot, cold, put], .. } in sides {
        row(name, [&hot.round(), &cold.round(), &put.round(), &"", &""]);
    }
}

#[test]
#[ignore = "`make test-cluster`"]
fn more_of_the_same_in_a_table() {
    row("three servers, one database, nginx", [&"requests", &"retried", &"failed", &"acknowledged", &"lost"]);
    holds(Way::Plain, 6, 2000);
    holds(Way::Tls, 6, 2000);
    control(6, 2000);
}
