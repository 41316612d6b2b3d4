//! The HTTP contract, tested with curl.

use std::process::Stdio;

use crate::common::server::Server;
use crate::common::{FOO, command_without_proxy, digest, has_tool, pseudorandom_bytes};

/// Runs curl and returns its stdout. `{}` in `args` is replaced by the URL of the server. Panics unless curl succeeds.
fn curl(server: &Server, args: &[&str]) -> String {
    let base = format!("https://localhost:{}", server.address.port());
    let mut command = command_without_proxy("curl");
    command.args(["-sS", "--max-time", "20", "--cacert"]).arg(server.sandbox.store().join("tls/cert.pem"));
    command.args(args.iter().map(|arg| arg.replace("{}", &base))).current_dir(server.sandbox.dir());
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Starts a server. Returns `None` if curl is not installed.
fn start_server() -> Option<Server> {
    has_tool("curl").then(|| Server::https(&["--max-body", "8MiB"]))
}

#[test]
fn a_stored_file_is_not_sent_again_on_upload() {
    let Some(server) = start_server() else { return };
    let message = pseudorandom_bytes(900_000, 1);
    server.sandbox.write_file("message", &message);
    let url = format!("{{}}/messages/{}", digest(&message));
    let put = ["-T", "message", "-H", "Expect: 100-continue", "-o", "/dev/null", "-w", "%{http_code} %{size_upload}"];
    let put = |url: &str| curl(&server, &[&put[..], &[url]].concat());
    assert_eq!(put(&url), "201 900000");
    assert_eq!(put(&url), "200 0");
    assert_eq!(put(&format!("{{}}/messages/{FOO}")).split(' ').next(), Some("409"));
    curl(&server, &["-H", "Accept: application/octet-stream", "-o", "got", &url]);
    assert!(std::fs::read(server.sandbox.dir().join("got")).unwrap() == message);
}

#[test]
fn an_interrupted_download_resumes() {
    let Some(server) = start_server() else { return };
    let message = pseudorandom_bytes(300_000, 2);
    server.sandbox.write_file("message", &message);
    let url = format!("{{}}/messages/{}", digest(&message));
    curl(&server, &["-X", "PUT", "--data-binary", "@message", &url]);
    let accept = "Accept: application/octet-stream";
    let partial = server.sandbox.write_file("got", &message[..100_001]);
    let transfer = curl(&server, &["-C", "-", "-H", accept, "-o", "got", "-w", "%{http_code} %{size_download}", &url]);
    assert_eq!(transfer, "206 199999");
    assert!(std::fs::read(partial).unwrap() == message);
    let status = curl(&server, &["-r", "300000-", "-H", accept, "-o", "/dev/null", "-w", "%{http_code}", &url]);
    assert_eq!(status, "416");
}

#[test]
fn an_unchanged_message_is_answered_with_304() {
    let Some(server) = start_server() else { return };
    server.put("foo");
    let url = format!("{{}}/messages/{FOO}");
    let flags = ["-o", "got", "-w", "%{http_code} %{size_download}"];
    assert_eq!(curl(&server, &[&flags[..], &["--etag-save", "etag", &url]].concat()), "200 18");
    assert_eq!(curl(&server, &[&flags[..], &["--etag-compare", "etag", &url]].concat()), "304 0");
    let head = curl(&server, &["-I", &url]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nContent-Length: 18\r\n"), "{head}");
}

#[test]
fn curl_puts_and_gets_ndjson() {
    let Some(server) = start_server() else { return };
    let flags = ["-H", "Content-Type: application/x-ndjson", "--data-binary"];
    let put =
        curl(&server, &[&flags[..], &["{\"message\": \"foo\"}\n{\"message\": \"bar\"}\n", "{}/messages"]].concat());
    let bar = digest(b"bar");
    let line = |digest: &str| format!("{{\"digest\": \"{digest}\", \"new\": true}}\n");
    assert_eq!(put, line(FOO) + &line(&bar));
    let requested = format!("{{\"digest\": \"{bar}\"}}\n{{\"digest\": \"{}\"}}\n", digest(b"baz"));
    let got = curl(&server, &[&flags[..], &[&requested, "{}/messages/get"]].concat());
    assert_eq!(
        got,
        format!(
            "{{\"digest\": \"{bar}\", \"message\": \"bar\"}}\n{{\"digest\": \"{}\", \"absent\": true}}\n",
            digest(b"baz")
        )
    );
}

#[test]
fn curl_works_over_the_local_socket() {
    let Some(server) = start_server() else { return };
    let socket = server.wait_local_socket();
    let local_curl = |args: &[&str]| curl(&server, &[&["--unix-socket", socket.to_str().unwrap()], args].concat());
    let url = format!("http://localhost/messages/{FOO}");
    assert_eq!(local_curl(&["-X", "PUT", "--data-binary", "foo", &url]), format!("{{\"digest\": \"{FOO}\"}}"));
    assert!(local_curl(&["http://localhost/messages"]).contains(FOO));
    assert_eq!(local_curl(&["-X", "DELETE", "-w", "%{http_code}", &url]), "204");
    assert_eq!(local_curl(&["-w", "%{http_code}", "-o", "/dev/null", &url]), "404");
}
