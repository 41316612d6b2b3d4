//! A token permits the operations of its scopes only. The server checks the token before it reads a body or reveals
//! whether a message exists.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::common::Sandbox;
use crate::common::server::{Client, Server, post_request, wait_until};

/// Starts a server with a token file. Returns the server, the path of the file and a function from name to token.
fn server_with_tokens(flags: &[&str]) -> (Server, PathBuf, impl Fn(&str) -> String + use<>) {
    let sandbox = Sandbox::new();
    let file = sandbox.dir().join("tokens");
    let mut tokens = Vec::new();
    for (name, scopes) in [("reader", "read"), ("writer", "write"), ("both", "read,write"), ("lister", "list")] {
        let created = sandbox.sha_api(["token", name, "--scope", scopes, "--token-file"]).arg(&file).assert().code(0);
        tokens.push((name, String::from_utf8(created.get_output().stdout.clone()).unwrap().trim().to_owned()));
    }
    let path = file.to_str().unwrap().to_owned();
    let server = Server::start(sandbox, &[flags, &["--token-file", &path]].concat());
    (server, file, move |name| tokens.iter().find(|token| token.0 == name).unwrap().1.clone())
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn get_status_and_body(client: &mut Client, path: &str, fields: &str) -> (u16, String) {
    let response = client.call(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    (response.status, response.text().to_owned())
}

#[test]
fn a_missing_token_gets_401_and_an_insufficient_scope_403() {
    for flags in [&["--http"][..], &[]] {
        let (server, _, token) = server_with_tokens(flags);
        let put = server.client().call(&post_request("foo", &bearer(&token("both"))));
        let path = put.header("Location").unwrap().to_owned();
        let mut client = server.client();
        // The first GET fills the cache. The following requests must not be answered from the cache.
        assert_eq!(
            get_status_and_body(&mut client, &path, &bearer(&token("reader"))),
            (200, r#"{"message": "foo"}"#.to_owned())
        );
        let basic = "Authorization: Basic Zm9vOmJhcg==\r\n".to_owned();
        let truncated = bearer(&token("reader")[1..]);
        for fields in
            [String::new(), basic, bearer("x"), truncated, bearer(""), bearer(&format!("{} x", token("reader")))]
        {
            let response = client.call(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            assert_eq!(
                (response.status, response.text()),
                (401, r#"{"err_msg": "A valid token is needed"}"#),
                "{fields}"
            );
            assert_eq!(response.header("WWW-Authenticate"), Some("Bearer"));
            assert_eq!(response.header("Connection"), Some("keep-alive"));
        }
        for name in ["writer", "lister"] {
            let response = get_status_and_body(&mut client, &path, &bearer(&token(name)));
            assert_eq!(response, (403, r#"{"err_msg": "The token does not permit this"}"#.to_owned()), "{name}");
        }
        assert_eq!(server.client().call(&post_request("bar", &bearer(&token("reader")))).status, 403);
        assert_eq!(server.client().call(&post_request("bar", "")).status, 401);
        assert_eq!(get_status_and_body(&mut client, &path, &bearer(&token("both"))).0, 200);
        for probe in ["/livez", "/readyz"] {
            assert_eq!(get_status_and_body(&mut client, probe, "").0, 200);
        }
        assert!(!server.read_stderr().contains(&token("both")));
    }
}

#[test]
fn unauthorized_requests_are_rejected_before_their_body() {
    let (server, _, token) = server_with_tokens(&["--http"]);
    let head =
        |fields: &str| format!("POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{fields}\r\n");
    for (authorization, status) in [(String::new(), 401), (bearer(&token("reader")), 403)] {
        for framing in ["Content-Length: 18\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 99999999999\r\n"] {
            for expect in ["", "Expect: 100-continue\r\n"] {
                let mut client = server.client();
                client.send(head(&[&authorization, framing, expect].concat()));
                let received = client.read_until_close();
                assert!(received.starts_with(&format!("HTTP/1.1 {status} ")), "{framing}{expect}{received}");
                assert!(received.contains("Connection: close\r\n"), "{received}");
            }
        }
    }
    // The bytes of a body that was not read are not parsed as a request.
    let mut client = server.client();
    let smuggled = post_request("smuggled", &bearer(&token("both")));
    client.send(head(&format!("Content-Length: {}\r\n", smuggled.len())) + &smuggled);
    assert_eq!(client.read_until_close().matches("HTTP/1.1 ").count(), 1);
    let path = format!("/messages/{}", crate::common::digest(b"smuggled"));
    assert_eq!(get_status_and_body(&mut server.client(), &path, &bearer(&token("both"))).0, 404);
}

#[test]
fn a_changed_token_file_takes_effect_and_an_invalid_one_is_reported_with_its_line() {
    let (server, file, token) = server_with_tokens(&["--http"]);
    let path = format!("/messages/{}", crate::common::digest(b"foo"));
    let status = |name: &str| get_status_and_body(&mut server.client(), &path, &bearer(&token(name))).0;
    let good = fs::read_to_string(&file).unwrap();
    assert_eq!((status("reader"), status("both")), (404, 404));
    fs::write(&file, "# a comment\nnonsense\n").unwrap();
    server.signal(Signal::HUP);
    wait_until("the bad line is reported", || {
        server.read_stderr().contains(&format!("cannot reload the token file: {}:2: ", file.display()))
    });
    assert_eq!((status("reader"), status("both")), (404, 404));
    let fewer: String =
        good.lines().filter(|line| !line.starts_with("reader ")).map(|line| format!("{line}\n")).collect();
    fs::write(&file, fewer).unwrap();
    // The server notices the change without a signal.
    wait_until("the token is revoked", || status("reader") == 401);
    assert_eq!(status("both"), 404);
}

#[test]
fn a_server_with_an_unusable_token_file_does_not_start() {
    let sandbox = Sandbox::new();
    let file = sandbox.write_file("tokens", b"a read\n");
    let serve = |file: &str| {
        let args = ["serve", "--http", "--listen", "127.0.0.1:0", "--token-file", file];
        let output = sandbox.sha_api(args).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), b"".as_slice()));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(serve(file.to_str().unwrap()).contains("tokens:1: expected a name, comma-separated scopes"));
    assert!(serve("/no/such/file").contains("/no/such/file: "));
}

#[test]
fn a_disabled_method_gets_405_with_the_allowed_methods() {
    let mut server = Server::http(&[]);
    let path = server.put("foo");
    server.signal(Signal::TERM);
    server.wait_exit();
    let store = std::mem::replace(&mut server.sandbox, Sandbox::new());
    let server = Server::start(store, &["--http", "--read-only"]);
    let response = server.client().call(&post_request("bar", "Expect: 100-continue\r\n"));
    assert_eq!((response.status, response.header("Allow")), (405, Some("GET, HEAD")));
    assert_eq!(get_status_and_body(&mut server.client(), &path, "").0, 200);
    let server = Server::http(&["--append-only"]);
    server.assert_healthy();
    let response = server.client().call(&format!("DELETE {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!((response.status, response.header("Allow")), (405, Some("GET, HEAD, PUT")));
}

#[test]
fn anonymous_access_beyond_loopback_prints_a_warning() {
    let (server, ..) = server_with_tokens(&["--http", "--listen", "0.0.0.0:0"]);
    assert!(!server.read_stderr().contains("anonymous clients"), "{}", server.read_stderr());
    let server = Server::http(&["--listen", "0.0.0.0:0", "--read-only"]);
    assert!(server.read_stderr().contains("may read; use --token-file"), "{}", server.read_stderr());
}

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"];
/// Scope that each method of [`METHODS`] requires on each path. `None`: the path does not support the method.
const REQUIRED_SCOPES: [(&str, [Option<&str>; 6]); 9] = [
    ("/messages", [Some("list"), Some("list"), Some("write"), None, None, None]),
    ("/messages/missing", [None, None, Some("read"), None, None, None]),
    ("/messages/get", [None, None, Some("read"), None, None, None]),
    ("/messages/remove", [None, None, Some("rm"), None, None, None]),
    (MESSAGE_PATH, [Some("read"), Some("read"), None, Some("write"), Some("rm"), None]),
    ("/stats", [Some("list"), Some("list"), None, None, None, None]),
    ("/verify", [None, None, Some("list"), None, None, None]),
    ("/repair", [None, None, Some("rm"), None, None, None]),
    ("/metrics", [Some("list"), Some("list"), None, None, None, None]),
];
const MESSAGE_PATH: &str = "/messages/2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
const SCOPES: [&str; 4] = ["read", "write", "list", "rm"];

/// Sends a request head with `Expect: 100-continue` and no body. Returns the status and the head of the response.
fn status_before_body(server: &Server, method: &str, path: &str, fields: &str) -> (u16, String) {
    let mut client = server.client();
    client.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n{fields}\r\n"
    ));
    let head = client.read_head();
    (head[9..12].parse().unwrap(), head)
}

#[test]
fn each_method_on_each_path_needs_exactly_its_scope() {
    let enabled_scopes: [(&str, &[&str]); 3] =
        [("", &SCOPES), ("--read-only", &["read", "list"]), ("--append-only", &["read", "write", "list"])];
    for (flag, enabled) in enabled_scopes {
        let sandbox = Sandbox::new();
        let line = |scope: &&str| format!("{scope} {scope} {}\n", crate::common::digest(scope.as_bytes()));
        let lines: String = SCOPES.iter().map(line).collect();
        let tokens = sandbox.write_file("tokens", lines.as_bytes()).to_str().unwrap().to_owned();
        let flags: Vec<_> =
            ["--http", "--token-file", &tokens, flag].into_iter().filter(|flag| !flag.is_empty()).collect();
        let server = Server::start(sandbox, &flags);
        for (path, scopes) in REQUIRED_SCOPES {
            let is_enabled = |scope: Option<&str>| scope.is_some_and(|scope| enabled.contains(&scope));
            let allow = METHODS.iter().zip(&scopes).filter(|(_, scope)| is_enabled(**scope)).map(|(method, _)| *method);
            let allow = format!("Allow: {}\r\n", allow.collect::<Vec<_>>().join(", "));
            for (method, required) in METHODS.iter().zip(&scopes) {
                for granted in SCOPES.iter().copied().map(Some).chain([None]) {
                    let fields = granted.map_or_else(String::new, bearer);
                    let (status, head) = status_before_body(&server, method, path, &fields);
                    let case = format!("{flag} {method} {path} {granted:?}: {head}");
                    match (is_enabled(*required), granted) {
                        (false, _) => assert!(status == 405 && head.contains(&allow), "{case}"),
                        (true, None) => assert_eq!(status, 401, "{case}"),
                        (true, scope) if scope != *required => assert_eq!(status, 403, "{case}"),
                        (true, _) => assert!(![401, 403, 405].contains(&status), "{case}"),
                    }
                }
            }
        }
    }
}

#[test]
fn without_tokens_anonymous_clients_read_and_write_only() {
    let server = Server::http(&[]);
    for (path, scopes) in REQUIRED_SCOPES.into_iter().filter(|(path, _)| *path != "/metrics") {
        for (method, required) in METHODS.iter().zip(scopes) {
            let (status, head) = status_before_body(&server, method, path, "");
            match required {
                None => assert_eq!(status, 405, "{method} {path}: {head}"),
                Some("read" | "write") => assert!(![401, 403, 405].contains(&status), "{method} {path}: {head}"),
                Some(_) => assert_eq!(status, 403, "{method} {path}: {head}"),
            }
        }
    }
}
