//! `/openapi.json` says what the server does: each status that it documents can be had, and no other comes.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::common::server::{Client, Server};
use crate::common::{FOO, Sandbox, digest, has_tool};

/// Statuses that take a store that fails; `src/server/api/tests.rs` has those.
const BY_FAILURE: [u64; 2] = [500, 507];

fn description(server: &Server) -> serde_json::Value {
    serde_json::from_str(server.get("/openapi.json").text()).unwrap()
}

/// Asks, and answers with the status and the body. HEAD has none.
fn ask(mut client: Client, method: &str, path: &str, fields: &str, body: &str) -> (u64, String) {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{length}{fields}\r\n{body}"));
    let rest = client.rest();
    let (head, body) = rest.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[test]
fn every_status_that_is_documented_can_be_had() {
    let sandbox = Sandbox::with(&[b"foo", b"\xff"]);
    let open =
        Server::start(sandbox, &["--http", "--max-body", "1000", "--head-timeout", "300ms", "--body-timeout", "300ms"]);
    let sandbox = Sandbox::new();
    let tokens = sandbox.file("tokens", format!("a rm {}\n", digest(b"secret")).as_bytes());
    let shut = Server::start(sandbox, &["--http", "--read-only", "--token-file", tokens.to_str().unwrap()]);
    let apart = Server::http(&["--metrics-listen", "127.0.0.1:0"]);
    let waiting = Sandbox::new();
    std::os::unix::fs::symlink(open.sandbox.store(), waiting.store()).unwrap();
    let waiting = Server::begin(waiting, &["--http"]);
    let json = "Content-Type: application/json\r\n";
    let mut had: BTreeSet<(String, String, u64)> = BTreeSet::new();
    let mut see = |route: &str, method: &str, server: &Server, path: &str, fields: &str, body: &str| {
        let (status, body) = ask(server.client(), method, path, fields, body);
        assert!(status < 400 || method == "HEAD" || body.starts_with("{\"err_msg\": \""), "{status} {body}");
        had.insert((route.to_owned(), method.to_owned(), status));
    };
    let put = r#"{"message": "foo"}"#;
    let long = format!("X: {}\r\n", "y".repeat(20_000));
    for (server, fields, body) in [
        (&open, json, put),
        (&open, json, "[]"),
        (&open, json, &" ".repeat(1001)),
        (&open, "Expect: x\r\n", ""),
        (&open, &long, ""),
        (&shut, json, put),
        (&waiting, json, put),
    ] {
        see("/messages", "POST", server, "/messages", fields, body);
    }
    see("/messages", "POST", &open, "/messages", &format!("{json}Content-Length: 9\r\n"), "");
    let (one, foo) = ("/messages/{digest}", format!("/messages/{FOO}"));
    let tag = format!("If-None-Match: \"{FOO}-json\"\r\n");
    let absent = format!("/messages/{}", "a".repeat(64));
    let binary = format!("/messages/{}", digest(b"\xff"));
    let token = "Authorization: Bearer secret\r\n";
    for method in ["GET", "HEAD"] {
        for (server, path, fields) in [
            (&open, &foo, ""),
            (&open, &foo, &tag),
            (&open, &foo, "Bad : x\r\n"),
            (&open, &absent, ""),
            (&open, &binary, ""),
            (&open, &foo, "Content-Length: 9\r\n"),
            (&open, &foo, &long),
            (&shut, &foo, ""),
            (&shut, &foo, token),
            (&waiting, &foo, ""),
        ] {
            see(one, method, server, path, fields, "");
        }
        for path in ["/livez", "/readyz", "/openapi.json", "/metrics"] {
            see(path, method, &open, path, "", "");
        }
        see("/readyz", method, &waiting, "/readyz", "", "");
        for (server, fields) in [(&shut, ""), (&shut, token), (&apart, "")] {
            see("/metrics", method, server, "/metrics", fields, "");
        }
    }
    // A server that takes messages, but not from everyone.
    let sandbox = Sandbox::new();
    let tokens = sandbox.file("tokens", format!("a rm {}\n", digest(b"secret")).as_bytes());
    let strict = Server::start(sandbox, &["--http", "--token-file", tokens.to_str().unwrap()]);
    see("/messages", "POST", &strict, "/messages", json, put);
    see("/messages", "POST", &strict, "/messages", &[json, token].concat(), put);

    let mut documented = BTreeSet::new();
    for (path, methods) in description(&open)["paths"].as_object().unwrap() {
        for (method, about) in methods.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters") {
            let statuses = about["responses"].as_object().unwrap().keys().map(|status| status.parse().unwrap());
            documented.extend(statuses.map(|status: u64| (path.clone(), method.to_uppercase(), status)));
        }
    }
    documented.retain(|(_, _, status)| !BY_FAILURE.contains(status));
    assert_eq!(documented.difference(&had).collect::<Vec<_>>(), Vec::<&(_, _, _)>::new(), "documented, but not had");
    assert_eq!(had.difference(&documented).collect::<Vec<_>>(), Vec::<&(_, _, _)>::new(), "had, but not documented");
}

#[test]
fn schemathesis_finds_nothing_that_is_not_as_described() {
    if !has_tool("schemathesis") {
        return;
    }
    let server = Server::http(&["--max-connections-per-address", "512"]);
    server.put("foo");
    let url = format!("http://{}/openapi.json", server.address);
    let report = server.sandbox.dir().join("report");
    let output = Command::new("schemathesis")
        .args(["run", &url, "--max-examples", "50", "--checks", "all", "--phases", "examples,coverage,fuzzing"])
        .args(["--seed", "1", "--no-color"])
        .env("HOME", server.sandbox.dir())
        .current_dir(server.sandbox.dir())
        .stdout(fs::File::create(&report).unwrap())
        .status()
        .unwrap();
    assert!(output.success(), "{}", fs::read_to_string(&report).unwrap());
    server.is_well();
}
