//! `/openapi.json` says what the server does: each status that it documents can be had, and no other comes.

use std::collections::BTreeSet;
use std::fs;

use crate::common::server::{Client, Server};
use crate::common::store_factory::{StoreFactory, for_each_store_kind};
use crate::common::{FOO, Sandbox, command_without_proxy, digest, has_tool};

for_each_store_kind! {
    every_documented_status_can_be_produced,
    schemathesis_finds_no_deviation_from_the_openapi_description,
}

/// Statuses that take a store that fails; `src/server/api/tests.rs` has those.
const STORE_FAILURE_STATUSES: [u64; 2] = [500, 507];

fn fetch_openapi(server: &Server) -> serde_json::Value {
    serde_json::from_str(server.get("/openapi.json").text()).unwrap()
}

/// Asks, and answers with the status and the body. HEAD has none.
fn send_request(mut client: Client, method: &str, path: &str, fields: &str, body: &str) -> (u64, String) {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{length}{fields}\r\n{body}"));
    let rest = client.read_until_close();
    let (head, body) = rest.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// One thing that can be done: where, how, with which fields and body, and with a token for what.
struct Operation {
    route: &'static str,
    method: &'static str,
    fields: &'static str,
    body: &'static str,
    scope: &'static str,
}

const JSON: &str = "Content-Type: application/json\r\n";
const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";
const MESSAGE_PATH: &str = "/messages/{digest}";

const fn operation(
    route: &'static str,
    method: &'static str,
    fields: &'static str,
    body: &'static str,
    scope: &'static str,
) -> Operation {
    Operation { route, method, fields, body, scope }
}

/// All that is done with the store.
const OPERATIONS: [Operation; 14] = [
    operation("/messages", "POST", JSON, "{\"message\": \"foo\"}", "write"),
    operation("/messages", "GET", "", "", "list"),
    operation("/messages", "HEAD", "", "", "list"),
    operation("/messages/missing", "POST", NDJSON, "", "read"),
    operation("/messages/get", "POST", NDJSON, "", "read"),
    operation("/messages/remove", "POST", NDJSON, "", "rm"),
    operation(MESSAGE_PATH, "GET", "", "", "read"),
    operation(MESSAGE_PATH, "HEAD", "", "", "read"),
    operation(MESSAGE_PATH, "PUT", "", "foo", "write"),
    operation(MESSAGE_PATH, "DELETE", "", "", "rm"),
    operation("/stats", "GET", "", "", "list"),
    operation("/stats", "HEAD", "", "", "list"),
    operation("/verify", "POST", JSON, "{\"from\": null}", "list"),
    operation("/repair", "POST", JSON, "{\"damage\": []}", "rm"),
];

/// Tokens that permit one scope each, and are called as it is.
fn write_token_file(sandbox: &Sandbox) -> String {
    let line = |scope: &&str| format!("{scope} {scope} {}\n", digest(scope.as_bytes()));
    let lines: String = ["read", "write", "list", "rm"].iter().map(line).collect();
    sandbox.write_file("tokens", lines.as_bytes()).to_str().unwrap().to_owned()
}

fn bearer_header(scope: &str) -> String {
    format!("Authorization: Bearer {scope}\r\n")
}

fn every_documented_status_can_be_produced(place: &StoreFactory) {
    let sandbox = place.with_messages(&[b"foo", b"\xff"]);
    let file = write_token_file(&sandbox);
    let common = ["--http", "--token-file", &file];
    let flags = ["--max-body", "1000", "--head-timeout", "300ms", "--body-timeout", "300ms"];
    let server = Server::start(sandbox, &[&common[..], &flags].concat());
    let shut = Server::start(place.empty_store(), &[&common[..], &["--read-only"]].concat());
    let waiting = Server::spawn(place.unopenable_store(&server.sandbox), &common);
    let apart = place.http(&["--metrics-listen", "127.0.0.1:0"]);
    let mut had: BTreeSet<(String, String, u64)> = BTreeSet::new();
    let mut see = |route: &str, method: &str, server: &Server, path: &str, fields: &str, body: &str| {
        let (status, body) = send_request(server.client(), method, path, fields, body);
        assert!(status < 400 || method == "HEAD" || body.starts_with("{\"err_msg\": \""), "{status} {body}");
        had.insert((route.to_owned(), method.to_owned(), status));
        status
    };
    let stored = format!("/messages/{FOO}");
    let long = format!("X: {}\r\n", "y".repeat(20_000));
    for Operation { route, method, fields, body, scope } in OPERATIONS {
        let path = if route == MESSAGE_PATH { stored.as_str() } else { route };
        let with = |more: &str| [fields, &bearer_header(scope), more].concat();
        let mut see = |server, fields: &str, body, status| {
            assert_eq!(see(route, method, server, path, fields, body), status, "{method} {route} {fields}");
        };
        let other = if scope == "read" { "write" } else { "read" };
        see(&server, fields, body, 401);
        see(&server, &[fields, &bearer_header(other)].concat(), body, 403);
        see(&server, &with("Bad : x\r\n"), body, 400);
        see(&server, &with(&long), body, 431);
        see(&server, &with("Content-Length: 9\r\n"), "", 408);
        see(&waiting, &with(""), body, 503);
        if ["write", "rm"].contains(&scope) {
            see(&shut, &with(""), body, 405);
        }
        if ["POST", "PUT"].contains(&method) {
            see(&server, &with("Content-Length: 1001\r\n"), "", 413);
            see(&server, &with("Expect: x\r\n"), "", 417);
        }
    }
    let (tag, bytes) = (format!("If-None-Match: \"{FOO}-json\"\r\n"), "Accept: application/octet-stream\r\n");
    let absent = format!("/messages/{}", "a".repeat(64));
    let bar = format!("/messages/{}", digest(b"bar"));
    for Operation { route, method, fields, body, scope } in OPERATIONS {
        let token = bearer_header(scope);
        let mut see = |path: &str, more: &str, body, status| {
            let fields = [fields, &token, more].concat();
            assert_eq!(see(route, method, &server, path, &fields, body), status, "{method} {path} {more}");
        };
        match (route, method) {
            (MESSAGE_PATH, "GET" | "HEAD") => {
                see(&stored, "", "", 200);
                see(&stored, &tag, "", 304);
                see(&absent, "", "", 404);
                see(&format!("/messages/{}", digest(b"\xff")), "", "", 406);
                if method == "GET" {
                    see(&stored, &format!("{bytes}Range: bytes=1-\r\n"), "", 206);
                    see(&stored, &format!("{bytes}Range: bytes=3-\r\n"), "", 416);
                }
            }
            (MESSAGE_PATH, "PUT") => {
                see(&stored, "", "foo", 200);
                see(&bar, "", "bar", 201);
                see(&bar, "", "baz", 409);
            }
            (MESSAGE_PATH, _) => {
                see(&bar, "", "", 204);
                see(&bar, "", "", 404);
            }
            ("/repair", _) => see(route, "", body, 204),
            _ => see(route, "", body, 200),
        }
    }
    for method in ["GET", "HEAD"] {
        for path in ["/livez", "/readyz", "/openapi.json"] {
            see(path, method, &server, path, "", "");
        }
        see("/readyz", method, &waiting, "/readyz", "", "");
        for (server, fields) in
            [(&server, ""), (&server, &bearer_header("rm")), (&server, &bearer_header("list")), (&apart, "")]
        {
            see("/metrics", method, server, "/metrics", fields, "");
        }
    }

    let mut documented = BTreeSet::new();
    for (path, methods) in fetch_openapi(&server)["paths"].as_object().unwrap() {
        for (method, about) in methods.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters") {
            let statuses = about["responses"].as_object().unwrap().keys().map(|status| status.parse().unwrap());
            documented.extend(statuses.map(|status: u64| (path.clone(), method.to_uppercase(), status)));
        }
    }
    documented.retain(|(_, _, status)| !STORE_FAILURE_STATUSES.contains(status));
    assert_eq!(documented.difference(&had).collect::<Vec<_>>(), Vec::<&(_, _, _)>::new(), "documented, but not had");
    assert_eq!(had.difference(&documented).collect::<Vec<_>>(), Vec::<&(_, _, _)>::new(), "had, but not documented");
}

/// What schemathesis has to be told: how lines are written and read, and what it takes for valid though it is not:
/// a bad line to put is answered, not refused; a place where no step of verifying ended; a hash `0`; a number of bytes with a point.
const SCHEMATHESIS_HOOKS: &str = "\
import json
import schemathesis

@schemathesis.serializer('application/x-ndjson')
def write_lines(ctx, value):
    items = value if isinstance(value, list) else [value]
    return ''.join(json.dumps(item) + '\\n' for item in items).encode()

@schemathesis.deserializer('application/x-ndjson')
def read_lines(ctx, response):
    return [json.loads(line) for line in response.content.splitlines()]

@schemathesis.hook
def filter_case(ctx, case):
    if '0' in [(case.headers or {}).get(name) for name in ('Content-Digest', 'Repr-Digest')]:
        return False
    if case.media_type == 'application/x-ndjson':
        return case.path != '/messages' and isinstance(case.body, list)
    body = case.body if isinstance(case.body, dict) else {}
    damage = body.get('damage') if isinstance(body.get('damage'), list) else []
    if any(isinstance(one, dict) and any(isinstance(part, float) for part in one.values()) for one in damage):
        return False
    return not (case.path == '/verify' and isinstance(body.get('from'), str))
";

fn schemathesis_finds_no_deviation_from_the_openapi_description(place: &StoreFactory) {
    if !has_tool("schemathesis") {
        return;
    }
    let sandbox = place.with_messages(&[b"foo"]);
    let line = format!("all read,write,list,rm {}\n", digest(b"secret"));
    let tokens = sandbox.write_file("tokens", line.as_bytes());
    let hooks = sandbox.write_file("hooks.py", SCHEMATHESIS_HOOKS.as_bytes());
    // How fast the machine is shall not matter.
    let patience = ["--head-timeout=60s", "--body-timeout=60s", "--idle-timeout=60s", "--write-timeout=60s"];
    let flags = ["--http", "--max-connections-per-address", "512", "--token-file", tokens.to_str().unwrap()];
    let server = Server::start(sandbox, &[&flags[..], &patience].concat());
    let url = format!("http://{}/openapi.json", server.address);
    let report = server.sandbox.dir().join("report");
    let output = command_without_proxy("schemathesis")
        .args(["run", &url, "--max-examples", "50", "--checks", "all", "--phases", "examples,coverage,fuzzing"])
        .args(["--seed", "1", "--no-color", "--header", "Authorization: Bearer secret"])
        .args(["--suppress-health-check", "all", "--request-timeout", "60", "--request-retries", "5"])
        .env("HOME", server.sandbox.dir())
        .env("SCHEMATHESIS_HOOKS", hooks)
        .current_dir(server.sandbox.dir())
        .stdout(fs::File::create(&report).unwrap())
        .status()
        .unwrap();
    let said = || fs::read_to_string(server.sandbox.dir().join("stderr")).unwrap();
    assert!(output.success(), "{}\nthe server said:\n{}", fs::read_to_string(&report).unwrap(), said());
    let alive = server.get("/readyz");
    assert_eq!(alive.status, 200);
}
