//! Servers behind nginx and `HAProxy` with the configurations in `deploy/`: requests and responses pass unchanged,
//! upstream connections are reused, and failed requests are retried.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::common::proxy::{PROXY_KINDS, Proxy, ProxyKind};
use crate::common::server::{Client, Response, Server, build_request, post_request, wait_until};
use crate::common::store_access::{FULL_ACCESS_TOKEN, token_file};
use crate::common::{FOO, Sandbox, digest, pseudorandom_bytes};

const ACCEPT_BYTES: &str = "Accept: application/octet-stream\r\n";
const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";

/// Header fields that a proxy may change.
const PROXY_HEADERS: [&str; 5] = ["connection", "keep-alive", "date", "server", "x-request-id"];

/// Returns the status, the sorted header fields that a proxy must not change, and the escaped body.
fn comparable_response(response: &Response) -> (u16, Vec<String>, String) {
    let fields = response.head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let mut fields: Vec<_> = fields
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| !PROXY_HEADERS.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    fields.sort();
    (response.status, fields, response.body.escape_ascii().to_string())
}

/// Idempotent requests of every kind, each with the expected status.
fn sample_requests() -> Vec<(u16, Vec<u8>)> {
    let binary = digest(&pseudorandom_bytes(5000, 1));
    let get = |path: &str, fields: &str| build_request("GET", path, fields, "");
    let (stored, absent) = (format!("/messages/{FOO}"), format!("/messages/{}", digest(b"absent")));
    let json = "Content-Type: application/json\r\n";
    let lines = "{\"message\": \"one\"}\n{\"message\": 2}\n{\"base64\": \"AP8=\"}\n";
    let digest_lines = format!("{{\"digest\": \"{FOO}\"}}\n{{\"digest\": \"{}\"}}\n", digest(b"absent"));
    vec![
        (200, build_request("POST", "/messages", json, "{\"message\": \"foo\"}")),
        (400, build_request("POST", "/messages", "Content-Type: text/plain\r\n", "foo")),
        (400, build_request("POST", "/messages", json, "{\"massage\": \"foo\"}")),
        (200, get(&stored, "")),
        (200, get(&stored, ACCEPT_BYTES)),
        (200, get(&stored.to_uppercase().replace("MESSAGES", "messages"), "")),
        (304, get(&stored, "If-None-Match: *\r\n")),
        (206, get(&stored, &format!("{ACCEPT_BYTES}Range: bytes=1-1\r\n"))),
        (416, get(&stored, &format!("{ACCEPT_BYTES}Range: bytes=9-\r\n"))),
        (404, get(&absent, "")),
        (404, get("/messages/nonsense", "")),
        (404, get("/a//b/../c?d=e%20f", "")),
        (200, build_request("PUT", &format!("/messages/{binary}"), "", pseudorandom_bytes(5000, 1))),
        (200, get(&format!("/messages/{binary}"), ACCEPT_BYTES)),
        (406, get(&format!("/messages/{binary}"), "")),
        (409, build_request("PUT", &absent, "", "present")),
        (400, build_request("PUT", &stored, "Repr-Digest: sha-256=:AAAA:\r\n", "foo")),
        (200, build_request("POST", "/messages", NDJSON, lines)),
        (200, build_request("POST", "/messages/missing", NDJSON, &digest_lines)),
        (200, build_request("POST", "/messages/get", NDJSON, &digest_lines)),
        (405, build_request("PATCH", &stored, "", "")),
        (403, build_request("DELETE", &stored, "", "")),
        (403, get("/messages?limit=1", "")),
        (200, get("/livez", "")),
        (200, get("/readyz", "")),
        (200, get("/openapi.json", "")),
        (200, get("/", "Accept: text/html\r\n")),
        (413, build_request("PUT", &stored, "", vec![b'.'; (1 << 20) + 1])),
    ]
}

/// Calls `test` with each installed proxy, once in front of an HTTP server and once in front of an HTTPS server.
fn for_each_proxy(flags: &[&str], test: impl Fn(&Server, &Proxy)) {
    for server in [Server::http(flags), Server::https(flags)] {
        for kind in PROXY_KINDS {
            let Some(proxy) = kind.start_for(&[&server]) else { continue };
            test(&server, &proxy);
        }
    }
}

#[test]
fn requests_and_responses_pass_unchanged() {
    for_each_proxy(&[], |server, proxy| {
        for (_, request) in sample_requests() {
            // All messages are stored before the comparison, so that the responses of repeated puts are equal.
            server.client().call_bytes(request);
        }
        for (status, request) in sample_requests() {
            let excerpt = request[..request.len().min(300)].escape_ascii().to_string();
            let direct = comparable_response(&server.client().call_bytes(&request));
            assert_eq!(direct.0, status, "{excerpt}");
            assert_eq!(
                comparable_response(&proxy.client().call_bytes(&request)),
                direct,
                "{excerpt}\n{}",
                proxy.output()
            );
        }
        let head = format!("HEAD /messages/{FOO} HTTP/1.1\r\nHost: a\r\n{ACCEPT_BYTES}\r\n");
        let call_head = |mut client: Client| {
            client.send(&head);
            let head = client.read_head();
            // A body in the response to HEAD would be read as the start of this response.
            let next = client.call("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(next.status, 200, "{head}");
            comparable_response(&Response { status: 200, head, body: Vec::new() })
        };
        let direct = call_head(server.client());
        assert!(direct.1.contains(&"content-length: 3".to_owned()), "{direct:?}");
        assert_eq!(call_head(proxy.client()), direct);
    });
}

/// Puts `message`. The header `fields` determine the framing: with `chunked`, the body is sent in chunks; with
/// `Expect`, the body is sent after the response 100.
fn upload(client: &mut Client, message: &[u8], fields: &str) -> Response {
    let path = format!("/messages/{}", digest(message));
    client.send(format!("PUT {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    if fields.contains("Expect") {
        let head = client.read_head();
        if !head.starts_with("HTTP/1.1 100 ") {
            return client.read_response_body(head);
        }
    }
    if fields.contains("chunked") {
        for piece in message.chunks(4_999) {
            client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        }
        client.send("0\r\n\r\n");
    } else {
        client.send(message);
    }
    client.read_response()
}

#[test]
fn long_and_binary_messages_pass_with_every_transfer_encoding() {
    for_each_proxy(&[], |_, proxy| {
        for (seed, length) in [0, 1, 16_384, 70_000, 1 << 20].into_iter().enumerate() {
            for (variant, expect) in ["", "Expect: 100-continue\r\n"].into_iter().enumerate() {
                for framing in [format!("Content-Length: {length}\r\n"), "Transfer-Encoding: chunked\r\n".to_owned()] {
                    let message = pseudorandom_bytes(length, (seed * 10 + variant) as u64 * 10 + framing.len() as u64);
                    let fields = format!("{framing}{expect}");
                    // The empty message is stored already, and the server sends no response 100 for a stored message.
                    if length == 0 && !expect.is_empty() {
                        continue;
                    }
                    let response = upload(&mut proxy.client(), &message, &fields);
                    assert!(
                        [200, 201].contains(&response.status),
                        "{length} {fields}{}{}",
                        response.head,
                        proxy.output()
                    );
                    let get = build_request("GET", &format!("/messages/{}", digest(&message)), ACCEPT_BYTES, "");
                    let got = proxy.client().call_bytes(get);
                    assert!(got.status == 200 && got.body == message, "{length} {fields}{}", got.head);
                }
            }
        }
    });
}

#[test]
fn an_oversized_body_is_rejected_in_json_by_proxy_and_server() {
    for_each_proxy(&[], |server, proxy| {
        let message = pseudorandom_bytes(1_500_000, 1);
        for framing in ["Content-Length: 1500000\r\n", "Transfer-Encoding: chunked\r\n"] {
            let response = upload(&mut proxy.client(), &message, framing);
            assert_eq!(
                (response.status, response.text()),
                (413, "{\"err_msg\": \"Request body too large\"}"),
                "{framing}"
            );
        }
        let mut client = proxy.client();
        client.send(format!("PUT /messages/{FOO} HTTP/1.1\r\nHost: a\r\nContent-Length: 70368744177664\r\n\r\n"));
        let response = client.read_response();
        assert_eq!((response.status, response.text()), (413, "{\"err_msg\": \"Request body too large\"}"));
        assert_eq!(response.header("Content-Type"), Some("application/json"));
        server.assert_healthy();
    });
}

/// Returns the value of a metric of the server.
fn read_metric(server: &Server, name: &str) -> u64 {
    let text = server.get("/metrics").text().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name}\n{text}")).parse().unwrap()
}

/// Returns a POST, PUT or GET request. `number` determines the method, the message and its size.
fn mixed_request(number: u64) -> Vec<u8> {
    let message = format!("{number} {}", "long ".repeat(usize::try_from(number % 4).unwrap() * 600));
    match number % 3 {
        0 => post_request(&message, "").into(),
        1 => build_request("PUT", &format!("/messages/{}", digest(message.as_bytes())), "", message),
        _ => build_request("GET", &format!("/messages/{FOO}"), "", ""),
    }
}

fn assert_success(number: u64, response: &Response, proxy: &Proxy) {
    assert!(
        [200, 201].contains(&response.status),
        "{number}: {}{}\n{}",
        response.head,
        response.text(),
        proxy.output()
    );
}

/// Sends 500 requests from each of four clients over persistent connections. Asserts that all succeed.
fn run_load(proxy: &Proxy) {
    thread::scope(|scope| {
        for client in 0..4 {
            scope.spawn(move || {
                let mut connection = proxy.client();
                for number in 0..500 {
                    assert_success(number, &connection.call_bytes(mixed_request(client * 500 + number)), proxy);
                }
            });
        }
    });
}

#[test]
fn upstream_connections_are_reused() {
    for_each_proxy(&[], |server, proxy| {
        server.client().call(&post_request("foo", ""));
        let before = read_metric(server, "sha_api_connections_total");
        run_load(proxy);
        let opened = read_metric(server, "sha_api_connections_total") - before;
        assert!(opened < 50, "2000 requests took {opened} connections");
    });
}

#[test]
fn no_request_fails_when_the_server_closes_connections_in_use() {
    for server in [Server::http, Server::https] {
        let server = server(&["--idle-timeout", "300ms", "--max-requests", "7"]);
        server.put("foo");
        for kind in PROXY_KINDS {
            let Some(proxy) = kind.start_for(&[&server]) else { continue };
            let before = read_metric(&server, "sha_api_connections_total");
            run_load(&proxy);
            assert!(read_metric(&server, "sha_api_connections_total") - before > 250, "{kind:?}");
            let mut clients: Vec<_> = (0..8).map(|number| (number, proxy.client())).collect();
            for _ in 0..5 {
                for (number, client) in &mut clients {
                    assert_success(*number, &client.call_bytes(mixed_request(*number)), &proxy);
                }
                // While the proxy is stopped, new requests arrive and the server closes the idle upstream connections,
                // so that the proxy may send a request on a closed connection.
                proxy.signal(Signal::STOP);
                for (number, client) in &mut clients {
                    *number += 8;
                    client.send(mixed_request(*number));
                }
                wait_until("the server closes all idle connections", || {
                    read_metric(&server, "sha_api_connections") == 1
                });
                proxy.signal(Signal::CONT);
                for (number, client) in &mut clients {
                    assert_success(*number, &client.read_response(), &proxy);
                }
            }
        }
    }
}

#[test]
fn requests_in_flight_on_a_killed_server_are_retried_on_the_next() {
    for (kind, length) in [(ProxyKind::Nginx, 300_000), (ProxyKind::Haproxy, 3_000)] {
        let (mut first, second) = (Server::http(&[]), Server::http(&[]));
        let Some(proxy) = kind.start_for(&[&first, &second]) else { continue };
        // The kernel still accepts connections and data for the stopped server, but no response is sent.
        first.signal(Signal::STOP);
        let answered = AtomicUsize::new(0);
        let put = |number: u64| {
            let message = "m".repeat(length) + &number.to_string();
            let path = format!("/messages/{}", digest(message.as_bytes()));
            let request = if number % 4 < 2 {
                post_request(&message, "").into()
            } else {
                build_request("PUT", &path, "", &message)
            };
            let response = proxy.client().call_bytes(request);
            answered.fetch_add(1, Ordering::Relaxed);
            assert!(
                [200, 201].contains(&response.status),
                "{number} {}{}\n{}",
                response.head,
                response.text(),
                proxy.output()
            );
        };
        thread::scope(|scope| {
            for number in 0..8 {
                let put = &put;
                scope.spawn(move || put(number));
            }
            wait_until("the second server has answered its half", || answered.load(Ordering::Relaxed) >= 4);
            first.signal(Signal::KILL);
            first.wait_exit();
        });
        assert_eq!(answered.into_inner(), 8);
    }
}

#[test]
fn an_unavailable_upstream_gives_json_with_retry_after() {
    for kind in PROXY_KINDS {
        let mut server = Server::http(&[]);
        let Some(proxy) = kind.start_for(&[&server]) else { continue };
        server.signal(Signal::TERM);
        server.wait_exit();
        let response = proxy.client().call(&format!("GET /messages/{FOO} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!((response.status, response.text()), (503, "{\"err_msg\": \"No server answers\"}"), "{kind:?}");
        assert_eq!(
            (response.header("Content-Type"), response.header("Retry-After")),
            (Some("application/json"), Some("1"))
        );
    }
}

#[test]
fn commands_give_the_same_output_through_a_proxy() {
    let numbers: String = (0..3000).map(|number| format!("{number}\n")).collect();
    let long = pseudorandom_bytes(900_000, 1);
    let local = Sandbox::new();
    let sandbox = Sandbox::new();
    let tokens = token_file(&sandbox);
    std::fs::write(&tokens, format!("all read,write,list,rm {}\n", digest(FULL_ACCESS_TOKEN.as_bytes()))).unwrap();
    let server = Server::start(sandbox, &["--http", "--token-file", &tokens]);
    for kind in PROXY_KINDS {
        let Some(proxy) = kind.start_for(&[&server]) else { continue };
        let commands: [(&[&str], &[u8]); 8] = [
            (&["put", "--lines"], numbers.as_bytes()),
            (&["put"], &long),
            (&["get", &digest(&long)], b""),
            (&["has", FOO, &digest(b"1")], b""),
            (&["list"], b""),
            (&["export"], b""),
            (&["get", FOO], b""),
            (&["rm", &digest(&long)], b""),
        ];
        let run = |mut command: assert_cmd::Command, stdin: &[u8]| {
            let output = command.write_stdin(stdin).output().unwrap();
            (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
        };
        for (args, stdin) in commands {
            let mut proxied = local.sha_api(args);
            proxied.env_remove("SHA_API_STORE").env("SHA_API_SERVER", proxy.url());
            proxied.env("SHA_API_CACERT", proxy.cert()).env("SHA_API_TOKEN", FULL_ACCESS_TOKEN);
            assert!(run(proxied, stdin) == run(local.sha_api(args), stdin), "{kind:?} {args:?}\n{}", proxy.output());
        }
    }
}

/// Returns the number after the first `name` in the configuration in `deploy/`.
fn config_number(kind: ProxyKind, name: &str) -> u64 {
    let file = std::fs::read_to_string(kind.config_path()).unwrap();
    let after = file.split_once(name).unwrap_or_else(|| panic!("{name}")).1;
    after.trim_start().split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn proxies_close_idle_connections_before_the_server() {
    let check = Sandbox::new().sha_api(["serve", "--check"]).assert().code(0);
    let settings = String::from_utf8(check.get_output().stdout.clone()).unwrap();
    let default = |name: &str| -> u64 {
        let line = settings.lines().find_map(|line| line.strip_prefix(&format!("{name} = "))).unwrap();
        line.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    assert!(config_number(ProxyKind::Nginx, "keepalive_timeout") < default("idle-timeout"));
    assert!(config_number(ProxyKind::Nginx, "keepalive_requests") < default("max-requests"));
    assert!(config_number(ProxyKind::Haproxy, "max-reuse") < default("max-requests"));
    assert!(
        config_number(ProxyKind::Haproxy, "default-server check inter 1s rise 1 max-reuse 900 maxconn")
            < default("max-connections")
    );
    assert!(config_number(ProxyKind::Nginx, "client_max_body_size") > default("max-body"), "both in MiB");
}

#[test]
fn neither_proxy_warns_about_its_configuration() {
    let server = Server::http(&[]);
    for kind in PROXY_KINDS {
        let Some(proxy) = kind.start_for(&[&server]) else { continue };
        assert!(!proxy.output().to_lowercase().contains("warn"), "{}", proxy.output());
    }
}
