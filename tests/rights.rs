//! Nobody reaches past what the token permits, and nothing is read or told before that is known.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::common::Sandbox;
use crate::common::server::{Client, Server, post, until};

/// A server with a token file, and the tokens in it by name.
fn with_tokens(flags: &[&str]) -> (Server, PathBuf, impl Fn(&str) -> String + use<>) {
    let sandbox = Sandbox::new();
    let file = sandbox.dir().join("tokens");
    let mut tokens = Vec::new();
    for (name, scopes) in [("reader", "read"), ("writer", "write"), ("both", "read,write"), ("lister", "list")] {
        let made = sandbox.sha_api(["token", name, "--scope", scopes, "--token-file"]).arg(&file).assert().code(0);
        tokens.push((name, String::from_utf8(made.get_output().stdout.clone()).unwrap().trim().to_owned()));
    }
    let path = file.to_str().unwrap().to_owned();
    let server = Server::start(sandbox, &[flags, &["--token-file", &path]].concat());
    (server, file, move |name| tokens.iter().find(|token| token.0 == name).unwrap().1.clone())
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn get(client: &mut Client, path: &str, fields: &str) -> (u16, String) {
    let reply = client.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    (reply.status, reply.text().to_owned())
}

#[test]
fn without_a_valid_token_there_is_401_and_with_one_for_less_403() {
    for flags in [&["--http"][..], &[]] {
        let (server, _, token) = with_tokens(flags);
        let put = server.client().ask(&post("foo", &bearer(&token("both"))));
        let path = put.field("Location").unwrap().to_owned();
        let mut client = server.client();
        // The first read fills the cache; what comes after it must not be answered from there.
        assert_eq!(get(&mut client, &path, &bearer(&token("reader"))), (200, r#"{"message": "foo"}"#.to_owned()));
        let basic = "Authorization: Basic Zm9vOmJhcg==\r\n".to_owned();
        let nearly = bearer(&token("reader")[1..]);
        for fields in [String::new(), basic, bearer("x"), nearly, bearer(""), bearer(&format!("{} x", token("reader")))]
        {
            let reply = client.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            assert_eq!((reply.status, reply.text()), (401, r#"{"err_msg": "A valid token is needed"}"#), "{fields}");
            assert_eq!(reply.field("WWW-Authenticate"), Some("Bearer"));
            assert_eq!(reply.field("Connection"), Some("keep-alive"));
        }
        for name in ["writer", "lister"] {
            let reply = get(&mut client, &path, &bearer(&token(name)));
            assert_eq!(reply, (403, r#"{"err_msg": "The token does not permit this"}"#.to_owned()), "{name}");
        }
        assert_eq!(server.client().ask(&post("bar", &bearer(&token("reader")))).status, 403);
        assert_eq!(server.client().ask(&post("bar", "")).status, 401);
        assert_eq!(get(&mut client, &path, &bearer(&token("both"))).0, 200);
        for probe in ["/livez", "/readyz"] {
            assert_eq!(get(&mut client, probe, "").0, 200);
        }
        assert!(!server.stderr().contains(&token("both")));
    }
}

#[test]
fn who_may_not_is_told_so_before_the_body_is_read_or_asked_for() {
    let (server, _, token) = with_tokens(&["--http"]);
    let head =
        |fields: &str| format!("POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{fields}\r\n");
    for (who, status) in [(String::new(), 401), (bearer(&token("reader")), 403)] {
        for framing in ["Content-Length: 18\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 99999999999\r\n"] {
            for expect in ["", "Expect: 100-continue\r\n"] {
                let mut client = server.client();
                client.send(head(&[&who, framing, expect].concat()));
                let rest = client.rest();
                assert!(rest.starts_with(&format!("HTTP/1.1 {status} ")), "{framing}{expect}{rest}");
                assert!(rest.contains("Connection: close\r\n"), "{rest}");
            }
        }
    }
    // What follows a body that was not read is not taken for a request.
    let mut client = server.client();
    let smuggled = post("smuggled", &bearer(&token("both")));
    client.send(head(&format!("Content-Length: {}\r\n", smuggled.len())) + &smuggled);
    assert_eq!(client.rest().matches("HTTP/1.1 ").count(), 1);
    let path = format!("/messages/{}", crate::common::digest(b"smuggled"));
    assert_eq!(get(&mut server.client(), &path, &bearer(&token("both"))).0, 404);
}

#[test]
fn a_changed_token_file_takes_effect_and_a_bad_one_names_its_line() {
    let (server, file, token) = with_tokens(&["--http"]);
    let path = format!("/messages/{}", crate::common::digest(b"foo"));
    let status = |name: &str| get(&mut server.client(), &path, &bearer(&token(name))).0;
    let good = fs::read_to_string(&file).unwrap();
    assert_eq!((status("reader"), status("both")), (404, 404));
    fs::write(&file, "# nobody\nnonsense\n").unwrap();
    server.signal(Signal::HUP);
    until("the bad one is reported", || {
        server.stderr().contains(&format!("the tokens stay as they were: {}:2: ", file.display()))
    });
    assert_eq!((status("reader"), status("both")), (404, 404));
    let fewer: String =
        good.lines().filter(|line| !line.starts_with("reader ")).map(|line| format!("{line}\n")).collect();
    fs::write(&file, fewer).unwrap();
    // By itself, without a signal.
    until("the token is withdrawn", || status("reader") == 401);
    assert_eq!(status("both"), 404);
}

#[test]
fn a_token_file_that_cannot_be_used_is_an_error_at_the_start() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("tokens", b"a read\n");
    let serve = |file: &str| {
        let args = ["serve", "--http", "--listen", "127.0.0.1:0", "--token-file", file];
        let output = sandbox.sha_api(args).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), b"".as_slice()));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(serve(file.to_str().unwrap()).contains("tokens:1: a line is a name, scopes"));
    assert!(serve("/no/such/file").contains("/no/such/file: "));
}

#[test]
fn what_a_restricted_server_does_not_do_is_405_with_what_is_left() {
    let mut server = Server::http(&[]);
    let path = server.put("foo");
    server.signal(Signal::TERM);
    server.ended();
    let store = std::mem::replace(&mut server.sandbox, Sandbox::new());
    let server = Server::start(store, &["--http", "--read-only"]);
    let reply = server.client().ask(&post("bar", "Expect: 100-continue\r\n"));
    assert_eq!((reply.status, reply.field("Allow")), (405, Some("GET, HEAD")));
    assert_eq!(get(&mut server.client(), &path, "").0, 200);
    let server = Server::http(&["--append-only"]);
    server.is_well();
    let reply = server.client().ask(&format!("DELETE {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!((reply.status, reply.field("Allow")), (405, Some("GET, HEAD, PUT")));
}

#[test]
fn who_listens_beyond_the_machine_is_warned_only_where_everyone_may() {
    let (server, ..) = with_tokens(&["--http", "--listen", "0.0.0.0:0"]);
    assert!(!server.stderr().contains("anyone who can connect"), "{}", server.stderr());
    let server = Server::http(&["--listen", "0.0.0.0:0", "--read-only"]);
    assert!(server.stderr().contains("may read: there are no tokens"), "{}", server.stderr());
}
