//! Whose request it is that a proxy hands on: only a trusted one is believed, and only what it has seen itself.

use std::fs;

use crate::common::proxy::PROXY_KINDS;
use crate::common::server::{Server, wait_until};
use crate::common::{Sandbox, command_without_proxy, has_tool};

/// A server that writes down its requests.
fn logging_server(flags: &[&str]) -> Server {
    let sandbox = Sandbox::new();
    let log = sandbox.dir().join("log").to_str().unwrap().to_owned();
    Server::start(sandbox, &[&["--http", "--access-log", &log], flags].concat())
}

/// Waits until the access log has a request for `path`, and returns the client address.
fn wait_logged_client(server: &Server, path: &str) -> String {
    let mut found = None;
    wait_until("the request is written down", || {
        let log = fs::read_to_string(server.sandbox.dir().join("log")).unwrap();
        let line = log.lines().find(|line| line.contains(&format!("\"GET {path} ")));
        found = line.and_then(|line| line.split(' ').next()).map(str::to_owned);
        found.is_some()
    });
    found.unwrap()
}

/// Returns the client address in the access log after a request with these fields from 127.0.0.1.
fn logged_client_for(flags: &[&str], fields: &str) -> String {
    let server = logging_server(flags);
    let reply = server.client().call(&format!("GET /livez HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(reply.status, 200, "{fields}");
    wait_logged_client(&server, "/livez")
}

#[test]
fn a_trusted_proxy_names_the_client() {
    let trust = ["--trusted-proxy", "192.0.2.1,127.0.0.0/8", "--trusted-proxy", "2001:db8:1::/48"];
    for (forwarded, client) in [
        ("X-Forwarded-For: 198.51.100.7\r\n", "198.51.100.7"),
        ("x-forwarded-for: 2001:db8:2::7\r\n", "2001:db8:2::7"),
        ("X-Forwarded-For: 203.0.113.1, 198.51.100.7, 2001:db8:1::1, 192.0.2.1\r\n", "198.51.100.7"),
        ("X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-For: 198.51.100.7\r\n", "198.51.100.7"),
        ("X-Forwarded-For: ' OR 1, 198.51.100.7\r\n", "198.51.100.7"),
        ("X-Forwarded-For: 198.51.100.7, nonsense\r\n", "127.0.0.1"),
        ("X-Forwarded-For: 198.51.100.7 - admin [\r\n", "127.0.0.1"),
        ("X-Forwarded-For: \u{fc}\r\n", "127.0.0.1"),
        ("X-Forwarded-For:\r\n", "127.0.0.1"),
        ("", "127.0.0.1"),
    ] {
        assert_eq!(logged_client_for(&trust, forwarded), client, "{forwarded}");
    }
}

#[test]
fn x_forwarded_for_from_other_peers_is_ignored() {
    let forwarded = "X-Forwarded-For: 198.51.100.7\r\n";
    assert_eq!(logged_client_for(&[], forwarded), "127.0.0.1");
    assert_eq!(logged_client_for(&["--trusted-proxy", "127.0.0.2,::1"], forwarded), "127.0.0.1");
}

#[test]
fn a_trusted_proxy_is_exempt_from_the_address_limit() {
    for (trust, statuses) in [("127.0.0.1", [200; 3]), ("127.0.0.2", [200, 200, 503])] {
        let flags = ["--max-connections-per-address", "2", "--trusted-proxy", trust];
        let server = Server::spawn(Sandbox::new(), &[&["--http"], &flags[..]].concat());
        let mut clients = Vec::new();
        for status in statuses {
            let mut client = server.client();
            // A rejected client gets the response before its request is read.
            client.try_send("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.read_response().status, status, "{trust}");
            clients.push(client);
        }
    }
}

#[test]
fn an_invalid_proxy_address_is_a_usage_error() {
    let refused = Sandbox::new().sha_api(["serve", "--trusted-proxy", "10.0.0.0/33"]).assert().code(2).stdout("");
    refused.stderr(predicates::str::contains("expected an IP address or a network such as 10.0.0.0/8"));
}

#[test]
fn the_log_shows_the_real_client_of_a_proxy_despite_forged_headers() {
    if !has_tool("curl") {
        return;
    }
    // The proxy comes from 127.0.0.1, its client from 127.0.0.2.
    for (flags, client) in [(&["--trusted-proxy", "127.0.0.1"][..], "127.0.0.2"), (&[], "127.0.0.1")] {
        for kind in PROXY_KINDS {
            let server = logging_server(flags);
            let Some(proxy) = kind.start_for(&[&server]) else { continue };
            for (path, says) in [("/openapi.json", "X-Other: 1"), ("/metrics", "X-Forwarded-For: 203.0.113.9")] {
                let mut curl = command_without_proxy("curl");
                curl.args(["-sSf", "--interface", "127.0.0.2", "-H", says, "--cacert"]);
                let output = curl.arg(proxy.cert()).arg(proxy.url() + path).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                assert_eq!(wait_logged_client(&server, path), client, "{kind:?} {flags:?} {says}");
            }
        }
    }
}
