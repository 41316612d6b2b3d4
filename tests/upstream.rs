//! A server with an upstream: what passes is kept near, what is acknowledged is far, and the far one may go away.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use assert_cmd::Command;

use crate::common::server::Server;
use crate::common::store_access::{self, create_token, token_file};
use crate::common::{FOO, Sandbox, digest};

fn http_url(server: &Server) -> String {
    format!("http://{}", server.address)
}

/// A server whose upstream is `far`.
fn caching_server(far: &Server, flags: &[&str]) -> Server {
    Server::http(&[&["--upstream", &http_url(far)], flags].concat())
}

/// A server whose upstream is `far` with all that its owner may do.
fn caching_server_over_local_socket(far: &Server) -> Server {
    Server::http(&["--upstream", &format!("unix:{}", far.wait_local_socket().display())])
}

/// A command over `server`, with nothing else to ask.
fn client_command(server: &Server, args: &[&str]) -> Command {
    store_access::client_command(&[http_url(server)], args)
}

/// Lines that are put and got in bulk.
fn numbered_lines(count: u32) -> String {
    (0..count).map(|number| format!("line {number}\n")).collect()
}

fn digest_lines(lines: &str) -> String {
    lines.lines().map(|line| format!("{}\n", digest(line.as_bytes()))).collect()
}

#[test]
fn a_put_is_stored_remotely_and_cached_locally() {
    let far = Server::http(&[]);
    let near = caching_server(&far, &[]);
    client_command(&near, &["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    client_command(&far, &["get", FOO]).assert().code(0).stdout("foo").stderr("");
    drop(far);
    client_command(&near, &["get", FOO]).assert().code(0).stdout("foo").stderr("");
}

#[test]
fn the_upstream_needs_a_trusted_certificate() {
    let far = Server::https(&[]);
    let url = format!("https://localhost:{}", far.address.port());
    let trusted = far.cert_path().unwrap().display().to_string();
    let believing = Server::http(&["--upstream", &url, "--cacert", &trusted]);
    client_command(&believing, &["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    far.sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
    let wary = Server::http(&["--upstream", &url]);
    assert_eq!(wary.get(&format!("/messages/{FOO}")).status, 503);
    client_command(&wary, &["put", "bar", "--ready-timeout", "0s"]).assert().code(3).stdout("");
    far.sandbox.sha_api(["has", &digest(b"bar")]).assert().code(1);
}

#[test]
fn a_message_read_once_is_available_without_the_upstream() {
    let far = Server::http(&[]);
    let near = caching_server(&far, &[]);
    let lines = numbered_lines(3000);
    client_command(&far, &["put", "--lines"]).write_stdin(lines.as_str()).assert().code(0);
    let wanted = digest_lines(&lines);
    client_command(&near, &["get", FOO]).assert().code(1);
    let get =
        |server| client_command(server, &["get", "--lines"]).write_stdin(wanted.as_str()).assert().code(0).stderr("");
    get(&near).stdout(lines.clone());
    let path = far.put("foo");
    assert_eq!(near.get(&path).text(), r#"{"message": "foo"}"#);
    drop(far);
    get(&near).stdout(lines.clone());
    client_command(&near, &["get", FOO]).assert().code(0).stdout("foo").stderr("");
}

#[test]
fn a_batch_is_fetched_with_few_requests() {
    let sandbox = Sandbox::new();
    let log = sandbox.dir().join("log");
    let far = Server::start(sandbox, &["--http", "--access-log", log.to_str().unwrap()]);
    let near = caching_server(&far, &[]);
    let lines = numbered_lines(2000);
    client_command(&far, &["put", "--lines"]).write_stdin(lines.as_str()).assert().code(0);
    client_command(&near, &["get", "--lines"]).write_stdin(digest_lines(&lines)).assert().code(0).stdout(lines);
    let log = fs::read_to_string(log).unwrap();
    let requests = log.lines().filter(|line| line.contains("/messages")).count();
    assert!((2..100).contains(&requests), "{requests} requests");
}

#[test]
fn without_its_upstream_a_server_is_ready_and_acknowledges_no_put() {
    let far = Server::http(&[]);
    let near = caching_server(&far, &["--cache-size", "0"]);
    let path = near.put("foo");
    drop(far);
    assert_eq!(near.get(&path).status, 200);
    assert_eq!(near.get("/readyz").status, 200);
    let put = "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n";
    let reply = near.client().call(&format!("{put}{}", r#"{"message":"bar"}"#));
    assert_eq!((reply.status, reply.text()), (503, r#"{"err_msg": "The store cannot be reached"}"#));
    assert_eq!(reply.header("Retry-After"), Some("1"));
    let absent = near.get(&format!("/messages/{}", digest(b"bar")));
    assert_eq!(absent.status, 503, "the upstream server may have the message");
}

#[test]
fn a_corrupt_cached_message_is_fetched_again() {
    let far = Server::http(&[]);
    let near = caching_server(&far, &["--cache-size", "0"]);
    let message = "a message that is to rot".repeat(20);
    let path = near.put(&message);
    let segment = fs::read_dir(near.sandbox.store().join("log")).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(message.len()).position(|bytes| bytes == message.as_bytes()).unwrap();
    OpenOptions::new().write(true).open(&segment).unwrap().write_all_at(b"A", at as u64).unwrap();
    let whole = format!(r#"{{"message": "{message}"}}"#);
    assert_eq!(near.get(&path).text(), whole);
    drop(far);
    assert_eq!(near.get(&path).text(), whole, "it is mended near");
}

#[test]
fn a_removal_applies_to_the_upstream_and_the_cache() {
    let far = Server::http(&[]);
    let near = caching_server_over_local_socket(&far);
    near.wait_local_socket();
    let path = near.put("foo");
    near.sandbox.sha_api(["rm", FOO]).assert().code(0);
    for server in [&near, &far] {
        assert_eq!(server.get(&path).status, 404);
    }
    drop(far);
    assert_eq!(near.get(&path).status, 503, "nothing of it is left near");
}

#[test]
fn listings_show_what_the_upstream_has() {
    let far = Server::http(&[]);
    let near = caching_server_over_local_socket(&far);
    near.wait_local_socket();
    far.put("foo");
    near.sandbox.sha_api(["list"]).assert().code(0).stdout(format!("{FOO}\n"));
    client_command(&near, &["has", FOO]).assert().code(0);
    client_command(&near, &["has", &digest(b"bar")]).assert().code(1);
}

#[test]
fn the_token_is_sent_to_the_upstream() {
    let sandbox = Sandbox::new();
    let all = create_token(&sandbox, "read,write,list,rm");
    let far = Server::http(&["--token-file", &token_file(&sandbox)]);
    let start = |token: &str| {
        let settings = Sandbox::new();
        let file = settings.write_file("config.toml", format!("token = \"{token}\"\n").as_bytes());
        Server::start(settings, &["--http", "--upstream", &http_url(&far), "--config", file.to_str().unwrap()])
    };
    client_command(&start(&all), &["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n"));
    let refused = start("nonsense");
    client_command(&refused, &["put", "bar"]).assert().code(3);
    assert!(refused.read_stderr().contains("does not permit this"), "{}", refused.read_stderr());
}
