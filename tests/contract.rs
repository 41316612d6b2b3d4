//! `/openapi.json` describes the server exactly: each documented status occurs, and no other status occurs.

use std::collections::BTreeSet;
use std::fs;

use crate::common::server::{Client, Server};
use crate::common::store_factory::{StoreFactory, for_each_store_kind};
use crate::common::{FOO, Sandbox, command_without_proxy, digest, has_tool};

for_each_store_kind! {
    every_documented_status_can_be_produced,
    schemathesis_finds_no_deviation_from_the_openapi_description,
}

/// Statuses that only a failing store produces. `src/server/api/tests.rs` tests them.
const STORE_FAILURE_STATUSES: [u64; 2] = [500, 507];

fn fetch_openapi(server: &Server) -> serde_json::Value {
    serde_json::from_str(server.get("/openapi.json").text()).unwrap()
}

/// Sends a request and returns the status and the body of the response. The body of a HEAD response is empty.
fn send_request(mut client: Client, method: &str, path: &str, fields: &str, body: &str) -> (u64, String) {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{length}{fields}\r\n{body}"));
    let response = client.read_until_close();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// A documented operation: route, method, header fields and body of a valid request, and the required scope.
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

/// All operations on the store.
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

/// Writes a token file with one token per scope and returns its path. Each token is the name of its scope.
fn write_token_file(sandbox: &Sandbox) -> String {
    let line = |scope: &&str| format!("{scope} {scope} {}\n", digest(scope.as_bytes()));
    let lines: String = ["read", "write", "list", "rm"].iter().map(line).collect();
    sandbox.write_file("tokens", lines.as_bytes()).to_str().unwrap().to_owned()
}

fn bearer_header(scope: &str) -> String {
    format!("Authorization: Bearer {scope}\r\n")
}

#[allow(clippy::too_many_lines, reason = "a table of requests, one line each")]
fn every_documented_status_can_be_produced(factory: &StoreFactory) {
    let sandbox = factory.with_messages(&[b"foo", b"\xff"]);
    let file = write_token_file(&sandbox);
    let common = ["--http", "--token-file", &file];
    let flags = ["--max-body", "1000", "--head-timeout", "300ms", "--body-timeout", "300ms"];
    let server = Server::start(sandbox, &[&common[..], &flags].concat());
    let read_only = Server::start(factory.empty_store(), &[&common[..], &["--read-only"]].concat());
    let not_ready = Server::spawn(factory.unopenable_store(&server.sandbox), &common);
    let with_metrics_listener = factory.http(&["--metrics-listen", "127.0.0.1:0"]);
    let mut observed: BTreeSet<(String, String, u64)> = BTreeSet::new();
    let mut send = |route: &str, method: &str, server: &Server, path: &str, fields: &str, body: &str| {
        let (status, body) = send_request(server.client(), method, path, fields, body);
        assert!(status < 400 || method == "HEAD" || body.starts_with("{\"err_msg\": \""), "{status} {body}");
        observed.insert((route.to_owned(), method.to_owned(), status));
        status
    };
    let stored = format!("/messages/{FOO}");
    let long_field = format!("X: {}\r\n", "y".repeat(20_000));
    for Operation { route, method, fields, body, scope } in OPERATIONS {
        let path = if route == MESSAGE_PATH { stored.as_str() } else { route };
        let with = |extra: &str| [fields, &bearer_header(scope), extra].concat();
        let mut assert_status = |server, fields: &str, body, status| {
            assert_eq!(send(route, method, server, path, fields, body), status, "{method} {route} {fields}");
        };
        let other_scope = if scope == "read" { "write" } else { "read" };
        assert_status(&server, fields, body, 401);
        assert_status(&server, &[fields, &bearer_header(other_scope)].concat(), body, 403);
        assert_status(&server, &with("Bad : x\r\n"), body, 400);
        assert_status(&server, &with(&long_field), body, 431);
        assert_status(&server, &with("Content-Length: 9\r\n"), "", 408);
        assert_status(&not_ready, &with(""), body, 503);
        if ["write", "rm"].contains(&scope) {
            assert_status(&read_only, &with(""), body, 405);
        }
        if ["POST", "PUT"].contains(&method) {
            assert_status(&server, &with("Content-Length: 1001\r\n"), "", 413);
            assert_status(&server, &with("Expect: x\r\n"), "", 417);
        }
    }
    let (tag, bytes) = (format!("If-None-Match: \"{FOO}-json\"\r\n"), "Accept: application/octet-stream\r\n");
    let absent = format!("/messages/{}", "a".repeat(64));
    let bar = format!("/messages/{}", digest(b"bar"));
    for Operation { route, method, fields, body, scope } in OPERATIONS {
        let token = bearer_header(scope);
        let mut assert_status = |path: &str, extra: &str, body, status| {
            let fields = [fields, &token, extra].concat();
            assert_eq!(send(route, method, &server, path, &fields, body), status, "{method} {path} {extra}");
        };
        match (route, method) {
            (MESSAGE_PATH, "GET" | "HEAD") => {
                assert_status(&stored, "", "", 200);
                assert_status(&stored, &tag, "", 304);
                assert_status(&absent, "", "", 404);
                assert_status(&format!("/messages/{}", digest(b"\xff")), "", "", 406);
                if method == "GET" {
                    assert_status(&stored, &format!("{bytes}Range: bytes=1-\r\n"), "", 206);
                    assert_status(&stored, &format!("{bytes}Range: bytes=3-\r\n"), "", 416);
                }
            }
            (MESSAGE_PATH, "PUT") => {
                assert_status(&stored, "", "foo", 200);
                assert_status(&bar, "", "bar", 201);
                assert_status(&bar, "", "baz", 409);
            }
            (MESSAGE_PATH, _) => {
                assert_status(&bar, "", "", 204);
                assert_status(&bar, "", "", 404);
            }
            ("/repair", _) => assert_status(route, "", body, 204),
            _ => assert_status(route, "", body, 200),
        }
    }
    for method in ["GET", "HEAD"] {
        for path in ["/livez", "/readyz", "/openapi.json"] {
            send(path, method, &server, path, "", "");
        }
        send("/readyz", method, &not_ready, "/readyz", "", "");
        for (server, fields) in [
            (&server, ""),
            (&server, &bearer_header("rm")),
            (&server, &bearer_header("list")),
            (&with_metrics_listener, ""),
        ] {
            send("/metrics", method, server, "/metrics", fields, "");
        }
    }

    let documented = documented_statuses(&server);
    assert_eq!(
        documented.difference(&observed).collect::<Vec<_>>(),
        Vec::<&(_, _, _)>::new(),
        "documented, but not observed"
    );
    assert_eq!(
        observed.difference(&documented).collect::<Vec<_>>(),
        Vec::<&(_, _, _)>::new(),
        "observed, but not documented"
    );
}

/// Returns path, method and status of each documented response that needs no failing store.
fn documented_statuses(server: &Server) -> BTreeSet<(String, String, u64)> {
    let mut documented = BTreeSet::new();
    for (path, methods) in fetch_openapi(server)["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters") {
            let statuses = operation["responses"].as_object().unwrap().keys().map(|status| status.parse().unwrap());
            documented.extend(statuses.map(|status: u64| (path.clone(), method.to_uppercase(), status)));
        }
    }
    documented.retain(|(_, _, status)| !STORE_FAILURE_STATUSES.contains(status));
    documented
}

/// Extensions of schemathesis: reading and writing of NDJSON, and a filter for requests that it wrongly takes for valid
/// or invalid. An invalid line of a put is answered with 200; a verification cursor must come from the server; a digest
/// `0` is invalid; a number of bytes with a decimal point is invalid.
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

fn schemathesis_finds_no_deviation_from_the_openapi_description(factory: &StoreFactory) {
    if !has_tool("schemathesis") {
        return;
    }
    let sandbox = factory.with_messages(&[b"foo"]);
    let line = format!("all read,write,list,rm {}\n", digest(b"secret"));
    let tokens = sandbox.write_file("tokens", line.as_bytes());
    let hooks = sandbox.write_file("hooks.py", SCHEMATHESIS_HOOKS.as_bytes());
    // Generous timeouts, so that the result does not depend on the speed of the machine.
    let timeouts = ["--head-timeout=60s", "--body-timeout=60s", "--idle-timeout=60s", "--write-timeout=60s"];
    let flags = ["--http", "--max-connections-per-address", "512", "--token-file", tokens.to_str().unwrap()];
    let server = Server::start(sandbox, &[&flags[..], &timeouts].concat());
    let url = format!("http://{}/openapi.json", server.address);
    let report = server.sandbox.dir().join("report");
    let status = command_without_proxy("schemathesis")
        .args(["run", &url, "--max-examples", "50", "--checks", "all", "--phases", "examples,coverage,fuzzing"])
        .args(["--seed", "1", "--no-color", "--header", "Authorization: Bearer secret"])
        .args(["--suppress-health-check", "all", "--request-timeout", "60", "--request-retries", "5"])
        .env("HOME", server.sandbox.dir())
        .env("SCHEMATHESIS_HOOKS", hooks)
        .current_dir(server.sandbox.dir())
        .stdout(fs::File::create(&report).unwrap())
        .status()
        .unwrap();
    let report = || fs::read_to_string(&report).unwrap();
    assert!(status.success(), "{}\nstderr of the server:\n{}", report(), server.read_stderr());
    assert_eq!(server.get("/readyz").status, 200);
}
