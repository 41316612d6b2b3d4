//! Several servers over one database behind nginx, as `deploy/nginx.conf` has it: one is killed, another drained and
//! started again under load. No request fails, and nothing that was acknowledged is lost. `make test-cluster` does more of it.

use std::fmt::Display;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::cluster::{Cluster, database_sandbox};
use crate::common::proxy::{Proxy, ProxyKind, replace_once};
use crate::common::server::{Server, build_request, post_request, wait_until};
use crate::common::{Sandbox, digest};

const CLIENTS: usize = 4;
/// Requests on one connection; nginx closes after 1000.
const REQUESTS_PER_CONNECTION: usize = 500;

/// What came of some load.
#[derive(Debug, Default)]
struct LoadResult {
    requests: usize,
    failed: usize,
    /// What was acknowledged.
    digests: Vec<String>,
}

/// Whether the servers speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerProtocol {
    Plain,
    Tls,
}

/// A sandbox on the database, with a pair that all servers share if they speak TLS.
fn database_sandbox_and_flags(url: &str, way: ServerProtocol) -> (Sandbox, Vec<String>) {
    let sandbox = database_sandbox(url);
    if way == ServerProtocol::Plain {
        return (sandbox, vec!["--http".to_owned()]);
    }
    let tls = sandbox.store().join("tls");
    std::fs::create_dir_all(&tls).unwrap();
    (sandbox, vec!["--tls-cert".to_owned(), tls.join("cert.pem").display().to_string()])
}

/// Three servers of one database.
struct Fleet {
    url: String,
    protocol: ServerProtocol,
    flags: Vec<&'static str>,
    pem: String,
    servers: Vec<Server>,
    /// Where nginx finds them, also after they were started again.
    addresses: Vec<String>,
}

impl Fleet {
    fn new(url: &str, way: ServerProtocol, count: usize, flags: &[&'static str]) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let pem = made.cert.pem() + &made.signing_key.serialize_pem();
        let mut fleet = Self {
            url: url.to_owned(),
            protocol: way,
            flags: flags.to_vec(),
            pem,
            servers: Vec::new(),
            addresses: Vec::new(),
        };
        for _ in 0..count {
            let server = fleet.start(&[]);
            fleet.addresses.push(server.address.to_string());
            fleet.servers.push(server);
        }
        fleet
    }

    fn start(&self, flags: &[&str]) -> Server {
        let (sandbox, mut all) = database_sandbox_and_flags(&self.url, self.protocol);
        if self.protocol == ServerProtocol::Tls {
            std::fs::write(&all[1], &self.pem).unwrap();
        }
        all.extend(self.flags.iter().chain(flags).map(|flag| (*flag).to_owned()));
        Server::start(sandbox, &all.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn restart(&mut self, at: usize) {
        self.servers[at] = self.start(&["--listen", &self.addresses[at]]);
    }

    fn nginx(&self, change: &dyn Fn(&mut String)) -> Option<Proxy> {
        ProxyKind::Nginx.start_with_config(&self.servers.iter().collect::<Vec<_>>(), change)
    }
}

/// Puts and gets through nginx until told to stop. What is got must be what was put.
fn run_load(proxy: &Proxy, client: usize, stop: &AtomicBool, done: &AtomicUsize) -> LoadResult {
    let mut outcome = LoadResult::default();
    let mut acknowledged: Vec<String> = Vec::new();
    let mut connection = proxy.client();
    for number in 0..1_000_000 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if number % REQUESTS_PER_CONNECTION == REQUESTS_PER_CONNECTION - 1 {
            connection = proxy.client();
        }
        let message = format!("client {client}, message {number}");
        let known = acknowledged.get(number * 7 % acknowledged.len().max(1));
        let path = |message: &str| format!("/messages/{}", digest(message.as_bytes()));
        let (request, expected) = match (number % 3, known) {
            (1, Some(known)) => {
                (build_request("GET", &path(known), "", ""), Some(format!("{{\"message\": \"{known}\"}}")))
            }
            (2, _) => (build_request("PUT", &path(&message), "", &message), None),
            _ => (post_request(&message, "").into(), None),
        };
        let reply = connection.call_bytes(request);
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
fn run_failover_load(fleet: &mut Fleet, proxy: &Proxy, rounds: usize, more: usize) -> LoadResult {
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let sum = Mutex::new(LoadResult::default());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (stop, done, sum) = (&stop, &done, &sum);
            scope.spawn(move || {
                let outcome = run_load(proxy, client, stop, done);
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
                wait_until("requests are done", || done.load(Ordering::Relaxed) >= from + more);
            };
            for round in 0..rounds {
                let (first, second) = (round % fleet.servers.len(), (round + 1) % fleet.servers.len());
                go_on();
                fleet.servers[first].signal(Signal::KILL);
                fleet.servers[first].wait_exit();
                go_on();
                fleet.restart(first);
                go_on();
                fleet.servers[second].signal(Signal::TERM);
                assert!(fleet.servers[second].wait_exit().success());
                go_on();
                fleet.restart(second);
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
fn count_lost(url: &str, digests: &[String]) -> usize {
    let has = database_sandbox(url).sha_api(["has", "-"]).write_stdin(digests.join("\n")).output().unwrap();
    assert!([Some(0), Some(1)].contains(&has.status.code()), "{}", String::from_utf8_lossy(&has.stderr));
    String::from_utf8(has.stdout).unwrap().lines().count()
}

/// Requests that nginx sent to more than one server.
fn count_retried(proxy: &Proxy) -> usize {
    proxy.upstream_log().lines().filter(|line| line.contains(", ")).count()
}

/// One line of the table of `make test-cluster`.
fn record_row(name: &str, cells: [&dyn Display; 5]) {
    let cells: String = cells.iter().map(|cell| format!(" {:>12}", cell.to_string())).collect();
    let line = format!("{name:<46}{cells}");
    println!("{line}");
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/cluster");
    let mut table = std::fs::File::options().create(true).append(true).open(path).unwrap();
    writeln!(table, "{line}").unwrap();
}

/// The ordeal from beginning to end, and what must hold after it.
fn assert_failover_loses_nothing(way: ServerProtocol, rounds: usize, more: usize) {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let mut fleet = Fleet::new(&url, way, 3, &[]);
    let Some(proxy) = fleet.nginx(&|_| ()) else { return };
    let outcome = run_failover_load(&mut fleet, &proxy, rounds, more);
    let (tries, retried) = (proxy.upstream_log(), count_retried(&proxy));
    let lost = count_lost(&url, &outcome.digests);
    let name = if way == ServerProtocol::Tls { "killed and drained, TLS to the servers" } else { "killed and drained" };
    record_row(name, [&outcome.requests, &retried, &outcome.failed, &outcome.digests.len(), &lost]);
    assert_eq!((outcome.failed, lost), (0, 0), "{}", proxy.output());
    assert!(retried > 0, "nothing was asked twice");
    for address in &fleet.addresses {
        assert!(tries.lines().any(|line| line.starts_with(&format!("{address}|20"))), "{address} did nothing");
    }
    // What is not there is seen.
    cluster.sql("one", &format!("DELETE FROM messages WHERE digest = '\\x{}'", outcome.digests[0]));
    assert_eq!(self::count_lost(&url, &outcome.digests), 1);
}

/// The same where nginx asks nobody else: requests fail, and that is seen.
fn assert_requests_fail_without_retries(rounds: usize, more: usize) {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let mut fleet = Fleet::new(&url, ServerProtocol::Plain, 3, &[]);
    let retries = "proxy_next_upstream error timeout http_503 non_idempotent;";
    let Some(proxy) = fleet.nginx(&|file| replace_once(file, retries, "proxy_next_upstream off;")) else { return };
    let outcome = run_failover_load(&mut fleet, &proxy, rounds, more);
    let lost = count_lost(&url, &outcome.digests);
    let (again, acknowledged) = (count_retried(&proxy), outcome.digests.len());
    record_row("(control) nothing asked again", [&outcome.requests, &again, &outcome.failed, &acknowledged, &lost]);
    assert!(outcome.failed > 0, "requests that fail are not seen");
    assert_eq!(lost, 0, "what was acknowledged is kept all the same");
}

#[test]
fn killing_and_draining_servers_fails_no_request_and_loses_nothing() {
    assert_failover_loses_nothing(ServerProtocol::Plain, 1, 300);
}

#[test]
fn killing_and_draining_tls_servers_fails_no_request_and_loses_nothing() {
    assert_failover_loses_nothing(ServerProtocol::Tls, 1, 300);
}

#[test]
fn without_retries_requests_fail() {
    assert_requests_fail_without_retries(1, 300);
}

/// The settings for a cache in `deploy/SCALING.md`, put into nginx's file.
fn enable_nginx_cache(file: &mut String) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/SCALING.md");
    let text = std::fs::read_to_string(path).unwrap();
    let settings = text.split_once("```nginx\n").unwrap().1.split_once("```").unwrap().0;
    let mut settings = settings.to_owned();
    replace_once(&mut settings, "/var/cache/nginx/sha-api", "{dir}/cache");
    replace_once(file, "    upstream sha-api {\n", &format!("{settings}    upstream sha-api {{\n"));
}

#[test]
fn nginx_serves_cached_messages_while_no_server_answers() {
    let mut server = Server::http(&[]);
    let Some(proxy) = ProxyKind::Nginx.start_with_config(&[&server], &enable_nginx_cache) else { return };
    let path = server.put("foo");
    let absent = format!("/messages/{}", digest(b"bar"));
    let raw = "Accept: application/octet-stream\r\n";
    let ask = |path: &str, fields: &str| proxy.client().call_bytes(build_request("GET", path, fields, ""));
    let expected = [("", "{\"message\": \"foo\"}"), (raw, "foo")];
    let token = "Authorization: Bearer any\r\n";
    assert_eq!(ask(&absent, "").status, 404);
    server.put("bar");
    assert_eq!(ask(&absent, token).status, 200, "that it was absent is not kept");
    for (fields, body) in &expected {
        assert_eq!(ask(&path, fields).text(), *body);
    }
    server.signal(Signal::KILL);
    server.wait_exit();
    for (fields, body) in expected {
        let reply = ask(&path, fields);
        assert_eq!((reply.status, reply.text()), (200, body), "{fields}");
    }
    assert_eq!(ask(&path, token).status, 503, "who shows a token asks a server");
    assert_eq!(ask(&absent, "").status, 503, "what was answered to a token is not kept");
}

/// Requests a second of eight clients, each on a kept connection, for a second.
fn requests_per_second(proxy: &Proxy, make: impl Fn(usize) -> Vec<u8> + Sync) -> f64 {
    const MEASUREMENT_TIME: Duration = Duration::from_secs(1);
    let (count, start) = (AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while start.elapsed() < MEASUREMENT_TIME {
                    let mut connection = proxy.client();
                    for _ in 0..REQUESTS_PER_CONNECTION {
                        let reply = connection.call_bytes(make(count.fetch_add(1, Ordering::Relaxed)));
                        assert_eq!(reply.status, 200, "{}", reply.head);
                        if start.elapsed() >= MEASUREMENT_TIME {
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
struct Deployment {
    name: &'static str,
    hot: (Fleet, Proxy),
    cold: (Fleet, Proxy),
    best: [f64; 3],
}

fn start_deployment(url: &str, name: &'static str, count: usize, change: &dyn Fn(&mut String)) -> Option<Deployment> {
    let hot = Fleet::new(url, ServerProtocol::Plain, count, &[]);
    let cold = Fleet::new(url, ServerProtocol::Plain, count, &["--cache-size", "0"]);
    let hot = hot.nginx(change).map(|proxy| (hot, proxy))?;
    let cold = cold.nginx(&|_| ()).map(|proxy| (cold, proxy))?;
    (0..1000).for_each(|number| put_and_get_from_each(&hot.0, &kilobyte_message(number)));
    Some(Deployment { name, hot, cold, best: [0.0; 3] })
}

fn kilobyte_message(number: usize) -> String {
    format!("{number} {}", "x".repeat(1000))
}

/// Puts a message on one server and gets it from all.
fn put_and_get_from_each(fleet: &Fleet, message: &str) {
    let path = fleet.servers[0].put(message);
    fleet.servers.iter().for_each(|server| assert_eq!(server.get(&path).status, 200));
}

#[test]
#[ignore = "`make test-cluster`"]
fn throughput_of_one_two_and_three_servers() {
    record_row("requests/s through nginx, 1 KB messages", [&"GET hot", &"GET cold", &"POST", &"", &""]);
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let plain = |_: &mut String| ();
    let sides = [
        start_deployment(&url, "one", 1, &plain),
        start_deployment(&url, "two", 2, &plain),
        start_deployment(&url, "three", 3, &plain),
        start_deployment(&url, "one, with nginx's cache", 1, &enable_nginx_cache),
    ];
    let get = |number: usize| {
        let path = format!("/messages/{}", digest(kilobyte_message(number % 1000).as_bytes()));
        build_request("GET", &path, "", "")
    };
    let Some(mut sides) = sides.into_iter().collect::<Option<Vec<_>>>() else { return };
    // In turns, and the best of each, since others may be at work here.
    for turn in 0..4 {
        for side in &mut sides {
            let put =
                |number: usize| post_request(&format!("{} {turn} {}", side.name, kilobyte_message(number)), "").into();
            let now = [
                requests_per_second(&side.hot.1, get),
                requests_per_second(&side.cold.1, get),
                requests_per_second(&side.cold.1, put),
            ];
            side.best = std::array::from_fn(|at| side.best[at].max(now[at]));
        }
    }
    for Deployment { name, best: [hot, cold, put], .. } in sides {
        record_row(name, [&hot.round(), &cold.round(), &put.round(), &"", &""]);
    }
}

#[test]
#[ignore = "`make test-cluster`"]
fn failover_under_longer_load() {
    record_row("three servers, one database, nginx", [&"requests", &"retried", &"failed", &"acknowledged", &"lost"]);
    assert_failover_loses_nothing(ServerProtocol::Plain, 6, 2000);
    assert_failover_loses_nothing(ServerProtocol::Tls, 6, 2000);
    assert_requests_fail_without_retries(6, 2000);
}
