//! Several servers on one database behind nginx with `deploy/nginx.conf`. Servers are killed, drained and restarted
//! under load. No request fails, and no acknowledged message is lost. `make test-cluster` runs longer variants.

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

/// Number of clients that produce the load.
const CLIENTS: usize = 4;
/// Number of requests per connection. nginx closes a connection after 1000 requests.
const REQUESTS_PER_CONNECTION: usize = 500;

/// Result of a load: numbers of requests and failures, and the digests of the acknowledged messages.
#[derive(Debug, Default)]
struct LoadResult {
    requests: usize,
    failed: usize,
    digests: Vec<String>,
}

/// Protocol between nginx and the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerProtocol {
    Plain,
    Tls,
}

/// Returns a sandbox on the database and the flags that select the protocol. For TLS they name the certificate file,
/// which the caller writes.
fn database_sandbox_and_flags(url: &str, protocol: ServerProtocol) -> (Sandbox, Vec<String>) {
    let sandbox = database_sandbox(url);
    if protocol == ServerProtocol::Plain {
        return (sandbox, vec!["--http".to_owned()]);
    }
    let tls = sandbox.store().join("tls");
    std::fs::create_dir_all(&tls).unwrap();
    (sandbox, vec!["--tls-cert".to_owned(), tls.join("cert.pem").display().to_string()])
}

/// Several servers on one database.
struct Fleet {
    url: String,
    protocol: ServerProtocol,
    flags: Vec<&'static str>,
    /// Certificate and key that all servers share, as PEM.
    pem: String,
    servers: Vec<Server>,
    /// Addresses in the configuration of nginx. A restarted server listens on its previous address.
    addresses: Vec<String>,
}

impl Fleet {
    fn new(url: &str, protocol: ServerProtocol, count: usize, flags: &[&'static str]) -> Self {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let pem = pair.cert.pem() + &pair.signing_key.serialize_pem();
        let mut fleet = Self {
            url: url.to_owned(),
            protocol,
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

    fn restart(&mut self, index: usize) {
        self.servers[index] = self.start(&["--listen", &self.addresses[index]]);
    }

    fn start_nginx(&self, change: &dyn Fn(&mut String)) -> Option<Proxy> {
        ProxyKind::Nginx.start_with_config(&self.servers.iter().collect::<Vec<_>>(), change)
    }
}

/// Puts and gets messages through nginx until `stop` is set, and counts each request in `done`. A message that differs
/// from the message put counts as a failure.
fn run_load(proxy: &Proxy, client: usize, stop: &AtomicBool, done: &AtomicUsize) -> LoadResult {
    let mut result = LoadResult::default();
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
        let stored = acknowledged.get(number * 7 % acknowledged.len().max(1));
        let path = |message: &str| format!("/messages/{}", digest(message.as_bytes()));
        let (request, expected) = match (number % 3, stored) {
            (1, Some(stored)) => {
                (build_request("GET", &path(stored), "", ""), Some(format!("{{\"message\": \"{stored}\"}}")))
            }
            (2, _) => (build_request("PUT", &path(&message), "", &message), None),
            _ => (post_request(&message, "").into(), None),
        };
        let response = connection.call_bytes(request);
        result.requests += 1;
        done.fetch_add(1, Ordering::Relaxed);
        let is_success = [200, 201].contains(&response.status);
        if !is_success || expected.as_ref().is_some_and(|expected| expected.as_bytes() != response.body) {
            result.failed += 1;
        } else if expected.is_none() {
            acknowledged.push(message);
        }
    }
    result.digests = acknowledged.iter().map(|message| digest(message.as_bytes())).collect();
    result
}

/// Runs load while, in each round, one server is killed and restarted and another is drained and restarted. At least
/// `requests_per_step` requests are answered between two steps.
fn run_failover_load(fleet: &mut Fleet, proxy: &Proxy, rounds: usize, requests_per_step: usize) -> LoadResult {
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let sum = Mutex::new(LoadResult::default());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (stop, done, sum) = (&stop, &done, &sum);
            scope.spawn(move || {
                let result = run_load(proxy, client, stop, done);
                let mut sum = sum.lock().unwrap();
                sum.requests += result.requests;
                sum.failed += result.failed;
                sum.digests.extend(result.digests);
            });
        }
        // A panic is caught to stop the clients first. Otherwise the scope would wait for them forever.
        let steps = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let wait_for_requests = || {
                let before = done.load(Ordering::Relaxed);
                wait_until("requests are answered", || done.load(Ordering::Relaxed) >= before + requests_per_step);
            };
            for round in 0..rounds {
                let (first, second) = (round % fleet.servers.len(), (round + 1) % fleet.servers.len());
                wait_for_requests();
                fleet.servers[first].signal(Signal::KILL);
                fleet.servers[first].wait_exit();
                wait_for_requests();
                fleet.restart(first);
                wait_for_requests();
                fleet.servers[second].signal(Signal::TERM);
                assert!(fleet.servers[second].wait_exit().success());
                wait_for_requests();
                fleet.restart(second);
                wait_for_requests();
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = steps {
            std::panic::resume_unwind(panic);
        }
    });
    sum.into_inner().unwrap()
}

/// Returns the number of digests that `has` does not find in the database.
fn count_lost(url: &str, digests: &[String]) -> usize {
    let has = database_sandbox(url).sha_api(["has", "-"]).write_stdin(digests.join("\n")).output().unwrap();
    assert!([Some(0), Some(1)].contains(&has.status.code()), "{}", String::from_utf8_lossy(&has.stderr));
    String::from_utf8(has.stdout).unwrap().lines().count()
}

/// Returns the number of requests that nginx sent to more than one server.
fn count_retried(proxy: &Proxy) -> usize {
    proxy.upstream_log().lines().filter(|line| line.contains(", ")).count()
}

/// Prints a row of the table of `make test-cluster` and appends it to the file that holds the table.
fn record_row(name: &str, cells: [&dyn Display; 5]) {
    let cells: String = cells.iter().map(|cell| format!(" {:>12}", cell.to_string())).collect();
    let line = format!("{name:<46}{cells}");
    println!("{line}");
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/cluster");
    let mut table = std::fs::File::options().create(true).append(true).open(path).unwrap();
    writeln!(table, "{line}").unwrap();
}

/// Asserts that a failover under load fails no request and loses no message, and that the test would detect a loss.
fn assert_failover_loses_nothing(protocol: ServerProtocol, rounds: usize, requests_per_step: usize) {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let mut fleet = Fleet::new(&url, protocol, 3, &[]);
    let Some(proxy) = fleet.start_nginx(&|_| ()) else { return };
    let result = run_failover_load(&mut fleet, &proxy, rounds, requests_per_step);
    let (upstream_log, retried) = (proxy.upstream_log(), count_retried(&proxy));
    let lost = count_lost(&url, &result.digests);
    let name =
        if protocol == ServerProtocol::Tls { "killed and drained, TLS to the servers" } else { "killed and drained" };
    record_row(name, [&result.requests, &retried, &result.failed, &result.digests.len(), &lost]);
    assert_eq!((result.failed, lost), (0, 0), "{}", proxy.output());
    assert!(retried > 0, "no request was retried");
    for address in &fleet.addresses {
        assert!(
            upstream_log.lines().any(|line| line.starts_with(&format!("{address}|20"))),
            "{address} served no request"
        );
    }
    // Control: `count_lost` detects a deleted message.
    cluster.sql("one", &format!("DELETE FROM messages WHERE digest = '\\x{}'", result.digests[0]));
    assert_eq!(count_lost(&url, &result.digests), 1);
}

/// Control: asserts that requests fail during a failover if nginx does not retry them on another server.
fn assert_requests_fail_without_retries(rounds: usize, requests_per_step: usize) {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let mut fleet = Fleet::new(&url, ServerProtocol::Plain, 3, &[]);
    let setting = "proxy_next_upstream error timeout http_503 non_idempotent;";
    let Some(proxy) = fleet.start_nginx(&|config| replace_once(config, setting, "proxy_next_upstream off;")) else {
        return;
    };
    let result = run_failover_load(&mut fleet, &proxy, rounds, requests_per_step);
    let lost = count_lost(&url, &result.digests);
    let (resent, acknowledged) = (count_retried(&proxy), result.digests.len());
    record_row("(control) without retries", [&result.requests, &resent, &result.failed, &acknowledged, &lost]);
    assert!(result.failed > 0, "no failed request was detected");
    assert_eq!(lost, 0, "acknowledged messages are stored");
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

/// Inserts the cache settings of `docs/scaling.md` into a configuration of nginx.
fn enable_nginx_cache(config: &mut String) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/scaling.md");
    let text = std::fs::read_to_string(path).unwrap();
    let settings = text.split_once("```nginx\n").unwrap().1.split_once("```").unwrap().0;
    let mut settings = settings.to_owned();
    replace_once(&mut settings, "/var/cache/nginx/sha-api", "{dir}/cache");
    replace_once(config, "    upstream sha-api {\n", &format!("{settings}    upstream sha-api {{\n"));
}

#[test]
fn nginx_serves_cached_messages_while_no_server_answers() {
    let mut server = Server::http(&[]);
    let Some(proxy) = ProxyKind::Nginx.start_with_config(&[&server], &enable_nginx_cache) else { return };
    let path = server.put("foo");
    let absent = format!("/messages/{}", digest(b"bar"));
    let accept_bytes = "Accept: application/octet-stream\r\n";
    let get = |path: &str, fields: &str| proxy.client().call_bytes(build_request("GET", path, fields, ""));
    let expected = [("", "{\"message\": \"foo\"}"), (accept_bytes, "foo")];
    let token = "Authorization: Bearer any\r\n";
    assert_eq!(get(&absent, "").status, 404);
    server.put("bar");
    assert_eq!(get(&absent, token).status, 200, "a 404 response is not cached");
    for (fields, body) in &expected {
        assert_eq!(get(&path, fields).text(), *body);
    }
    server.signal(Signal::KILL);
    server.wait_exit();
    for (fields, body) in expected {
        let response = get(&path, fields);
        assert_eq!((response.status, response.text()), (200, body), "{fields}");
    }
    assert_eq!(get(&path, token).status, 503, "a request with a token bypasses the cache");
    assert_eq!(get(&absent, "").status, 503, "a response to a request with a token is not cached");
}

/// Measures the requests per second of eight clients with persistent connections for one second.
fn requests_per_second(proxy: &Proxy, make: impl Fn(usize) -> Vec<u8> + Sync) -> f64 {
    const MEASUREMENT_TIME: Duration = Duration::from_secs(1);
    let (count, start) = (AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while start.elapsed() < MEASUREMENT_TIME {
                    let mut connection = proxy.client();
                    for _ in 0..REQUESTS_PER_CONNECTION {
                        let response = connection.call_bytes(make(count.fetch_add(1, Ordering::Relaxed)));
                        assert_eq!(response.status, 200, "{}", response.head);
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

/// Servers on one database with the hot cache, and as many without, each behind nginx.
struct Deployment {
    name: &'static str,
    hot: (Fleet, Proxy),
    cold: (Fleet, Proxy),
    /// Best measurements in requests per second: GET hot, GET cold, POST.
    best: [f64; 3],
}

fn start_deployment(url: &str, name: &'static str, count: usize, change: &dyn Fn(&mut String)) -> Option<Deployment> {
    let hot = Fleet::new(url, ServerProtocol::Plain, count, &[]);
    let cold = Fleet::new(url, ServerProtocol::Plain, count, &["--cache-size", "0"]);
    let hot = hot.start_nginx(change).map(|proxy| (hot, proxy))?;
    let cold = cold.start_nginx(&|_| ()).map(|proxy| (cold, proxy))?;
    (0..1000).for_each(|number| put_and_get_from_each(&hot.0, &kilobyte_message(number)));
    Some(Deployment { name, hot, cold, best: [0.0; 3] })
}

fn kilobyte_message(number: usize) -> String {
    format!("{number} {}", "x".repeat(1000))
}

/// Puts a message on one server and gets it from each server.
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
    let deployments = [
        start_deployment(&url, "one", 1, &plain),
        start_deployment(&url, "two", 2, &plain),
        start_deployment(&url, "three", 3, &plain),
        start_deployment(&url, "one with the cache of nginx", 1, &enable_nginx_cache),
    ];
    let get = |number: usize| {
        let path = format!("/messages/{}", digest(kilobyte_message(number % 1000).as_bytes()));
        build_request("GET", &path, "", "")
    };
    let Some(mut deployments) = deployments.into_iter().collect::<Option<Vec<_>>>() else { return };
    // The best of several alternating measurements is taken, because other processes may use the machine.
    for round in 0..4 {
        for deployment in &mut deployments {
            let put = |number: usize| {
                post_request(&format!("{} {round} {}", deployment.name, kilobyte_message(number)), "").into()
            };
            let measured = [
                requests_per_second(&deployment.hot.1, get),
                requests_per_second(&deployment.cold.1, get),
                requests_per_second(&deployment.cold.1, put),
            ];
            deployment.best = std::array::from_fn(|index| deployment.best[index].max(measured[index]));
        }
    }
    for Deployment { name, best: [hot, cold, put], .. } in deployments {
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
