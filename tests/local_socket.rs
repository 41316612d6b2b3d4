//! The local socket grants all scopes without a token to the owner of the store, and refuses all other users.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::thread;

use rustix::process::Signal;

use crate::common::server::{Server, build_request, wait_until};
use crate::common::{FOO, Sandbox, digest};

const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";

#[test]
fn the_socket_is_accessible_to_the_owner_only_and_needs_no_token() {
    let sandbox = Sandbox::new();
    let tokens = sandbox.write_file("tokens", format!("a read {}\n", digest(b"secret")).as_bytes());
    let server = Server::start(sandbox, &["--token-file", tokens.to_str().unwrap(), "--metrics-listen", "127.0.0.1:0"]);
    let metadata = fs::symlink_metadata(server.wait_local_socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let foo = format!("/messages/{FOO}");
    let mut client = server.local_client();
    for (method, path, fields, body, status) in [
        ("PUT", foo.as_str(), "", "foo", 201),
        ("GET", "/messages", "", "", 200),
        ("GET", "/stats", "", "", 200),
        ("GET", "/metrics", "", "", 200),
        ("GET", &foo, "", "", 200),
        ("POST", "/messages/remove", NDJSON, &format!("{{\"digest\": \"{FOO}\"}}"), 200),
        ("GET", &foo, "", "", 404),
        ("DELETE", &foo, "", "", 404),
        ("GET", "/livez", "", "", 200),
    ] {
        let response = client.call_bytes(build_request(method, path, fields, body));
        assert_eq!((response.status, response.header("Connection")), (status, Some("keep-alive")), "{method} {path}");
    }
}

#[test]
fn disabled_operations_are_disabled_on_the_local_socket() {
    let foo = format!("/messages/{FOO}");
    for (flag, put, delete) in [("--read-only", 405, 405), ("--append-only", 201, 405)] {
        let server = Server::http(&[flag]);
        let status =
            |method, path, body| server.local_client().call_bytes(build_request(method, path, "", body)).status;
        assert_eq!(status("PUT", foo.as_str(), "foo"), put, "{flag}");
        assert_eq!(status("DELETE", &foo, ""), delete, "{flag}");
        assert_eq!(status("GET", "/stats", ""), 200, "{flag}");
    }
}

#[test]
fn two_hundred_local_clients_are_answered_while_the_public_listener_is_full() {
    let server = Server::http(&["--max-connections", "2"]);
    let _public_connections = [server.client(), server.client()];
    let (path, barrier) = (server.wait_local_socket(), Barrier::new(200));
    thread::scope(|scope| {
        for number in 0..200 {
            let (server, barrier) = (&server, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let message = format!("local {number}");
                let path = format!("/messages/{}", digest(message.as_bytes()));
                let mut client = server.local_client();
                assert_eq!(client.call_bytes(build_request("PUT", &path, "", &message)).status, 201);
                assert_eq!(
                    client.call_bytes(build_request("GET", &path, "", "")).text(),
                    format!("{{\"message\": \"{message}\"}}")
                );
            });
        }
    });
    assert!(path.exists());
}

#[test]
fn local_connections_over_the_limit_wait() {
    let server = Server::http(&[]);
    let request = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut connected: Vec<_> = (0..256).map(|_| server.local_client()).collect();
    for client in &mut connected {
        assert_eq!(client.call(request).status, 200);
    }
    let mut queued: Vec<_> =
        (0..3).map(|_| UnixStream::connect(server.sandbox.store().join("sha-api.sock")).unwrap()).collect();
    for stream in &mut queued {
        std::io::Write::write_all(stream, b"GET /livez HTTP/1.0\r\n\r\n").unwrap();
        stream.set_nonblocking(true).unwrap();
        assert!(std::io::Read::read(stream, &mut [0]).is_err(), "the connection is neither answered nor closed");
        stream.set_nonblocking(false).unwrap();
    }
    drop(connected);
    for stream in &mut queued {
        let mut response = String::new();
        std::io::Read::read_to_string(stream, &mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    }
}

#[test]
fn a_message_above_the_body_limit_is_accepted_on_the_local_socket_only() {
    let server = Server::http(&["--max-message", "4MiB", "--max-body", "1KiB"]);
    let message = vec![0xff; 4 << 20];
    let path = format!("/messages/{}", digest(&message));
    assert_eq!(server.local_client().call_bytes(build_request("PUT", &path, "", &message)).status, 201);
    let got = server.local_client().call_bytes(build_request("GET", &path, "Accept: application/octet-stream\r\n", ""));
    assert!(got.body == message);
    let oversized = vec![0xff; (4 << 20) + 1];
    let path = format!("/messages/{}", digest(&oversized));
    assert_eq!(server.local_client().call_bytes(build_request("PUT", &path, "", &oversized)).status, 413);
    let mut public = server.client();
    public.send(format!("PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n"));
    assert_eq!(public.read_response().status, 413);
}

#[test]
fn a_stale_socket_is_replaced_and_the_socket_is_removed_on_exit() {
    let mut server = Server::http(&[]);
    let path = server.wait_local_socket();
    server.signal(Signal::KILL);
    server.wait_exit();
    assert!(path.exists() && UnixStream::connect(&path).is_err());
    let mut restarted = Server::start(std::mem::replace(&mut server.sandbox, Sandbox::new()), &["--http"]);
    assert_eq!(restarted.local_client().call("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    restarted.signal(Signal::TERM);
    assert_eq!(restarted.wait_exit().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_server_that_waits_for_the_lock_leaves_the_socket_of_the_owner() {
    let first = Server::http(&[]);
    let path = first.wait_local_socket();
    let sandbox = Sandbox::new();
    std::os::unix::fs::symlink(first.sandbox.store(), sandbox.store()).unwrap();
    let mut second = Server::spawn(sandbox, &["--http", "--lock-timeout", "1h"]);
    second.signal(Signal::TERM);
    assert_eq!(second.wait_exit().code(), Some(0));
    assert!(path.exists());
    assert_eq!(first.local_client().call("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
}

#[test]
fn a_store_with_a_long_path_has_a_local_socket() {
    let sandbox = Sandbox::new();
    let (long, name) = (sandbox.dir().join("d".repeat(120)), "sha-api.sock");
    fs::create_dir(&long).unwrap();
    let server = Server::start(sandbox, &["--http", "--store", long.join("store").to_str().unwrap()]);
    let link = server.sandbox.store();
    std::os::unix::fs::symlink(long.join("store"), &link).unwrap();
    assert_eq!(server.local_client().call("GET /stats HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    server.signal(Signal::TERM);
    wait_until("the socket is removed", || !long.join("store").join(name).exists());
}

#[test]
fn the_access_log_names_local_clients_local() {
    let server = Server::http(&["--access-log-format", "combined"]);
    server.local_client().call("GET /stats HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the line is written", || server.read_stderr().contains("local - - ["));
    let log = server.read_stderr();
    let line = log.lines().find(|line| line.starts_with("local")).unwrap();
    assert!(line.contains("\"GET /stats HTTP/1.1\" 200 "), "{line}");
}

#[test]
fn local_requests_in_flight_are_finished_on_shutdown() {
    let mut server = Server::http(&["--idle-timeout", "1h"]);
    let (mut busy, mut idle) = (server.local_client(), server.local_client());
    assert_eq!(idle.call("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    busy.send(format!("PUT /messages/{FOO} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"));
    assert_eq!(busy.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    server.signal(Signal::TERM);
    assert_eq!(idle.read_until_close(), "");
    busy.send("foo");
    let response = busy.read_response();
    assert_eq!((response.status, response.header("Connection")), (201, Some("close")));
    drop(busy);
    assert_eq!(server.wait_exit().code(), Some(0));
    server.sandbox.sha_api(["get", FOO]).assert().success().stdout("foo");
}
