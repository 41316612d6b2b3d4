//! No malformed or hostile request stops the server, executes another request, or permanently occupies a resource.

use std::io::{Read, Write};
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::common::Sandbox;
use crate::common::server::{Server, post_request, wait_until};

const JSON: &str = "Content-Type: application/json\r\n";

/// Returns a request that follows a malformed one and must not be executed, and the path of its message.
fn smuggled_request(number: usize) -> (String, String) {
    let message = format!("smuggled {number}");
    let digest = sha_api::digest::Digest::compute(message.as_bytes());
    (post_request(&message, ""), format!("/messages/{digest}"))
}

fn post_with_headers(fields: &str) -> String {
    format!("POST /messages HTTP/1.1\r\nHost: a\r\n{JSON}{fields}\r\n\r\n")
}

/// Returns malformed requests and the expected status of each.
fn malformed_requests() -> Vec<(String, u16)> {
    let mut requests: Vec<(String, u16)> = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length:",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "X: a\nContent-Length: 0",
        "X: a\rContent-Length: 0",
        "X: a\0b",
        ": b",
        "\u{e9}: b",
        "Host: b",
    ]
    .iter()
    .map(|fields| (post_with_headers(fields), 400))
    .collect();
    for bad in ["+5\r\n", "0x5\r\n", "5 \r\n", "g\r\n", "5\n", "-1\r\n", "\r\n", "3\r\nfooX\r\n", "3\r\nfoo\n0\r\n\r\n"]
    {
        requests.push((post_with_headers("Transfer-Encoding: chunked") + bad, 400));
    }
    requests.push((post_with_headers("Transfer-Encoding: chunked") + "ffffffffffffffff\r\n", 413));
    requests.push((post_with_headers("Transfer-Encoding: chunked") + "fffffffffffffffff\r\n", 400));
    requests.push((post_with_headers("Content-Length: 70368744177664"), 413));
    requests.push((post_with_headers("Content-Length: 18446744073709551616"), 413));
    requests.push((post_with_headers("Expect: 200-maybe\r\nContent-Length: 0"), 417));
    requests.push((post_with_headers(&vec!["X: y"; 200].join("\r\n")), 431));
    requests.push((post_with_headers(&format!("X: {}", "y".repeat(20_000))), 431));
    requests.push((format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9_000)), 414));
    requests.push(("POST /messages HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400));
    requests.push(("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505));
    requests.push((post_with_headers("Transfer-Encoding: chunked") + &"0".repeat(40_000), 400));
    requests.push((post_with_headers("Transfer-Encoding: chunked") + "5;" + &"x".repeat(40_000), 400));
    requests.push((post_with_headers("Transfer-Encoding: chunked") + "0\r\nX: " + &"y".repeat(40_000), 431));
    requests.push((post_with_headers("Transfer-Encoding: chunked") + "0\r\n" + &"X: y\r\n".repeat(200), 431));
    requests.push((post_with_headers("Transfer-Encoding: chunked") + "0\r\nX : y\r\n\r\n", 400));
    requests.push((post_with_headers(&vec!["X: y"; 20_000].join("\r\n")), 431));
    requests.push((format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(100_000)), 414));
    for (line, status) in [
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/3.0", 505),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/0.9", 505),
        ("GET /", 400),
        ("GET / FTP/1.1", 400),
        ("GET http://a/livez HTTP/1.1", 400),
        ("CONNECT a:443 HTTP/1.1", 400),
        ("\r\nGET /livez HTTP/1.1", 400),
        ("GET  /livez HTTP/1.1", 400),
    ] {
        requests.push((format!("{line}\r\nHost: a\r\n\r\n"), status));
    }
    requests.push(("GET /livez HTTP/1.1\r\n\r\n".into(), 400));
    requests.push(("\u{16}\u{3}\u{1}\u{2}".into(), 400));
    requests
}

#[test]
fn a_malformed_request_is_rejected_once_and_nothing_after_it_is_executed() {
    for server in [Server::http(&[]), Server::https(&[])] {
        assert_rejected_once(&server);
    }
}

fn assert_rejected_once(server: &Server) {
    server.assert_healthy();
    let before = server.resource_usage();
    for (number, (bytes, status)) in malformed_requests().into_iter().enumerate() {
        let (smuggled, path) = smuggled_request(number);
        let mut client = server.client();
        client.try_send(format!("{bytes}{smuggled}"));
        let received = client.read_until_close();
        assert!(received.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes:?}: {received}");
        assert_eq!(received.matches("HTTP/1.1 ").count(), 1, "{bytes:?}: {received}");
        assert!(
            received.contains("Connection: close\r\n") && received.contains("{\"err_msg\": \""),
            "{bytes:?}: {received}"
        );
        assert_eq!(server.get(&path).status, 404, "{bytes:?}");
        server.assert_healthy();
    }
    server.wait_resources_released(before);
}

#[test]
fn an_invalid_body_is_rejected_and_the_connection_stays_open() {
    let server = Server::http(&[]);
    let deep = format!("{{\"message\": \"a\", \"b\": {}", "[".repeat(100_000));
    let mut client = server.client();
    for body in [
        deep.as_str(),
        "",
        "[]",
        r#"{"message": "\ud800"}"#,
        r#"{"message": "a", "message": "b"}"#,
        "\u{feff}{\"message\": \"a\"}",
        r#"{"message": "a"} b"#,
    ] {
        let response = client.call(&(post_with_headers(&format!("Content-Length: {}", body.len())) + body));
        assert_eq!(response.status, 400, "{}", response.text());
    }
    for path in ["/messages/%2e%2e/livez", "/messages/../livez", "/%6civez", "/messages/%00", "//livez", "/livez/"] {
        let response = client.call(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(response.status, 404, "{path}");
    }
    for method in ["BREW", "TRACE", "get", "OPTIONS"] {
        assert_eq!(client.call(&format!("{method} /messages HTTP/1.1\r\nHost: a\r\n\r\n")).status, 405, "{method}");
    }
    server.assert_healthy();
}

#[test]
fn an_error_response_reaches_a_client_that_is_still_sending() {
    for server in [Server::http(&["--max-body", "1000"]), Server::https(&["--max-body", "1000"])] {
        let mut client = server.client();
        client.send(post_with_headers("Content-Length: 2000000"));
        for _ in 0..20 {
            // `send` panics if the server closes the connection before the client has read the response.
            client.send(vec![b'x'; 100_000]);
        }
        let response = client.read_response();
        assert_eq!((response.status, response.header("Connection")), (413, Some("close")));
        server.assert_healthy();
    }
}

#[test]
fn a_burst_of_connections_is_answered_and_released() {
    let server = Server::http(&["--max-connections-per-address", "200"]);
    let path = server.put("foo");
    let before = server.resource_usage();
    for _ in 0..3 {
        let mut clients: Vec<_> = (0..100).map(|_| server.client()).collect();
        for round in 0..3 {
            for client in &mut clients {
                client.send(format!("GET {path}?{round} HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"x\"\r\n\r\n"));
            }
            for client in &mut clients {
                assert_eq!(client.read_response().text(), r#"{"message": "foo"}"#);
            }
        }
    }
    server.wait_resources_released(before);
}

#[test]
fn slow_heads_and_bodies_get_408_and_silent_connections_are_closed() {
    let flags = ["--head-timeout", "200ms", "--body-timeout", "200ms", "--idle-timeout", "200ms"];
    let server = Server::http(&flags);
    let before = server.resource_usage();
    for (bytes, message) in [
        ("GET /livez HTTP/1.1\r\nHost:".to_owned(), "Request head took too long"),
        (post_with_headers("Content-Length: 5") + "f", "Request body took too long"),
        (post_with_headers("Transfer-Encoding: chunked") + "5\r\nf", "Request body took too long"),
    ] {
        let mut client = server.client();
        client.send(&bytes);
        let received = client.read_until_close();
        assert!(received.starts_with("HTTP/1.1 408 ") && received.contains(message), "{bytes}: {received}");
    }
    assert_eq!(server.client().read_until_close(), "", "a client that sends nothing");
    let mut client = server.client();
    assert_eq!(client.call("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    assert_eq!(client.read_until_close(), "", "a client that sends nothing after its first request");
    server.wait_resources_released(before);
    server.assert_healthy();
}

#[test]
fn a_head_that_is_sent_slowly_is_cut_off() {
    let server = Server::http(&["--head-timeout", "300ms"]);
    let mut client = server.client();
    client.send("GET /livez HTTP/1.1\r\n");
    let mut tcp = server.tcp_stream();
    // The head timeout ends the request although the client never pauses.
    wait_until("the client is disconnected", || !client.try_send("X: y\r\n"));
    tcp.write_all(b"GET /livez HTTP/1.0\r\n\r\n").unwrap();
    let mut response = String::new();
    tcp.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}

#[test]
fn a_body_above_the_minimum_rate_may_exceed_the_body_timeout() {
    let server = Server::http(&["--body-timeout", "300ms", "--min-rate", "10B"]);
    let mut client = server.client();
    client.send(post_with_headers("Transfer-Encoding: chunked") + "d\r\n{\"message\": \"\r\n");
    let mut stalled = server.client();
    stalled.send(post_with_headers("Content-Length: 5"));
    let stalled = thread::spawn(move || stalled.read_response().status);
    // The body timeout of `stalled` ends after that of `client`, which began first.
    wait_until("the stalled body is cut off", || {
        client.send("5\r\nxxxxx\r\n");
        stalled.is_finished()
    });
    assert_eq!(stalled.join().unwrap(), 408);
    client.send("2\r\n\"}\r\n0\r\n\r\n");
    assert_eq!(client.read_response().status, 200);
}

#[test]
fn a_client_that_does_not_read_its_response_is_disconnected() {
    let server = Server::http(&["--write-timeout", "300ms", "--max-body", "16MiB", "--max-requests", "100"]);
    let path = server.put(&"x".repeat(12 << 20));
    let before = server.resource_usage();
    let mut clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    server.wait_resources_released(before);
    server.assert_healthy();
    drop(clients);
}

#[test]
fn a_silent_or_invalid_tls_client_is_disconnected() {
    let server = Server::https(&["--handshake-timeout", "300ms"]);
    server.assert_healthy();
    let before = server.resource_usage();
    let mut silent = server.plain_client();
    let mut plain = server.plain_client();
    plain.send("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n");
    drop(server.tcp_stream());
    assert_eq!(silent.read_until_close(), "");
    let mut invalid = server.plain_client();
    invalid.send(b"\x16\x03\x01\xff\xff\x01");
    let received = invalid.read_until_close();
    // A TLS record of type 21 is an alert.
    assert!(received.is_empty() || received.starts_with('\x15'), "{received:?}");
    drop((silent, plain, invalid));
    server.wait_resources_released(before);
    server.assert_healthy();
}

#[test]
fn connections_over_the_limit_get_503_until_another_closes() {
    for flags in [["--max-connections", "3"], ["--max-connections-per-address", "3"]] {
        let server = Server::http(&flags);
        let request = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut accepted = Vec::new();
        wait_until("three connections are accepted", || {
            let mut client = server.client();
            if client.call(request).status == 200 {
                accepted.push(client);
            }
            accepted.len() == 3
        });
        let mut rejected = server.client();
        let received = rejected.read_until_close();
        assert!(
            received.starts_with("HTTP/1.1 503 ") && received.ends_with("{\"err_msg\": \"Too many connections\"}"),
            "{received}"
        );
        for client in &mut accepted {
            assert_eq!(client.call(request).status, 200);
        }
        accepted.pop();
        wait_until("a connection is accepted again", || server.client().call(request).status == 200);
    }
}

#[test]
fn the_server_recovers_from_descriptor_exhaustion() {
    let server = Server::http(&[]);
    let (_, used) = server.resource_usage();
    let limit = Rlimit { current: Some(used as u64 + 2), ..getrlimit(Resource::Nofile) };
    let previous = prlimit(Some(server.pid()), Resource::Nofile, limit).unwrap();
    let connections: Vec<_> = (0..10).map(|_| server.tcp_stream()).collect();
    wait_until("descriptors are exhausted", || server.read_stderr().contains("cannot accept connections: "));
    prlimit(Some(server.pid()), Resource::Nofile, previous).unwrap();
    drop(connections);
    server.assert_healthy();
}

#[test]
fn a_too_low_file_limit_is_an_error_that_names_the_flag() {
    let sandbox = Sandbox::new();
    let script = format!(
        "ulimit -n 500; exec {} serve --http --listen 127.0.0.1:0 --max-connections 400",
        env!("CARGO_BIN_EXE_sha-api")
    );
    let output =
        std::process::Command::new("sh").args(["-c", &script]).env("SHA_API_STORE", sandbox.store()).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), b"".as_slice()));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("--max-connections 400") && stderr.contains("500"), "{stderr}");
}
