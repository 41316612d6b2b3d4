//! Interfaces of a server for operators: access log, metrics, health checks, `--check`, systemd notification and
//! background verification.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use predicates::prelude::*;
use rustix::process::Signal;

use crate::common::scripted_server::closed_port;
use crate::common::server::{Server, TEST_TIMEOUT, post_request, wait_until};
use crate::common::{Sandbox, digest, has_tool};

#[test]
fn an_access_log_line_contains_no_message_token_or_full_digest() {
    let sandbox = Sandbox::new();
    let (log, tokens) = (sandbox.dir().join("log"), sandbox.dir().join("tokens"));
    let created = sandbox.sha_api(["token", "app", "--scope", "read,write", "--token-file"]).arg(&tokens).assert();
    let token = String::from_utf8(created.code(0).get_output().stdout.clone()).unwrap().trim().to_owned();
    let flags = ["--http", "--access-log", log.to_str().unwrap(), "--token-file", tokens.to_str().unwrap()];
    let server = Server::start(sandbox, &flags);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let response = server.client().call(&post_request("confidential", &format!("{bearer}X-Request-Id: mine.1\r\n")));
    assert_eq!((response.status, response.header("X-Request-Id")), (200, Some("mine.1")));
    let hash = digest(b"confidential");
    let get =
        |path: &str, fields: &str| server.client().call(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let response = get(&format!("/messages/{hash}?q={token}"), &bearer);
    let generated_id = response.header("X-Request-Id").unwrap().to_owned();
    let replaced_id = get("/messages/x", "X-Request-Id: a\" 200 b\r\n").header("X-Request-Id").unwrap().to_owned();
    assert!(!replaced_id.contains('"'));
    get(&format!("/{hash}/confidential"), "");
    assert!(server.client().call("nonsense\r\n\r\n").header("X-Request-Id").is_some());
    let lines = || fs::read_to_string(&log).unwrap();
    wait_until("five lines are logged", || lines().lines().filter(|line| !line.contains("/readyz")).count() == 5);
    let lines = lines();
    let assert_logged = |part: &str| assert!(lines.lines().any(|line| line.contains(part)), "{part}\n{lines}");
    assert_logged("127.0.0.1 - app [");
    assert_logged("\"POST /messages HTTP/1.1\" 200 78 ");
    assert_logged(&format!("\"GET /messages/{} HTTP/1.1\" 200 27 ", &hash[..8]));
    assert_logged("\"GET /messages/{digest} HTTP/1.1\" 401 ");
    assert_logged("\"GET other HTTP/1.1\" 404 ");
    assert!(lines.contains(" mine.1\n") && lines.contains(&format!(" {generated_id}\n")), "{lines}");
    for secret in [token.as_str(), "confidential", &hash[..9]] {
        assert!(!lines.contains(secret) && !server.read_stderr().contains(secret), "{secret}\n{lines}");
    }
}

#[test]
fn the_access_log_is_off_by_default_and_json_goes_to_stderr() {
    let server = Server::http(&["--access-log-format", "json"]);
    server.assert_healthy();
    wait_until("the request is logged", || server.read_stderr().contains(r#""method":"POST""#));
    let line = server.read_stderr().lines().find(|line| line.contains("POST")).unwrap().to_owned();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((line["status"].as_u64(), line["path"].as_str()), (Some(200), Some("/messages")));
    assert_eq!((line["peer"].as_str(), line["user"].is_null()), (Some("127.0.0.1"), true));
    let server = Server::http(&[]);
    server.assert_healthy();
    assert_eq!(server.read_stderr(), "");
}

#[test]
fn the_access_log_is_reopened_on_sighup() {
    let sandbox = Sandbox::new();
    let (log, old) = (sandbox.dir().join("log"), sandbox.dir().join("log.1"));
    let server = Server::start(sandbox, &["--http", "--access-log", log.to_str().unwrap()]);
    fs::rename(&log, &old).unwrap();
    server.signal(Signal::HUP);
    wait_until("a new log file is created", || log.exists());
    server.get("/livez");
    wait_until("the request is logged to the new file", || fs::read_to_string(&log).unwrap().contains("/livez"));
}

#[test]
fn metrics_count_requests_connections_messages_and_cache_hits() {
    let server = Server::http(&["--max-connections", "30"]);
    let path = server.put("foo");
    for _ in 0..3 {
        server.get(&path);
    }
    let value = |name: &str| {
        let text = server.get("/metrics").text().to_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("sha_api_{name} ")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{name}\n{text}")).parse::<u64>().unwrap()
    };
    assert_eq!(server.get("/metrics").header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(value(r#"requests_total{route="/messages",method="POST",status="200"}"#), 1);
    wait_until("all requests are counted", || {
        value(r#"requests_total{route="/messages/{digest}",method="GET",status="200"}"#) == 3
    });
    assert_eq!((value("cache_hits_total"), value("cache_misses_total")), (2, 1));
    assert_eq!((value("store_messages"), value("store_message_bytes")), (1, 3));
    assert!(value("store_disk_bytes") > 0);
    wait_until("the connection of this request is the only one", || value("connections") == 1);
    let mut streams: Vec<_> = (0..40).map(|_| server.tcp_stream()).collect();
    let mut start = [0; 12];
    streams[39].read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 503");
    drop(streams);
    wait_until("the refused connections are counted", || {
        let mut client = server.client();
        client.try_send("GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let text = client.read_until_close();
        let refused = text.lines().find_map(|line| line.strip_prefix("sha_api_connections_refused_total "));
        refused.is_some_and(|count| count != "0")
    });
}

#[test]
fn metrics_need_the_list_scope_or_a_separate_listener() {
    let sandbox = Sandbox::new();
    let tokens = sandbox.dir().join("tokens");
    let token = |name: &str, scope: &str| {
        let created = sandbox.sha_api(["token", name, "--scope", scope, "--token-file"]).arg(&tokens).assert().code(0);
        format!("Authorization: Bearer {}\r\n", String::from_utf8(created.get_output().stdout.clone()).unwrap().trim())
    };
    let (reader, lister) = (token("reader", "read"), token("lister", "list"));
    let request = |fields: &str| format!("GET /metrics HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let server = Server::start(sandbox, &["--http", "--token-file", tokens.to_str().unwrap()]);
    let status = |fields: &str| server.client().call(&request(fields)).status;
    assert_eq!((status(""), status(&reader), status(&lister)), (401, 403, 200));

    let server = Server::https(&["--metrics-listen", "127.0.0.1:0"]);
    assert_eq!(server.get("/metrics").status, 404);
    let stderr = server.read_stderr();
    let address = stderr.split_once("metrics on http://").unwrap().1.split_once("/metrics\n").unwrap().0;
    let get_from_metrics_listener = |path: &str| {
        let mut stream = std::net::TcpStream::connect(address.parse::<SocketAddr>().unwrap()).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        std::io::Write::write_all(&mut stream, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut response = String::new();
        std::io::Read::read_to_string(&mut stream, &mut response).unwrap();
        response
    };
    let path = server.put("foo");
    assert!(get_from_metrics_listener(&path).starts_with("HTTP/1.1 404 "));
    let metrics = get_from_metrics_listener("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
    let expiry = metrics.lines().find_map(|line| line.strip_prefix("sha_api_certificate_expiry_timestamp_seconds "));
    // The self-signed certificate expires at the end of the year 4095.
    assert!(expiry.unwrap().parse::<u64>().unwrap() > 60_000_000_000, "{expiry:?}");
}

#[test]
fn the_server_warns_about_an_expiring_certificate() {
    if !has_tool("openssl") {
        return;
    }
    let sandbox = Sandbox::new();
    for (days, expect_warning) in [("10", true), ("30", false)] {
        let pair = sandbox.dir().join(format!("{days}.pem"));
        let file = pair.to_str().unwrap();
        let args = ["req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=a", "-days", days];
        let output = Command::new("openssl").args(args).args(["-keyout", file, "-out", "-"]).output().unwrap();
        assert!(output.status.success());
        fs::write(&pair, [fs::read(&pair).unwrap(), output.stdout].concat()).unwrap();
        let server = Server::spawn(Sandbox::new(), &["--tls-cert", file]);
        server.signal(Signal::HUP);
        wait_until("the certificate is reloaded", || server.read_stderr().contains("certificate reloaded: "));
        assert_eq!(
            server.read_stderr().contains("certificate expires in "),
            expect_warning,
            "{}",
            server.read_stderr()
        );
    }
}

#[test]
fn health_exits_0_only_for_a_ready_server() {
    let sandbox = Sandbox::new();
    let first = Server::https(&[]);
    let health = |url: &str| sandbox.sha_api(["health", url]).assert();
    let url = format!("https://{}", first.address);
    health(&url).code(0).stdout("ready\n").stderr("");
    let cert = first.sandbox.store().join("tls/cert.pem");
    let port = first.address.port();
    let health_with_cacert = |host: &str, cert: &std::path::Path| {
        sandbox.sha_api(["health", &format!("https://{host}:{port}"), "--cacert"]).arg(cert).assert()
    };
    health_with_cacert("localhost", &cert).code(0);
    let other = Server::https(&[]);
    health_with_cacert("localhost", &other.sandbox.store().join("tls/cert.pem")).code(3);
    let listen = format!("0.0.0.0:{port}");
    sandbox.sha_api(["health"]).env("SHA_API_LISTEN", &listen).assert().code(0);
    sandbox.sha_api(["health", "--http"]).env("SHA_API_LISTEN", &listen).assert().code(3);
    // This server is not ready, because the first server has locked the store.
    let second = Sandbox::new();
    std::os::unix::fs::symlink(first.sandbox.store(), second.store()).unwrap();
    let second = Server::spawn(second, &["--http"]);
    let not_ready = health(&format!("http://{}", second.address)).code(3).stdout("");
    not_ready.stderr(predicate::str::contains("is not ready: 503"));
    let closed = closed_port();
    health(&format!("http://{closed}")).code(3).stdout("").stderr(predicate::str::contains(closed.to_string()));
    health("nonsense").code(2).stdout("");
}

#[test]
fn serve_check_prints_each_setting_with_its_source_and_exits() {
    let sandbox = Sandbox::new();
    let config = sandbox.write_file("config.toml", b"max-body = '2MiB'\nhttp = true\n");
    let mut check = sandbox.sha_api(["serve", "--check", "--min-rate", "5B", "--config"]);
    let check = check.arg(config).env("SHA_API_LISTEN", "[::1]:1,[::1]:2").assert().code(0).stderr("");
    let stdout = String::from_utf8(check.get_output().stdout.clone()).unwrap();
    for expected in [
        "max-body = 2MiB  # file",
        "http = true  # file",
        "min-rate = 5B  # flag",
        "listen = [::1]:1,[::1]:2  # variable",
        "idle-timeout = 15s  # default",
        "tls-cert = (none)  # default",
        "lock-timeout = 10s  # default",
        "ready-timeout = 10s  # default",
    ] {
        assert!(stdout.lines().any(|line| line == expected), "{expected}\n{stdout}");
    }
    assert!(!sandbox.store().exists());
}

#[test]
fn systemd_passes_the_socket_and_is_notified_of_ready_and_stopping() {
    if !has_tool("python3") {
        return;
    }
    let sandbox = Sandbox::new();
    let path = sandbox.dir().join("notify");
    let notify_socket = UnixDatagram::bind(&path).unwrap();
    notify_socket.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let receive = || {
        let mut buffer = [0; 99];
        let length = notify_socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    // Passes a listening socket as systemd does for a service with socket activation.
    let script = "import os, socket, sys\n\
        s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n\
        os.dup2(s.fileno(), 3); os.set_inheritable(3, True)\n\
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    let mut command = Command::new("python3");
    command.args(["-c", script, env!("CARGO_BIN_EXE_sha-api"), "serve", "--http", "--listen", "127.0.0.1:1"]);
    command.env("SHA_API_STORE", sandbox.store()).env("NOTIFY_SOCKET", &path).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    assert_eq!(receive(), "READY=1");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let port = lines.next().unwrap().unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), format!("listening on http://127.0.0.1:{port}"));
    sandbox.sha_api(["health", &format!("http://127.0.0.1:{port}")]).assert().code(0);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(receive(), "STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn scrub_findings_appear_in_metrics_readyz_and_stderr() {
    let sandbox = Sandbox::with_messages(&[b"some message", b"another"]);
    sandbox.flip_message_bit(b"some message");
    let server = Server::spawn(sandbox, &["--http", "--scrub-interval", "1s"]);
    wait_until("the damage is reported by /readyz", || server.get("/readyz").text() == r#"{"status": "damaged"}"#);
    assert_eq!(server.get("/readyz").status, 200);
    let metrics = server.get("/metrics").text().to_owned();
    assert!(metrics.contains("\nsha_api_store_damaged 1\n"), "{metrics}");
    assert!(!metrics.contains("\nsha_api_store_verified_timestamp_seconds 0\n"), "{metrics}");
    wait_until("the damage is logged", || {
        server.read_stderr().contains("background verification found damage in 1 places")
    });
    // A put stores an intact copy, so that the next verification finds no damage.
    let put = server.client().call(&post_request("some message", ""));
    assert_eq!(put.status, 200);
    wait_until("the store is intact", || server.get("/readyz").text() == r#"{"status": "ready"}"#);
}
