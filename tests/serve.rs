//! Life cycle of a server, and the basic behaviour of its HTTP and HTTPS endpoints: messages round-trip unchanged,
//! certificates are reloaded, and a shutdown finishes requests in flight.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::Signal;

use crate::common::server::{Server, post_request, wait_until};
use crate::common::{FOO, Sandbox, command_without_proxy, has_tool};

#[test]
fn a_message_put_over_https_is_returned_for_its_digest_in_either_case() {
    let server = Server::https(&[]);
    let mut client = server.client();
    let put = client.call(&post_request("foo", ""));
    assert_eq!((put.status, put.text()), (200, format!("{{\"digest\": \"{FOO}\"}}").as_str()));
    assert_eq!(put.header("Content-Type"), Some("application/json"));
    assert_eq!(put.header("Location"), Some(format!("/messages/{FOO}").as_str()));
    for digest in [FOO.to_owned(), FOO.to_uppercase(), FOO.to_owned()] {
        let got = client.call(&format!("GET /messages/{digest} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!((got.status, got.text()), (200, r#"{"message": "foo"}"#));
        assert_eq!(got.header("Cache-Control"), Some("public, max-age=31536000, immutable"));
        assert_eq!(got.header("ETag"), Some(format!("\"{FOO}-json\"").as_str()));
        assert!(got.header("Date").unwrap().ends_with(" GMT"));
    }
}

#[test]
fn error_texts_match_the_python_ancestor() {
    let server = Server::http(&[]);
    let absent = server.get(&format!("/messages/{FOO}"));
    assert_eq!((absent.status, absent.text()), (404, r#"{"err_msg": "Message not found"}"#));
    let text = "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nfoo";
    let response = server.client().call(text);
    assert_eq!((response.status, response.text()), (400, r#"{"err_msg": "Invalid content type, expected JSON"}"#));
    let response = server.client().call(&text.replace("text/plain", "application/json"));
    assert_eq!(
        (response.status, response.text()),
        (400, r#"{"err_msg": "Invalid JSON request, no message key found"}"#)
    );
    let response = server.client().call("DELETE /messages HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((response.status, response.header("Allow")), (405, Some("GET, HEAD, POST")));
    assert_eq!(server.get("/").text(), r#"{"err_msg": "Not found"}"#);
}

#[test]
fn octet_stream_clients_get_the_exact_bytes() {
    let sandbox = Sandbox::new();
    let bytes = b"\xff\0\r\n\r\n\xfe";
    let put = sandbox.sha_api(["put"]).write_stdin(bytes).output().unwrap();
    let digest = String::from_utf8(put.stdout).unwrap();
    let server = Server::start(sandbox, &["--http"]);
    let path = format!("/messages/{}", digest.trim());
    assert_eq!(server.get(&path).status, 406);
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept: application/octet-stream\r\n\r\n");
    let mut client = server.client();
    for _ in 0..2 {
        let got = client.call(&request);
        assert_eq!((got.status, got.body.as_slice()), (200, bytes.as_slice()));
        assert!(got.header("Repr-Digest").unwrap().starts_with("sha-256=:"));
    }
    assert_eq!(server.get(&path).status, 406, "the cached octet-stream response is not used for a JSON client");
}

#[test]
fn each_cached_representation_is_served_by_accept_header() {
    let server = Server::http(&[]);
    let path = server.put("foo");
    let mut client = server.client();
    for _ in 0..2 {
        for (accept, body) in [("application/json", r#"{"message": "foo"}"#), ("application/octet-stream", "foo")] {
            let got = client.call(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n"));
            assert_eq!((got.text(), got.header("Content-Type")), (body, Some(accept)));
        }
    }
}

#[test]
fn a_long_message_round_trips_over_tls_and_chunked() {
    let server = Server::https(&[]);
    let message = "x".repeat(1_000_000);
    let path = server.put(&message);
    assert_eq!(server.get(&path).body.len(), message.len() + 15);
    let body = format!("{{\"message\": \"{}\"}}", "y".repeat(100_000));
    let mut request = "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
        Transfer-Encoding: chunked\r\n\r\n"
        .to_owned();
    for chunk in body.as_bytes().chunks(999) {
        let text = std::str::from_utf8(chunk).unwrap();
        request.extend([&format!("{:x};a=b\r\n", chunk.len()), text, "\r\n"]);
    }
    request.push_str("0\r\nTrailer: x\r\n\r\n");
    let response = server.client().call(&request);
    assert_eq!(server.get(response.header("Location").unwrap()).text(), body);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::http(&[]);
    let paths: Vec<_> = ["a", "b", "c"].iter().map(|message| server.put(message)).collect();
    let mut client = server.client();
    let requests: Vec<_> = paths.iter().map(|path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests.concat());
    for message in ["a", "b", "c"] {
        assert_eq!(client.read_response().text(), format!("{{\"message\": \"{message}\"}}"));
    }
}

#[test]
fn head_and_matching_etags_get_no_body() {
    let server = Server::http(&[]);
    let path = server.put("foo");
    let mut client = server.client();
    for _ in 0..2 {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Content-Length: 18\r\n"), "{head}");
        let got = client.call(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(got.text(), r#"{"message": "foo"}"#);
    }
    let conditional_get = format!("GET {path} HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"{FOO}-json\"\r\n\r\n");
    let response = client.call(&conditional_get);
    assert_eq!((response.status, response.header("Content-Length")), (304, None));
    assert_eq!(client.call(&conditional_get).status, 304);
}

#[test]
fn an_http_1_0_client_is_answered_and_disconnected() {
    let server = Server::http(&[]);
    let mut client = server.client();
    client.send("GET /livez HTTP/1.0\r\n\r\n");
    let response = client.read_until_close();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.contains("Connection: close\r\n"), "{response}");
}

#[test]
fn continue_is_sent_only_for_acceptable_requests() {
    let server = Server::http(&["--max-body", "1000"]);
    let head = |fields: &str| format!("POST /messages HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{fields}\r\n\r\n");
    let mut client = server.client();
    client.send(head("Content-Type: application/json\r\nContent-Length: 18"));
    assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(r#"{"message": "foo"}"#);
    assert_eq!(client.read_response().status, 200);
    for (fields, status) in [
        ("Content-Type: text/plain\r\nContent-Length: 18", "400"),
        ("Content-Type: application/json\r\nContent-Length: 1001", "413"),
        ("Content-Type: application/json\r\nContent-Length: 18\r\nExpect: x", "417"),
    ] {
        let mut client = server.client();
        client.send(head(fields));
        let response = client.read_until_close();
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    }
}

#[test]
fn a_connection_is_closed_after_max_requests() {
    let server = Server::http(&["--max-requests", "2"]);
    let mut client = server.client();
    let request = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(client.call(request).header("Connection"), Some("keep-alive"));
    assert_eq!(client.call(request).header("Connection"), Some("close"));
    assert_eq!(client.read_until_close(), "");
}

#[test]
fn curl_accepts_the_self_signed_certificate_as_its_root() {
    if !has_tool("curl") {
        return;
    }
    let server = Server::https(&[]);
    let cert = server.sandbox.store().join("tls/cert.pem");
    let url = format!("https://localhost:{}/livez", server.address.port());
    let curl = command_without_proxy("curl").args(["-sS", "--cacert"]).arg(cert).arg(url).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&curl.stdout), r#"{"status": "live"}"#, "{:?}", curl.stderr);
}

#[test]
fn the_self_signed_pair_is_created_once_with_a_private_key_file_and_its_fingerprint_printed() {
    let mut server = Server::https(&[]);
    let tls = server.sandbox.store().join("tls");
    let mode = |name: &str| fs::metadata(tls.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("cert.pem"), mode("key.pem")), (0o700, 0o644, 0o600));
    let cert = fs::read(tls.join("cert.pem")).unwrap();
    let stderr = server.read_stderr();
    assert!(stderr.contains("certificate fingerprint SHA-256 "), "{stderr}");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    let restarted = Server::start(std::mem::replace(&mut server.sandbox, Sandbox::new()), &[]);
    assert_eq!(fs::read(restarted.sandbox.store().join("tls/cert.pem")).unwrap(), cert);
    assert_eq!(restarted.read_stderr(), stderr);
}

#[test]
fn a_new_certificate_takes_effect_on_sighup_and_an_invalid_one_does_not() {
    let other = Server::https(&[]);
    let server = Server::https(&[]);
    let (tls_dir, other_tls_dir) = (server.sandbox.store().join("tls"), other.sandbox.store().join("tls"));
    let before = fs::read(tls_dir.join("cert.pem")).unwrap();
    fs::write(tls_dir.join("cert.pem"), "nonsense").unwrap();
    server.signal(Signal::HUP);
    wait_until("the invalid certificate is reported", || {
        server.read_stderr().contains("cannot reload the certificate: ")
    });
    fs::write(tls_dir.join("cert.pem"), before).unwrap();
    server.assert_healthy();
    fs::copy(other_tls_dir.join("key.pem"), tls_dir.join("key.pem")).unwrap();
    fs::copy(other_tls_dir.join("cert.pem"), tls_dir.join("cert.pem")).unwrap();
    server.signal(Signal::HUP);
    wait_until("the certificate is reloaded", || server.read_stderr().contains("certificate reloaded: "));
    server.assert_healthy();
}

#[test]
fn sigterm_finishes_requests_closes_idle_connections_and_exits_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::https(&["--idle-timeout", "1h", "--handshake-timeout", "1h"]);
        let mut idle = server.client();
        assert_eq!(idle.call("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
        let mut silent = server.tcp_stream();
        let mut busy = server.client();
        let request = post_request("in flight", "Expect: 100-continue\r\n");
        let (head, body) = request.split_at(request.find("\r\n\r\n").unwrap() + 4);
        busy.send(head);
        assert_eq!(busy.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
        server.signal(signal);
        assert_eq!(idle.read_until_close(), "");
        assert_eq!(std::io::Read::read(&mut silent, &mut [0]).unwrap_or(0), 0);
        assert!(TcpStream::connect(server.address).is_err());
        busy.send(body);
        let response = busy.read_response();
        assert_eq!((response.status, response.header("Connection")), (200, Some("close")));
        drop(busy);
        assert_eq!(server.wait_exit().code(), Some(0));
        let digest = response.header("Location").unwrap().strip_prefix("/messages/").unwrap().to_owned();
        server.sandbox.sha_api(["get", &digest]).assert().success().stdout("in flight");
    }
}

#[test]
fn a_second_sigterm_or_the_drain_timeout_ends_the_server() {
    for (flags, signals, cause) in [
        (&["--http"][..], 2, "second signal received"),
        (&["--http", "--drain-timeout", "100ms"], 1, "drain timeout reached"),
    ] {
        let mut server = Server::start(Sandbox::new(), flags);
        let mut busy = server.client();
        busy.send(
            "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nContent-Type: application/json\r\n\
            Expect: 100-continue\r\n\r\n",
        );
        assert_eq!(busy.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
        server.signal(Signal::TERM);
        wait_until("the server refuses new connections", || TcpStream::connect(server.address).is_err());
        if signals == 2 {
            server.signal(Signal::TERM);
        }
        assert_eq!(server.wait_exit().code(), Some(0));
        let aborted = format!("{cause}; aborting requests in flight");
        assert!(server.read_stderr().contains(&aborted), "{}", server.read_stderr());
    }
}

#[test]
fn log_level_selects_the_events_on_stderr() {
    for (flags, reported) in [
        (&[][..], "sha-api: certificate fingerprint SHA-256 "),
        (&["--log-level", "warn"], ""),
        (&["--log-level", "debug"], "sha-api: store opened\n"),
    ] {
        let server = Server::start(Sandbox::new(), flags);
        let said = server.read_stderr();
        assert!(said.contains(reported) && (said.is_empty() == reported.is_empty()), "{flags:?}: {said}");
    }
}

#[test]
fn acknowledged_messages_survive_a_kill() {
    let mut server = Server::http(&[]);
    let path = server.put("acknowledged");
    server.signal(Signal::KILL);
    server.wait_exit();
    let restarted = Server::start(std::mem::replace(&mut server.sandbox, Sandbox::new()), &["--http"]);
    assert_eq!(restarted.get(&path).text(), r#"{"message": "acknowledged"}"#);
}

#[test]
fn a_ready_server_leaves_no_engine_socket_in_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sha-api"));
    command.env_clear().env("TMPDIR", dir.path()).env("SHA_API_STORE", dir.path().join("store"));
    command.args(["serve", "--http", "--listen", "127.0.0.1:0"]).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
    wait_until("the server is ready", || {
        let mut stream = TcpStream::connect(&address).unwrap();
        std::io::Write::write_all(&mut stream, b"GET /readyz HTTP/1.0\r\n\r\n").unwrap();
        let mut response = String::new();
        std::io::Read::read_to_string(&mut stream, &mut response).unwrap();
        response.starts_with("HTTP/1.1 200 ")
    });
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(names, ["store"]);
}

#[test]
fn the_server_is_live_but_not_ready_until_the_store_is_open() {
    let first = Server::http(&[]);
    let path = first.put("foo");
    let sandbox = Sandbox::new();
    std::os::unix::fs::symlink(first.sandbox.store(), sandbox.store()).unwrap();
    let second = Server::spawn(sandbox, &["--http"]);
    assert_eq!(second.get("/livez").status, 200);
    let response = second.get("/readyz");
    assert_eq!((response.status, response.header("Retry-After")), (503, Some("1")));
    let response = second.get(&path);
    assert_eq!((response.status, response.text()), (503, r#"{"err_msg": "The store is not open yet"}"#));
    first.signal(Signal::TERM);
    second.wait_ready();
    assert_eq!(second.get(&path).status, 200);
}

#[test]
fn an_unopenable_store_ends_the_server_with_3_and_the_reason() {
    let first = Server::http(&[]);
    let sandbox = Sandbox::new();
    std::os::unix::fs::symlink(first.sandbox.store(), sandbox.store()).unwrap();
    let mut second = Server::spawn(sandbox, &["--http", "--lock-timeout", "10ms"]);
    assert_eq!(second.wait_exit().code(), Some(3));
    assert!(second.read_stderr().contains("locked by "), "{}", second.read_stderr());
}

#[test]
fn the_server_listens_on_every_address_and_warns_beyond_loopback() {
    let server = Server::http(&["--listen", "0.0.0.0:0"]);
    server.assert_healthy();
    let stderr = server.read_stderr();
    assert_eq!(stderr.matches("anonymous clients of 0.0.0.0:").count(), 1, "{stderr}");
    assert!(!stderr.contains("127.0.0.1"), "{stderr}");
}

#[test]
fn only_http_1_1_is_negotiated_over_tls() {
    let server = Server::https(&[]);
    let request = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(server.tls_client(Some("http/1.1")).call(request).status, 200);
    assert!(!server.tls_client(Some("h2")).try_send(request));
    server.assert_healthy();
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let server = Server::http(&[]);
    let sandbox = Sandbox::new();
    let address = server.address.to_string();
    let output = sandbox.sha_api(["serve", "--http", "--listen", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("cannot listen on {address}: ")));
}
