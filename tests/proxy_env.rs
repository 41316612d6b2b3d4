//! On the way to a server stands the proxy that variables name, and between us and this machine none.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::prelude::*;

use crate::common::connect_proxy::ConnectProxy;
use crate::common::scripted_server::closed_port;
use crate::common::server::Server;
use crate::common::store_access::client_command;
use crate::common::{FOO, Sandbox};

/// A host that nobody has, so that only a proxy leads there.
const UNRESOLVABLE_HOST: &str = "far.invalid";

/// A server that has a certificate for this host, and the certificate.
fn server_named(host: &str) -> (Server, PathBuf) {
    let (sandbox, made) = (Sandbox::new(), rcgen::generate_simple_self_signed([host.to_owned()]).unwrap());
    let cert = sandbox.write_file("cert.pem", made.cert.pem().as_bytes());
    let key = sandbox.write_file("key.pem", made.signing_key.serialize_pem().as_bytes());
    let server = Server::spawn(sandbox, &["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
    (server, cert)
}

/// A put under these variables.
fn put_command(url: &str, variables: &[(&str, &str)]) -> Command {
    let mut put = client_command(&[url.to_owned()], &["put", "foo", "--ready-timeout", "30s"]);
    put.envs(variables.iter().copied());
    put
}

fn with_cacert(mut command: Command, cert: &Path) -> Command {
    command.arg("--cacert").arg(cert);
    command
}

/// The first lines of what a proxy was asked.
fn request_lines(tunnel: &ConnectProxy) -> Vec<String> {
    tunnel.take_request_heads().iter().map(|head| head.lines().next().unwrap().to_owned()).collect()
}

#[test]
fn a_server_is_reached_through_the_scheme_proxy_or_all_proxy() {
    let (server, cert) = server_named(UNRESOLVABLE_HOST);
    let (tunnel, wrong) = (ConnectProxy::forwarding_to(server.address), format!("http://{}", closed_port()));
    let (whole, bare) = (format!("http://{}/", tunnel.address), tunnel.address.to_string());
    let url = format!("https://{UNRESOLVABLE_HOST}:8443");
    for variables in [
        &[("HTTPS_PROXY", whole.as_str()), ("HTTP_PROXY", &wrong), ("ALL_PROXY", &wrong)][..],
        &[("https_proxy", &whole), ("no_proxy", "other.invalid")],
        &[("ALL_PROXY", &bare), ("http_proxy", &wrong)],
        &[("all_proxy", &whole)],
    ] {
        let put = with_cacert(put_command(&url, variables), &cert).assert();
        put.code(0).stdout(format!("{FOO}\n")).stderr("");
        let asked = request_lines(&tunnel);
        assert!(!asked.is_empty(), "{variables:?}");
        assert!(asked.iter().all(|line| *line == format!("CONNECT {UNRESOLVABLE_HOST}:8443 HTTP/1.1")), "{asked:?}");
    }
    // The proxy is not the server: nothing that it says is believed.
    let put = put_command(&url, &[("HTTPS_PROXY", &whole)]).assert();
    let unknown = "certificate signed by unknown authority; use --cacert";
    let through = format!("through the proxy http://{}", tunnel.address);
    put.code(3).stdout("").stderr(format!("sha-api: {url}: {through}: {unknown}\n"));
}

#[test]
fn plain_http_is_tunnelled_and_proxy_credentials_are_sent() {
    let server = Server::http(&[]);
    let tunnel = ConnectProxy::forwarding_to(server.address);
    let proxy = format!("http://me:p%40ss@{}", tunnel.address);
    let put = put_command(
        &format!("http://{UNRESOLVABLE_HOST}"),
        &[("HTTP_PROXY", &proxy), ("HTTPS_PROXY", "nonsense nonsense")],
    )
    .assert();
    put.code(0).stdout(format!("{FOO}\n")).stderr("");
    let asked = tunnel.take_request_heads();
    assert!(asked[0].starts_with(&format!("CONNECT {UNRESOLVABLE_HOST}:80 HTTP/1.1\r\n")), "{asked:?}");
    // me:p@ss
    assert!(asked[0].contains("\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n"), "{asked:?}");
}

/// This machine by an address that is none of its own, so that it can be asked with and without a proxy.
fn non_loopback_url(server: SocketAddr) -> String {
    format!("http://0.0.0.0:{}", server.port())
}

#[test]
fn hosts_in_no_proxy_are_contacted_directly() {
    let server = Server::http(&[]);
    let tunnel = ConnectProxy::forwarding_to(server.address);
    let proxy = tunnel.address.to_string();
    let url = non_loopback_url(server.address);
    put_command(&url, &[("ALL_PROXY", &proxy)]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    assert_eq!(request_lines(&tunnel), [format!("CONNECT 0.0.0.0:{} HTTP/1.1", server.address.port())]);
    for (name, list) in [("NO_PROXY", "a.example,0.0.0.0"), ("no_proxy", "0.0.0.0, a.example"), ("NO_PROXY", "*")] {
        put_command(&url, &[("ALL_PROXY", &proxy), (name, list)])
            .assert()
            .code(0)
            .stdout(format!("{FOO}\n"))
            .stderr("");
        assert_eq!(request_lines(&tunnel), [""; 0], "{name}={list}");
    }
    let url = format!("http://host.{UNRESOLVABLE_HOST}");
    let mut alone = put_command(&url, &[("ALL_PROXY", &proxy), ("NO_PROXY", UNRESOLVABLE_HOST)]);
    alone.args(["--read-timeout", "100ms"]).assert().code(3).stdout("");
    assert_eq!(request_lines(&tunnel), [""; 0]);
}

#[test]
fn loopback_is_never_proxied() {
    let (server, cert) = server_named("localhost");
    let tunnel = ConnectProxy::rejecting("403 Forbidden");
    let proxy = format!("http://{}", tunnel.address);
    let variables = [("ALL_PROXY", proxy.as_str()), ("HTTPS_PROXY", &proxy), ("HTTP_PROXY", &proxy)];
    let port = server.address.port();
    with_cacert(put_command(&format!("https://localhost:{port}"), &variables), &cert).assert().code(0).stderr("");
    let here = Server::http(&[]);
    put_command(&format!("http://{}", here.address), &variables).assert().code(0).stderr("");
    // Nobody listens there, and some machines have no such address: it is not the proxy that says so.
    let third = put_command(&format!("http://[::1]:{port}"), &variables).assert();
    third.code(3).stderr(predicate::str::contains("(os error ").and(predicate::str::contains("proxy").not()));
    let mut local = here.sandbox.sha_api(["get", FOO]);
    local.envs(variables).assert().code(0).stdout("foo").stderr("");
    assert_eq!(request_lines(&tunnel), [""; 0]);
}

#[test]
fn a_failing_proxy_is_named_without_its_password() {
    let forbidding = ConnectProxy::rejecting("403 Forbidden").address;
    let asking = ConnectProxy::rejecting("407 Proxy Authentication Required").address;
    let (away, url) = (closed_port(), format!("https://{UNRESOLVABLE_HOST}"));
    for (proxy, why) in [
        (forbidding, "CONNECT rejected by proxy (403)"),
        (asking, "proxy authentication required (407)"),
        (away, "Connection refused (os error 111)"),
    ] {
        let put = put_command(&url, &[("HTTPS_PROXY", &format!("http://me:secret@{proxy}"))]).assert();
        put.code(3).stdout("").stderr(format!("sha-api: {url}: through the proxy http://{proxy}: {why}\n"));
    }
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = silent.local_addr().unwrap();
    let mut put = put_command(&url, &[("HTTPS_PROXY", &format!("http://me:secret@{proxy}"))]);
    let why = format!("sha-api: {url}: through the proxy http://{proxy}: connection timed out after 100ms\n");
    put.args(["--read-timeout", "100ms"]).assert().code(3).stdout("").stderr(why);
}

#[test]
fn an_invalid_proxy_variable_is_an_error_and_nothing_is_sent() {
    let server = Server::http(&[]);
    for wrong in ["socks5://me:secret@127.0.0.1:1080", "http://me:secret@", "ftp://me:secret@a"] {
        let put = put_command(&non_loopback_url(server.address), &[("HTTP_PROXY", wrong)]).assert();
        let why = "invalid proxy URL in HTTP_PROXY: expected http://HOST:PORT or https://HOST:PORT";
        put.code(3).stdout("").stderr(format!("sha-api: {why}\n"));
    }
    server.sandbox.sha_api(["list"]).assert().code(0).stdout("");
}

#[test]
fn a_tls_proxy_needs_a_trusted_certificate() {
    // What it makes of the request is no matter: it is asked in TLS, and says no.
    let (proxy, cert) = server_named("localhost");
    let address = format!("https://localhost:{}", proxy.address.port());
    for url in [format!("https://{UNRESOLVABLE_HOST}"), format!("http://{UNRESOLVABLE_HOST}")] {
        let variables = [("ALL_PROXY", address.as_str())];
        let through = format!("sha-api: {url}: through the proxy {address}: ");
        let unknown = "certificate signed by unknown authority; use --cacert\n";
        put_command(&url, &variables).assert().code(3).stdout("").stderr(format!("{through}{unknown}"));
        let refused = with_cacert(put_command(&url, &variables), &cert).assert();
        refused
            .code(3)
            .stdout("")
            .stderr(predicate::str::starts_with(format!("{through}CONNECT rejected by proxy (4")));
    }
}
