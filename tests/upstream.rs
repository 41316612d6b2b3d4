//! A server with `--upstream` caches messages in its local store. It acknowledges a put only when the upstream has
//! stored the message, and serves cached messages without the upstream.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use assert_cmd::Command;

use crate::common::server::Server;
use crate::common::store_access::{self, create_token, token_file};
use crate::common::{FOO, Sandbox, digest};

fn http_url(server: &Server) -> String {
    format!("http://{}", server.address)
}

/// Starts a server with `upstream` as its upstream.
fn caching_server(upstream: &Server, flags: &[&str]) -> Server {
    Server::http(&[&["--upstream", &http_url(upstream)], flags].concat())
}

/// Starts a server that reaches `upstream` through its local socket, where all scopes are granted.
fn caching_server_over_local_socket(upstream: &Server) -> Server {
    Server::http(&["--upstream", &format!("unix:{}", upstream.wait_local_socket().display())])
}

/// Returns a command that uses only `server`.
fn client_command(server: &Server, args: &[&str]) -> Command {
    store_access::client_command(&[http_url(server)], args)
}

fn numbered_lines(count: u32) -> String {
    (0..count).map(|number| format!("line {number}\n")).collect()
}

fn digest_lines(lines: &str) -> String {
    lines.lines().map(|line| format!("{}\n", digest(line.as_bytes()))).collect()
}

#[test]
fn a_put_is_stored_remotely_and_cached_locally() {
    let upstream = Server::http(&[]);
    let cache = caching_server(&upstream, &[]);
    client_command(&cache, &["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    client_command(&upstream, &["get", FOO]).assert().code(0).stdout("foo").stderr("");
    drop(upstream);
    client_command(&cache, &["get", FOO]).assert().code(0).stdout("foo").stderr("");
}

#[test]
fn the_upstream_needs_a_trusted_certificate() {
    let upstream = Server::https(&[]);
    let url = format!("https://localhost:{}", upstream.address.port());
    let cert = upstream.cert_path().unwrap().display().to_string();
    let trusting = Server::http(&["--upstream", &url, "--cacert", &cert]);
    client_command(&trusting, &["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    upstream.sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
    let distrusting = Server::http(&["--upstream", &url]);
    assert_eq!(distrusting.get(&format!("/messages/{FOO}")).status, 503);
    client_command(&distrusting, &["put", "bar", "--ready-timeout", "0s"]).assert().code(3).stdout("");
    upstream.sandbox.sha_api(["has", &digest(b"bar")]).assert().code(1);
}

#[test]
fn a_message_read_once_is_available_without_the_upstream() {
    let upstream = Server::http(&[]);
    let cache = caching_server(&upstream, &[]);
    let lines = numbered_lines(3000);
    client_command(&upstream, &["put", "--lines"]).write_stdin(lines.as_str()).assert().code(0);
    let digests = digest_lines(&lines);
    client_command(&cache, &["get", FOO]).assert().code(1);
    let get =
        |server| client_command(server, &["get", "--lines"]).write_stdin(digests.as_str()).assert().code(0).stderr("");
    get(&cache).stdout(lines.clone());
    let path = upstream.put("foo");
    assert_eq!(cache.get(&path).text(), r#"{"message": "foo"}"#);
    drop(upstream);
    get(&cache).stdout(lines.clone());
    client_command(&cache, &["get", FOO]).assert().code(0).stdout("foo").stderr("");
}

#[test]
fn a_batch_is_fetched_with_few_requests() {
    let sandbox = Sandbox::new();
    let log = sandbox.dir().join("log");
    let upstream = Server::start(sandbox, &["--http", "--access-log", log.to_str().unwrap()]);
    let cache = caching_server(&upstream, &[]);
    let lines = numbered_lines(2000);
    client_command(&upstream, &["put", "--lines"]).write_stdin(lines.as_str()).assert().code(0);
    client_command(&cache, &["get", "--lines"]).write_stdin(digest_lines(&lines)).assert().code(0).stdout(lines);
    let log = fs::read_to_string(log).unwrap();
    let requests = log.lines().filter(|line| line.contains("/messages")).count();
    assert!((2..100).contains(&requests), "{requests} requests");
}

#[test]
fn without_its_upstream_a_server_is_ready_and_acknowledges_no_put() {
    let upstream = Server::http(&[]);
    let cache = caching_server(&upstream, &["--cache-size", "0"]);
    let path = cache.put("foo");
    drop(upstream);
    assert_eq!(cache.get(&path).status, 200);
    assert_eq!(cache.get("/readyz").status, 200);
    let put = "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n";
    let response = cache.client().call(&format!("{put}{}", r#"{"message":"bar"}"#));
    assert_eq!((response.status, response.text()), (503, r#"{"err_msg": "The store cannot be reached"}"#));
    assert_eq!(response.header("Retry-After"), Some("1"));
    let absent = cache.get(&format!("/messages/{}", digest(b"bar")));
    assert_eq!(absent.status, 503, "the upstream may have the message");
}

#[test]
fn a_corrupt_cached_message_is_fetched_again() {
    let upstream = Server::http(&[]);
    let cache = caching_server(&upstream, &["--cache-size", "0"]);
    let message = "a message to be damaged".repeat(20);
    let path = cache.put(&message);
    let segment = fs::read_dir(cache.sandbox.store().join("log")).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&segment).unwrap();
    let offset = bytes.windows(message.len()).position(|bytes| bytes == message.as_bytes()).unwrap();
    OpenOptions::new().write(true).open(&segment).unwrap().write_all_at(b"A", offset as u64).unwrap();
    let intact = format!(r#"{{"message": "{message}"}}"#);
    assert_eq!(cache.get(&path).text(), intact);
    drop(upstream);
    assert_eq!(cache.get(&path).text(), intact, "the cached copy is repaired");
}

#[test]
fn a_removal_applies_to_the_upstream_and_the_cache() {
    let upstream = Server::http(&[]);
    let cache = caching_server_over_local_socket(&upstream);
    cache.wait_local_socket();
    let path = cache.put("foo");
    cache.sandbox.sha_api(["rm", FOO]).assert().code(0);
    for server in [&cache, &upstream] {
        assert_eq!(server.get(&path).status, 404);
    }
    drop(upstream);
    assert_eq!(cache.get(&path).status, 503, "the message is removed from the cache");
}

#[test]
fn listings_show_what_the_upstream_has() {
    let upstream = Server::http(&[]);
    let cache = caching_server_over_local_socket(&upstream);
    cache.wait_local_socket();
    upstream.put("foo");
    cache.sandbox.sha_api(["list"]).assert().code(0).stdout(format!("{FOO}\n"));
    client_command(&cache, &["has", FOO]).assert().code(0);
    client_command(&cache, &["has", &digest(b"bar")]).assert().code(1);
}

#[test]
fn the_token_is_sent_to_the_upstream() {
    let sandbox = Sandbox::new();
    let all = create_token(&sandbox, "read,write,list,rm");
    let upstream = Server::http(&["--token-file", &token_file(&sandbox)]);
    let start = |token: &str| {
        let settings = Sandbox::new();
        let file = settings.write_file("config.toml", format!("token = \"{token}\"\n").as_bytes());
        Server::start(settings, &["--http", "--upstream", &http_url(&upstream), "--config", file.to_str().unwrap()])
    };
    client_command(&start(&all), &["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n"));
    let refused = start("nonsense");
    client_command(&refused, &["put", "bar"]).assert().code(3);
    assert!(refused.read_stderr().contains("operation not permitted by "), "{}", refused.read_stderr());
}
