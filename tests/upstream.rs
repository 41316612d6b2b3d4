//! A server with an upstream: what passes is kept near, what is acknowledged is far, and the far one may go away.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use assert_cmd::Command;

use crate::common::server::Server;
use crate::common::side::{self, token, tokens};
use crate::common::{FOO, Sandbox, digest};

fn url(server: &Server) -> String {
    format!("http://{}", server.address)
}

/// A server whose upstream is `far`.
fn near(far: &Server, flags: &[&str]) -> Server {
    Server::http(&[&["--upstream", &url(far)], flags].concat())
}

/// A server whose upstream is `far` with all that its owner may do.
fn near_its_owner(far: &Server) -> Server {
    Server::http(&["--upstream", &format!("unix:{}", far.socket().display())])
}

/// A command over `server`, with nothing else to ask.
fn over(server: &Server, args: &[&str]) -> Command {
    side::over(&[url(server)], args)
}

/// Lines that are put and got in bulk.
fn lines(count: u32) -> String {
    (0..count).map(|number| format!("line {number}\n")).collect()
}

fn digests(lines: &str) -> String {
    lines.lines().map(|line| format!("{}\n", digest(line.as_bytes()))).collect()
}

#[test]
fn a_put_is_far_and_near() {
    let far = Server::http(&[]);
    let near = near(&far, &[]);
    over(&near, &["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    over(&far, &["get", FOO]).assert().code(0).stdout("foo").stderr("");
    drop(far);
    over(&near, &["get", FOO]).assert().code(0).stdout("foo").stderr("");
}

#[test]
fn the_upstream_is_believed_only_with_a_certificate_that_is_trusted() {
    let far = Server::https(&[]);
    let url = format!("https://localhost:{}", far.address.port());
    let trusted = far.cert().unwrap().display().to_string();
    let believing = Server::http(&["--upstream", &url, "--cacert", &trusted]);
    over(&believing, &["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    far.sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
    let wary = Server::http(&["--upstream", &url]);
    assert_eq!(wary.get(&format!("/messages/{FOO}")).status, 503);
    over(&wary, &["put", "bar", "--wait", "0s"]).assert().code(3).stdout("");
    far.sandbox.sha_api(["has", &digest(b"bar")]).assert().code(1);
}

#[test]
fn what_was_got_once_is_there_without_the_upstream() {
    let far = Server::http(&[]);
    let near = near(&far, &[]);
    let lines = lines(3000);
    over(&far, &["put", "--lines"]).write_stdin(lines.as_str()).assert().code(0);
    let wanted = digests(&lines);
    over(&near, &["get", FOO]).assert().code(1);
    let get = |server| over(server, &["get", "--lines"]).write_stdin(wanted.as_str()).assert().code(0).stderr("");
    get(&near).stdout(lines.clone());
    let path = far.put("foo");
    assert_eq!(near.get(&path).text(), r#"{"message": "foo"}"#);
    drop(far);
    get(&near).stdout(lines.clone());
    over(&near, &["get", FOO]).assert().code(0).stdout("foo").stderr("");
}

#[test]
fn many_are_fetched_with_few_requests() {
    let sandbox = Sandbox::new();
    let log = sandbox.dir().join("log");
    let far = Server::start(sandbox, &["--http", "--log-file", log.to_str().unwrap()]);
    let near = near(&far, &[]);
    let lines = lines(2000);
    over(&far, &["put", "--lines"]).write_stdin(lines.as_str()).assert().code(0);
    over(&near, &["get", "--lines"]).write_stdin(digests(&lines)).assert().code(0).stdout(lines);
    let log = fs::read_to_string(log).unwrap();
    let requests = log.lines().filter(|line| line.contains("/messages")).count();
    assert!((2..100).contains(&requests), "{requests} requests");
}

#[test]
fn without_its_upstream_a_server_is_ready_and_acknowledges_nothing() {
    let far = Server::http(&[]);
    let near = near(&far, &["--cache-size", "0"]);
    let path = near.put("foo");
    drop(far);
    assert_eq!(near.get(&path).status, 200);
    assert_eq!(near.get("/readyz").status, 200);
    let put = "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n";
    let reply = near.client().ask(&format!("{put}{}", r#"{"message":"bar"}"#));
    assert_eq!((reply.status, reply.text()), (503, r#"{"err_msg": "The store cannot be reached"}"#));
    assert_eq!(reply.field("Retry-After"), Some("1"));
    let absent = near.get(&format!("/messages/{}", digest(b"bar")));
    assert_eq!(absent.status, 503, "nobody knows whether it is absent");
}

#[test]
fn what_is_corrupt_near_is_taken_from_the_upstream_again() {
    let far = Server::http(&[]);
    let near = near(&far, &["--cache-size", "0"]);
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
fn a_removal_is_far_and_near() {
    let far = Server::http(&[]);
    let near = near_its_owner(&far);
    near.socket();
    let path = near.put("foo");
    near.sandbox.sha_api(["rm", FOO]).assert().code(0);
    for server in [&near, &far] {
        assert_eq!(server.get(&path).status, 404);
    }
    drop(far);
    assert_eq!(near.get(&path).status, 503, "nothing of it is left near");
}

#[test]
fn what_is_there_is_what_the_upstream_has() {
    let far = Server::http(&[]);
    let near = near_its_owner(&far);
    near.socket();
    far.put("foo");
    near.sandbox.sha_api(["list"]).assert().code(0).stdout(format!("{FOO}\n"));
    over(&near, &["has", FOO]).assert().code(0);
    over(&near, &["has", &digest(b"bar")]).assert().code(1);
}

#[test]
fn the_upstream_is_shown_the_token() {
    let sandbox = Sandbox::new();
    let all = token(&sandbox, "read,write,list,rm");
    let far = Server::http(&["--token-file", &tokens(&sandbox)]);
    let start = |token: &str| {
        let settings = Sandbox::new();
        let file = settings.file("config.toml", format!("token = \"{token}\"\n").as_bytes());
        Server::start(settings, &["--http", "--upstream", &url(&far), "--config", file.to_str().unwrap()])
    };
    over(&start(&all), &["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n"));
    let refused = start("nonsense");
    over(&refused, &["put", "bar"]).assert().code(3);
    assert!(refused.stderr().contains("does not permit this"), "{}", refused.stderr());
}
