//! Clients connect through the proxy that the environment variables name. Loopback addresses and the hosts in
//! `NO_PROXY` are contacted directly.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::prelude::*;

use crate::common::connect_proxy::ConnectProxy;
use crate::common::scripted_server::closed_port;
use crate::common::server::Server;
use crate::common::store_access::client_command;
use crate::common::{FOO, Sandbox};

/// Host name that cannot be resolved, so that it is reachable only through a proxy.
const UNRESOLVABLE_HOST: &str = "far.invalid";

/// Starts a server with a self-signed certificate for `host`. Returns the server and the path of the certificate.
fn server_named(host: &str) -> (Server, PathBuf) {
    let (sandbox, pair) = (Sandbox::new(), rcgen::generate_simple_self_signed([host.to_owned()]).unwrap());
    let cert = sandbox.write_file("cert.pem", pair.cert.pem().as_bytes());
    let key = sandbox.write_file("key.pem", pair.signing_key.serialize_pem().as_bytes());
    let server = Server::spawn(sandbox, &["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
    (server, cert)
}

/// Returns a command that puts `foo` to the server at `url` with environment `variables`.
fn put_command(url: &str, variables: &[(&str, &str)]) -> Command {
    let mut put = client_command(&[url.to_owned()], &["put", "foo", "--ready-timeout", "30s"]);
    put.envs(variables.iter().copied());
    put
}

fn with_cacert(mut command: Command, cert: &Path) -> Command {
    command.arg("--cacert").arg(cert);
    command
}

/// Returns the request lines that the proxy has received since the last call.
fn request_lines(proxy: &ConnectProxy) -> Vec<String> {
    proxy.take_request_heads().iter().map(|head| head.lines().next().unwrap().to_owned()).collect()
}

#[test]
fn a_server_is_reached_through_the_scheme_proxy_or_all_proxy() {
    let (server, cert) = server_named(UNRESOLVABLE_HOST);
    let (proxy, unused) = (ConnectProxy::forwarding_to(server.address), format!("http://{}", closed_port()));
    let (proxy_url, proxy_address) = (format!("http://{}/", proxy.address), proxy.address.to_string());
    let url = format!("https://{UNRESOLVABLE_HOST}:8443");
    for variables in [
        &[("HTTPS_PROXY", proxy_url.as_str()), ("HTTP_PROXY", &unused), ("ALL_PROXY", &unused)][..],
        &[("https_proxy", &proxy_url), ("no_proxy", "other.invalid")],
        &[("ALL_PROXY", &proxy_address), ("http_proxy", &unused)],
        &[("all_proxy", &proxy_url)],
    ] {
        let put = with_cacert(put_command(&url, variables), &cert).assert();
        put.code(0).stdout(format!("{FOO}\n")).stderr("");
        let lines = request_lines(&proxy);
        assert!(!lines.is_empty(), "{variables:?}");
        assert!(lines.iter().all(|line| *line == format!("CONNECT {UNRESOLVABLE_HOST}:8443 HTTP/1.1")), "{lines:?}");
    }
    // The certificate of the server is verified through the proxy, too.
    let put = put_command(&url, &[("HTTPS_PROXY", &proxy_url)]).assert();
    let unknown = "certificate signed by unknown authority; use --cacert";
    let through = format!("through the proxy http://{}", proxy.address);
    put.code(3).stdout("").stderr(format!("sha-api: {url}: {through}: {unknown}\n"));
}

#[test]
fn plain_http_is_tunnelled_and_proxy_credentials_are_sent() {
    let server = Server::http(&[]);
    let proxy = ConnectProxy::forwarding_to(server.address);
    let proxy_url = format!("http://me:p%40ss@{}", proxy.address);
    let put = put_command(
        &format!("http://{UNRESOLVABLE_HOST}"),
        &[("HTTP_PROXY", &proxy_url), ("HTTPS_PROXY", "nonsense nonsense")],
    )
    .assert();
    put.code(0).stdout(format!("{FOO}\n")).stderr("");
    let heads = proxy.take_request_heads();
    assert!(heads[0].starts_with(&format!("CONNECT {UNRESOLVABLE_HOST}:80 HTTP/1.1\r\n")), "{heads:?}");
    // The base64 of me:p@ss.
    assert!(heads[0].contains("\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n"), "{heads:?}");
}

/// Returns the URL of a local server with the address 0.0.0.0. The proxy settings apply to this address, because it is
/// not a loopback address, and connections to it reach the server without a proxy.
fn non_loopback_url(server: SocketAddr) -> String {
    format!("http://0.0.0.0:{}", server.port())
}

#[test]
fn hosts_in_no_proxy_are_contacted_directly() {
    let server = Server::http(&[]);
    let proxy = ConnectProxy::forwarding_to(server.address);
    let proxy_address = proxy.address.to_string();
    let url = non_loopback_url(server.address);
    put_command(&url, &[("ALL_PROXY", &proxy_address)]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    assert_eq!(request_lines(&proxy), [format!("CONNECT 0.0.0.0:{} HTTP/1.1", server.address.port())]);
    for (name, list) in [("NO_PROXY", "a.example,0.0.0.0"), ("no_proxy", "0.0.0.0, a.example"), ("NO_PROXY", "*")] {
        put_command(&url, &[("ALL_PROXY", &proxy_address), (name, list)])
            .assert()
            .code(0)
            .stdout(format!("{FOO}\n"))
            .stderr("");
        assert_eq!(request_lines(&proxy), [""; 0], "{name}={list}");
    }
    let url = format!("http://host.{UNRESOLVABLE_HOST}");
    // The subdomain cannot be resolved without the proxy.
    let mut direct = put_command(&url, &[("ALL_PROXY", &proxy_address), ("NO_PROXY", UNRESOLVABLE_HOST)]);
    direct.args(["--read-timeout", "100ms"]).assert().code(3).stdout("");
    assert_eq!(request_lines(&proxy), [""; 0]);
}

#[test]
fn loopback_is_never_proxied() {
    let (server, cert) = server_named("localhost");
    let proxy = ConnectProxy::rejecting("403 Forbidden");
    let proxy_url = format!("http://{}", proxy.address);
    let variables = [("ALL_PROXY", proxy_url.as_str()), ("HTTPS_PROXY", &proxy_url), ("HTTP_PROXY", &proxy_url)];
    let port = server.address.port();
    with_cacert(put_command(&format!("https://localhost:{port}"), &variables), &cert).assert().code(0).stderr("");
    let http = Server::http(&[]);
    put_command(&format!("http://{}", http.address), &variables).assert().code(0).stderr("");
    // No process listens on this address, which some machines do not have. The error must not come from the proxy.
    let ipv6 = put_command(&format!("http://[::1]:{port}"), &variables).assert();
    ipv6.code(3).stderr(predicate::str::contains("(os error ").and(predicate::str::contains("proxy").not()));
    let mut get = http.sandbox.sha_api(["get", FOO]);
    get.envs(variables).assert().code(0).stdout("foo").stderr("");
    assert_eq!(request_lines(&proxy), [""; 0]);
}

#[test]
fn a_failing_proxy_is_named_without_its_password() {
    let forbidding = ConnectProxy::rejecting("403 Forbidden").address;
    let demanding_password = ConnectProxy::rejecting("407 Proxy Authentication Required").address;
    let (closed, url) = (closed_port(), format!("https://{UNRESOLVABLE_HOST}"));
    for (proxy, cause) in [
        (forbidding, "CONNECT rejected by proxy (403)"),
        (demanding_password, "proxy authentication required (407)"),
        (closed, "Connection refused (os error 111)"),
    ] {
        let put = put_command(&url, &[("HTTPS_PROXY", &format!("http://me:secret@{proxy}"))]).assert();
        put.code(3).stdout("").stderr(format!("sha-api: {url}: through the proxy http://{proxy}: {cause}\n"));
    }
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = silent.local_addr().unwrap();
    let mut put = put_command(&url, &[("HTTPS_PROXY", &format!("http://me:secret@{proxy}"))]);
    let error = format!("sha-api: {url}: through the proxy http://{proxy}: connection timed out after 100ms\n");
    put.args(["--read-timeout", "100ms"]).assert().code(3).stdout("").stderr(error);
}

#[test]
fn an_invalid_proxy_variable_is_an_error_and_nothing_is_sent() {
    let server = Server::http(&[]);
    for invalid in ["socks5://me:secret@127.0.0.1:1080", "http://me:secret@", "ftp://me:secret@a"] {
        let put = put_command(&non_loopback_url(server.address), &[("HTTP_PROXY", invalid)]).assert();
        let error = "sha-api: invalid proxy URL in HTTP_PROXY: expected http://HOST:PORT or https://HOST:PORT\n";
        put.code(3).stdout("").stderr(error);
    }
    server.sandbox.sha_api(["list"]).assert().code(0).stdout("");
}

#[test]
fn a_tls_proxy_needs_a_trusted_certificate() {
    // The server takes the part of a proxy. It rejects CONNECT, but only after a TLS handshake.
    let (proxy, cert) = server_named("localhost");
    let proxy_url = format!("https://localhost:{}", proxy.address.port());
    for url in [format!("https://{UNRESOLVABLE_HOST}"), format!("http://{UNRESOLVABLE_HOST}")] {
        let variables = [("ALL_PROXY", proxy_url.as_str())];
        let through = format!("sha-api: {url}: through the proxy {proxy_url}: ");
        let unknown = "certificate signed by unknown authority; use --cacert\n";
        put_command(&url, &variables).assert().code(3).stdout("").stderr(format!("{through}{unknown}"));
        let refused = with_cacert(put_command(&url, &variables), &cert).assert();
        refused
            .code(3)
            .stdout("")
            .stderr(predicate::str::starts_with(format!("{through}CONNECT rejected by proxy (4")));
    }
}
