//! The command line as the client of a server: it verifies certificates and digests, limits every wait, and reports why
//! an operation failed.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use predicates::prelude::*;

use crate::common::scripted_server::{closed_port, http_response, spawn_scripted_server};
use crate::common::server::Server;
use crate::common::store_access::{client_command, create_token, https_url, token_file};
use crate::common::{FOO, Sandbox, digest, pseudorandom_bytes};

fn http_url(address: std::net::SocketAddr) -> String {
    format!("http://{address}")
}

#[test]
fn the_next_server_is_used_when_one_does_not_answer() {
    let server = Server::http(&[]);
    let (closed, live) = (http_url(closed_port()), http_url(server.address));
    client_command(&[closed.clone(), live.clone()], &["put", "foo"])
        .assert()
        .code(0)
        .stdout(format!("{FOO}\n"))
        .stderr("");
    client_command(&[live.clone(), closed.clone()], &["get", FOO]).assert().code(0).stdout("foo").stderr("");
    let both = format!("{closed},{live}");
    client_command(&[], &["has", FOO]).env("SHA_API_SERVER", both).assert().code(0).stdout("").stderr("");
    let other = http_url(closed_port());
    let get = client_command(&[closed.clone(), other.clone()], &["get", FOO]).assert();
    let cause = "Connection refused (os error 111)";
    get.code(3).stdout("").stderr(format!("sha-api: {closed}: {cause}; {other}: {cause}\n"));
}

#[test]
fn a_missing_permission_exits_with_5() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let (reader, all) = (create_token(&sandbox, "read"), create_token(&sandbox, "read,write,list,rm"));
    let server = Server::start(Sandbox::with_messages(&[b"foo"]), &["--http", "--token-file", &token_file(&sandbox)]);
    let url = http_url(server.address);
    let refused = |cause: &str| format!("sha-api: operation not permitted by {url}: {cause}\n");
    let run = |args: &[&str], token: &str| {
        let mut command = client_command(std::slice::from_ref(&url), args);
        command.env("SHA_API_TOKEN", token).assert()
    };
    for args in [&["get", FOO][..], &["put", "foo"], &["has", FOO], &["list"], &["stats"], &["rm", FOO], &["verify"]] {
        run(args, "").code(5).stdout("").stderr(refused("A valid token is needed"));
        run(args, "nonsense").code(5).stdout("").stderr(refused("A valid token is needed"));
    }
    run(&["get", FOO], &reader).code(0).stdout("foo").stderr("");
    run(&["has", FOO], &reader).code(0).stdout("").stderr("");
    for args in [&["put", "bar"][..], &["list"], &["get", &FOO[..8]], &["stats"], &["rm", FOO], &["verify"]] {
        run(args, &reader).code(5).stdout("").stderr(predicate::str::starts_with(refused("").trim_end()));
    }
    run(&["rm", FOO], &all).code(0).stderr("");
    run(&["get", FOO], &all).code(1).stdout("").stderr(format!("sha-api: absent: {FOO}\n"));
    run(&["get", FOO], "no\ntoken")
        .code(3)
        .stdout("")
        .stderr("sha-api: invalid SHA_API_TOKEN: it contains a control or non-ASCII character\n");
}

#[test]
fn a_disabled_operation_exits_with_5() {
    let server = Server::start(Sandbox::with_messages(&[b"foo"]), &["--http", "--read-only"]);
    let url = http_url(server.address);
    let refused = format!("sha-api: operation not permitted by {url}: Method not allowed\n");
    client_command(std::slice::from_ref(&url), &["put", "bar"]).assert().code(5).stdout("").stderr(refused);
    client_command(&[url], &["get", FOO]).assert().code(0).stdout("foo").stderr("");
}

#[test]
fn a_token_is_read_from_a_variable_or_file_and_never_shown() {
    let sandbox = Sandbox::new();
    let secret = create_token(&sandbox, "read,write");
    let server = Server::start(Sandbox::new(), &["--http", "--token-file", &token_file(&sandbox)]);
    let settings = format!("token = '{secret}'\nserver = ['{}']\n", http_url(server.address));
    let file = sandbox.write_file("settings.toml", settings.as_bytes());
    let put = || {
        let mut put = sandbox.sha_api(["put", "foo", "--config"]);
        put.arg(&file).env_remove("SHA_API_STORE");
        put
    };
    put().assert().code(0).stdout(format!("{FOO}\n"));
    put().env("SHA_API_TOKEN", "another").assert().code(5).stdout("");
    sandbox.sha_api(["put", "foo", "--token", &secret]).assert().code(2).stdout("");
    let check = sandbox.sha_api(["serve", "--check", "--config"]).arg(&file).env("SHA_API_TOKEN", &secret).assert();
    check.code(0).stdout(predicate::str::contains(&secret).not()).stderr("");
}

#[test]
fn only_a_certificate_from_a_trusted_ca_is_accepted() {
    let server = Server::https(&[]);
    let other = Server::https(&[]);
    let url = https_url(&server);
    let get = |args: &[&str]| client_command(std::slice::from_ref(&url), &[&["get", FOO], args].concat());
    let unknown = "certificate signed by unknown authority; use --cacert";
    get(&[]).assert().code(3).stdout("").stderr(format!("sha-api: {url}: {unknown}\n"));
    let get_with_cacert = |file: &Path| {
        let mut get = get(&["--cacert"]);
        get.arg(file);
        get.assert()
    };
    get_with_cacert(&other.self_signed_cert_path()).code(3).stdout("");
    get_with_cacert(&server.self_signed_cert_path()).code(1).stdout("");
    let nonsense = server.sandbox.write_file("nonsense.pem", b"nonsense");
    get_with_cacert(&nonsense).code(3).stderr(predicate::str::ends_with("nonsense.pem: no certificate found\n"));
    get_with_cacert(Path::new("/no/such.pem")).code(3).stderr(predicate::str::contains("cannot use /no/such.pem: "));
}

#[test]
fn a_certificate_for_another_name_is_rejected() {
    let pair = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
    let sandbox = Sandbox::new();
    let cert = sandbox.write_file("cert.pem", pair.cert.pem().as_bytes());
    let key = sandbox.write_file("key.pem", pair.signing_key.serialize_pem().as_bytes());
    let flags = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let server = Server::spawn(Sandbox::new(), &flags);
    let put = client_command(&[https_url(&server)], &["put", "foo", "--cacert", cert.to_str().unwrap()]).assert();
    put.code(3).stdout("").stderr(predicate::str::contains("invalid server certificate: certificate not valid"));
}

#[test]
fn a_client_sends_its_certificate_on_request() {
    let pair = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    let sandbox = Sandbox::new();
    let chain = sandbox.write_file("client.pem", pair.cert.pem().as_bytes());
    let key = sandbox.write_file("client.key", pair.signing_key.serialize_pem().as_bytes());
    let other_key = sandbox.write_file("other.key", other.signing_key.serialize_pem().as_bytes());
    let both = sandbox.write_file("both.pem", [pair.cert.pem(), pair.signing_key.serialize_pem()].concat().as_bytes());
    let server = Server::spawn(Sandbox::new(), &["--tls-client-ca", chain.to_str().unwrap()]);
    let put = |args: &[&Path]| {
        let mut put = client_command(&[https_url(&server)], &["put", "foo", "--ready-timeout", "30s", "--cacert"]);
        put.arg(server.self_signed_cert_path());
        for (flag, file) in ["--cert", "--key"].iter().zip(args) {
            put.arg(flag).arg(file);
        }
        put.assert()
    };
    put(&[&chain, &key]).code(0).stdout(format!("{FOO}\n")).stderr("");
    put(&[&both]).code(0).stdout(format!("{FOO}\n")).stderr("");
    put(&[]).code(3).stdout("").stderr(predicate::str::starts_with(format!("sha-api: {}: ", https_url(&server))));
    put(&[&chain, &other_key]).code(3).stdout("").stderr(predicate::str::contains("cannot use "));
    put(&[&chain]).code(3).stdout("").stderr(predicate::str::contains("cannot use "));
    let key_only = client_command(&[https_url(&server)], &["put", "foo", "--key", key.to_str().unwrap()]).assert();
    key_only.code(2).stdout("").stderr(predicate::str::contains("--key needs --cert"));
}

#[test]
fn wrong_bytes_are_never_returned() {
    let bar = digest(b"bar");
    let address = spawn_scripted_server(move |request_line, _| match request_line.starts_with("GET /messages/") {
        true => http_response(200, "Content-Type: application/octet-stream\r\n", "not foo"),
        false => http_response(
            200,
            "Content-Type: application/x-ndjson\r\n",
            &format!(
                "{{\"digest\":\"{FOO}\",\"message\":\"not foo\"}}\n{{\"digest\":\"{bar}\",\"message\":\"bar\"}}\n"
            ),
        ),
    });
    let url = [http_url(address)];
    let corrupt = predicate::str::contains(format!("{FOO} is corrupt"));
    client_command(&url, &["get", FOO]).assert().code(4).stdout("").stderr(corrupt.clone());
    client_command(&url, &["get", FOO, &digest(b"bar")]).assert().code(4).stdout("bar").stderr(corrupt.clone());
    client_command(&url, &["get", "--json", FOO]).assert().code(4).stdout("").stderr(corrupt);
}

#[test]
fn an_inconsistent_response_is_an_error_that_names_the_server() {
    let (bar, baz) = (digest(b"bar"), digest(b"baz"));
    let bar_line = format!("{{\"digest\":\"{bar}\"}}\n");
    let entry = |digest: &str| format!(r#"{{"digest":"{digest}","length":3,"stored_at":"2026-01-01T00:00:00Z"}}"#);
    let list = format!(r#"{{"messages":[{},{}]}}"#, entry(&baz), entry(&bar));
    let new_bar_line = format!("{{\"digest\":\"{bar}\",\"new\":true}}\n");
    let twice = new_bar_line.repeat(2);
    assert!(FOO < bar.as_str() && baz < bar);
    let cases: [(&[&str], &str, &str); 9] = [
        (&["put", "foo"], "", &bar_line),
        (&["put", "foo"], "", "nonsense"),
        (&["put", "--lines"], "foo\nbar\n", &twice),
        (&["put", "--lines"], "bar\nbar\n", &new_bar_line),
        (&["has", FOO], "", &bar_line),
        (&["list"], "", &list.replace(&baz, "zz")),
        (&["list", "--after", &"f".repeat(64)], "", &list),
        (&["list", "--prefix", "00"], "", &list),
        (&["get", FOO, FOO], "", &bar_line),
    ];
    for (args, stdin, body) in cases {
        let body = body.to_owned();
        let url = http_url(spawn_scripted_server(move |_, _| http_response(200, "", &body)));
        let command = client_command(std::slice::from_ref(&url), args).write_stdin(stdin).assert();
        let error = format!("sha-api: {url}: invalid response: ");
        command.code(3).stdout("").stderr(predicate::str::starts_with(error));
    }
    let url = http_url(spawn_scripted_server(|_, _| "SSH-2.0-OpenSSH\r\n".to_owned()));
    let get = client_command(std::slice::from_ref(&url), &["get", FOO]).assert();
    get.code(3).stdout("").stderr(predicate::str::starts_with(format!("sha-api: {url}: ")));
}

#[test]
fn a_silent_server_times_out() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = http_url(silent.local_addr().unwrap());
    for url in [url.clone(), url.replace("http:", "https:")] {
        let get = client_command(std::slice::from_ref(&url), &["get", FOO, "--read-timeout", "100ms"]).assert();
        let error = predicate::str::starts_with(format!("sha-api: {url}: "));
        get.code(3).stdout("").stderr(error.and(predicate::str::contains("100ms")));
    }
    let server = Server::http(&[]);
    let live = http_url(server.address);
    client_command(&[url, live], &["put", "foo", "--read-timeout", "100ms"])
        .assert()
        .code(0)
        .stdout(format!("{FOO}\n"));
}

#[test]
fn a_command_waits_for_a_server_to_be_ready_until_the_timeout() {
    let not_ready = || http_response(503, "Retry-After: 1\r\n", r#"{"err_msg": "The store is not open yet"}"#);
    let mut requests = 0;
    let opening = http_url(spawn_scripted_server(move |_, _| {
        requests += 1;
        if requests < 3 { not_ready() } else { http_response(201, "", &format!("{{\"digest\":\"{FOO}\"}}")) }
    }));
    client_command(&[opening], &["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    let never_ready = http_url(spawn_scripted_server(move |_, _| not_ready()));
    let put = client_command(std::slice::from_ref(&never_ready), &["put", "foo", "--ready-timeout", "10ms"]).assert();
    put.code(3).stdout("").stderr(format!("sha-api: {never_ready}: The store is not open yet\n"));
}

#[test]
fn redirects_are_not_followed() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let target_url = http_url(target.local_addr().unwrap());
    let field = format!("Location: {target_url}/messages\r\n");
    let url = http_url(spawn_scripted_server(move |_, _| http_response(307, &field, "")));
    let put = client_command(std::slice::from_ref(&url), &["put", "foo"]).assert();
    put.code(3).stdout("").stderr(format!(
        "sha-api: {url}: unexpected redirect to {target_url}/messages: redirects are not followed; check the URL\n"
    ));
    target.set_nonblocking(true).unwrap();
    assert_eq!(target.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn an_invalid_url_is_a_usage_error() {
    for url in ["localhost:8443", "ftp://a", "https://a/b", "https://u:p@a", "unix:"] {
        let get = client_command(&[url.to_owned()], &["get", FOO]).assert();
        get.code(2).stdout("").stderr(predicate::str::contains(format!("invalid server URL `{url}`")));
    }
}

#[test]
fn a_flag_overrides_a_variable_between_store_and_server() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let closed = http_url(closed_port());
    let get = || sandbox.sha_api(["get", FOO]);
    let refused = || predicate::str::contains("Connection refused");
    get().env("SHA_API_SERVER", &closed).assert().code(2).stdout("").stderr(predicate::str::contains("one of them"));
    get().args(["--server", &closed]).assert().code(3).stdout("").stderr(refused());
    let mut by_flag = get();
    by_flag.env("SHA_API_SERVER", &closed).arg("--store").arg(sandbox.store()).assert().code(0).stdout("foo");
    let file = sandbox.write_file("settings.toml", format!("server = '{closed}'").as_bytes());
    get().arg("--config").arg(&file).assert().code(0).stdout("foo");
    get().env_remove("SHA_API_STORE").arg("--config").arg(&file).assert().code(3).stdout("").stderr(refused());
}

#[test]
fn a_message_too_large_for_the_server_is_reported_with_the_remedy() {
    let server = Server::http(&["--max-body", "64KiB"]);
    let url = http_url(server.address);
    let long = pseudorandom_bytes(100_000, 1);
    let put = client_command(std::slice::from_ref(&url), &["put"]).write_stdin(long.clone()).assert();
    let error =
        "cannot store a message of 100000 bytes: over the limit of the server; raise its --max-message and --max-body";
    put.code(3).stdout("").stderr(format!("sha-api: {url}: {error}\n"));
    // A batch over the limit of the server is split into several requests.
    let (first, second) = ("x".repeat(50_000), "y".repeat(50_000));
    let put = client_command(&[url], &["put", "--lines"]).write_stdin(format!("{first}\n{second}\n")).assert();
    put.code(0).stdout(format!("{}\n{}\n", digest(first.as_bytes()), digest(second.as_bytes()))).stderr("");
}

#[test]
fn two_hundred_concurrent_puts_to_a_served_store_succeed() {
    let server = Server::start(Sandbox::new(), &[]);
    server.sandbox.put_concurrently(200);
    let list = server.sandbox.sha_api(["list"]).assert().code(0).get_output().stdout.clone();
    assert_eq!(list.split(|byte| *byte == b'\n').count(), 201);
}

#[test]
fn a_stale_socket_is_ignored() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    drop(UnixListener::bind(sandbox.store().join("sha-api.sock")).unwrap());
    sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
    sandbox.write_file("store/sha-api.sock.not", b"");
    std::fs::remove_file(sandbox.store().join("sha-api.sock")).unwrap();
    sandbox.write_file("store/sha-api.sock", b"");
    sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
}

#[test]
fn a_command_waiting_for_a_store_uses_the_server_that_gets_the_lock() {
    let sandbox = Sandbox::new();
    let mut put = sandbox.spawn_put_holding_lock("foo");
    let mut command = sandbox.std_command(["get", "--lock-timeout", "60s", "--ready-timeout", "60s", FOO]);
    let get = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let server = Server::spawn(sandbox, &["--lock-timeout", "60s"]);
    assert!(put.wait().unwrap().success());
    let output = get.wait_with_output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (b"foo".as_slice(), b"".as_slice()));
    server.wait_ready();
}

#[test]
fn a_second_server_fails_and_names_the_first() {
    let server = Server::start(Sandbox::new(), &[]);
    let second = server.sandbox.sha_api(["serve", "--listen", "127.0.0.1:0", "--lock-timeout", "50ms"]).assert();
    let locked = format!("locked by process {} (sha-api serve)", server.pid().as_raw_nonzero());
    second.code(3).stderr(predicate::str::contains(locked));
}

#[test]
fn a_command_finds_the_server_of_a_store_with_a_long_path() {
    let sandbox = Sandbox::new();
    let long_path = (0..4).fold(sandbox.dir().join("a"), |dir, _| dir.join("b".repeat(60)));
    let server = Server::start(Sandbox::new(), &["--http", "--store", long_path.to_str().unwrap()]);
    sandbox
        .sha_api(["put", "foo", "--lock-timeout", "0s", "--store"])
        .arg(&long_path)
        .assert()
        .code(0)
        .stdout(format!("{FOO}\n"));
    drop(server);
    sandbox.sha_api(["get", FOO, "--store"]).arg(&long_path).assert().code(0).stdout("foo").stderr("");
}

#[test]
fn a_unix_url_names_the_local_socket() {
    let server = Server::start(Sandbox::with_messages(&[b"foo"]), &[]);
    let url = format!("unix:{}", server.sandbox.store().join("sha-api.sock").display());
    client_command(&[url], &["get", FOO]).assert().code(0).stdout("foo").stderr("");
    let missing = client_command(&["unix:/no/such.sock".to_owned()], &["get", FOO]).assert();
    missing.code(3).stdout("").stderr("sha-api: unix:/no/such.sock: No such file or directory (os error 2)\n");
}
