//! A client believes no server, waits for none for ever, and says why it cannot go on.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use predicates::prelude::*;

use crate::common::scripted_server::{closed_port, http_response, spawn_scripted_server};
use crate::common::server::Server;
use crate::common::store_access::{certificate_path, client_command, create_token, https_url, token_file};
use crate::common::{FOO, Sandbox, digest, pseudorandom_bytes};

fn http_url(address: std::net::SocketAddr) -> String {
    format!("http://{address}")
}

#[test]
fn the_next_server_is_used_when_one_does_not_answer() {
    let server = Server::http(&[]);
    let (dead, live) = (http_url(closed_port()), http_url(server.address));
    client_command(&[dead.clone(), live.clone()], &["put", "foo"])
        .assert()
        .code(0)
        .stdout(format!("{FOO}\n"))
        .stderr("");
    client_command(&[live.clone(), dead.clone()], &["get", FOO]).assert().code(0).stdout("foo").stderr("");
    let both = format!("{dead},{live}");
    client_command(&[], &["has", FOO]).env("SHA_API_SERVER", both).assert().code(0).stdout("").stderr("");
    let other = http_url(closed_port());
    let nobody = client_command(&[dead.clone(), other.clone()], &["get", FOO]).assert();
    let why = "Connection refused (os error 111)";
    nobody.code(3).stdout("").stderr(format!("sha-api: {dead}: {why}; {other}: {why}\n"));
}

#[test]
fn a_missing_permission_exits_with_5() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let (reader, all) = (create_token(&sandbox, "read"), create_token(&sandbox, "read,write,list,rm"));
    let server = Server::start(Sandbox::with_messages(&[b"foo"]), &["--http", "--token-file", &token_file(&sandbox)]);
    let url = http_url(server.address);
    let refused = |why: &str| format!("sha-api: operation not permitted by {url}: {why}\n");
    let ask = |args: &[&str], token: &str| {
        let mut command = client_command(std::slice::from_ref(&url), args);
        command.env("SHA_API_TOKEN", token).assert()
    };
    for args in [&["get", FOO][..], &["put", "foo"], &["has", FOO], &["list"], &["stats"], &["rm", FOO], &["verify"]] {
        ask(args, "").code(5).stdout("").stderr(refused("A valid token is needed"));
        ask(args, "nonsense").code(5).stdout("").stderr(refused("A valid token is needed"));
    }
    ask(&["get", FOO], &reader).code(0).stdout("foo").stderr("");
    ask(&["has", FOO], &reader).code(0).stdout("").stderr("");
    for args in [&["put", "bar"][..], &["list"], &["get", &FOO[..8]], &["stats"], &["rm", FOO], &["verify"]] {
        ask(args, &reader).code(5).stdout("").stderr(predicate::str::starts_with(refused("").trim_end()));
    }
    ask(&["rm", FOO], &all).code(0).stderr("");
    ask(&["get", FOO], &all).code(1).stdout("").stderr(format!("sha-api: absent: {FOO}\n"));
    ask(&["get", FOO], "no\ntoken")
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
fn only_a_certificate_of_a_trusted_authority_is_accepted() {
    let server = Server::https(&[]);
    let other = Server::https(&[]);
    let url = https_url(&server);
    let get = |args: &[&str]| client_command(std::slice::from_ref(&url), &[&["get", FOO], args].concat());
    let unknown = "certificate signed by unknown authority; use --cacert";
    get(&[]).assert().code(3).stdout("").stderr(format!("sha-api: {url}: {unknown}\n"));
    let with = |file: &Path| {
        let mut get = get(&["--cacert"]);
        get.arg(file);
        get.assert()
    };
    with(&certificate_path(&other.sandbox)).code(3).stdout("");
    with(&certificate_path(&server.sandbox)).code(1).stdout("");
    let nonsense = server.sandbox.write_file("nonsense.pem", b"nonsense");
    with(&nonsense).code(3).stderr(predicate::str::ends_with("nonsense.pem: no certificate found\n"));
    with(Path::new("/no/such.pem")).code(3).stderr(predicate::str::contains("cannot use /no/such.pem: "));
}

#[test]
fn a_certificate_for_another_name_is_rejected() {
    let made = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
    let sandbox = Sandbox::new();
    let cert = sandbox.write_file("cert.pem", made.cert.pem().as_bytes());
    let key = sandbox.write_file("key.pem", made.signing_key.serialize_pem().as_bytes());
    let pair = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let server = Server::spawn(Sandbox::new(), &pair);
    let put = client_command(&[https_url(&server)], &["put", "foo", "--cacert", cert.to_str().unwrap()]).assert();
    put.code(3).stdout("").stderr(predicate::str::contains("invalid server certificate: certificate not valid"));
}

#[test]
fn a_client_sends_its_certificate_on_request() {
    let made = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    let sandbox = Sandbox::new();
    let chain = sandbox.write_file("client.pem", made.cert.pem().as_bytes());
    let key = sandbox.write_file("client.key", made.signing_key.serialize_pem().as_bytes());
    let wrong = sandbox.write_file("wrong.key", other.signing_key.serialize_pem().as_bytes());
    let both = sandbox.write_file("both.pem", [made.cert.pem(), made.signing_key.serialize_pem()].concat().as_bytes());
    let server = Server::spawn(Sandbox::new(), &["--tls-client-ca", chain.to_str().unwrap()]);
    let put = |args: &[&Path]| {
        let mut put = client_command(&[https_url(&server)], &["put", "foo", "--ready-timeout", "30s", "--cacert"]);
        put.arg(certificate_path(&server.sandbox));
        for (flag, file) in ["--cert", "--key"].iter().zip(args) {
            put.arg(flag).arg(file);
        }
        put.assert()
    };
    put(&[&chain, &key]).code(0).stdout(format!("{FOO}\n")).stderr("");
    put(&[&both]).code(0).stdout(format!("{FOO}\n")).stderr("");
    put(&[]).code(3).stdout("").stderr(predicate::str::starts_with(format!("sha-api: {}: ", https_url(&server))));
    put(&[&chain, &wrong]).code(3).stdout("").stderr(predicate::str::contains("cannot use "));
    put(&[&chain]).code(3).stdout("").stderr(predicate::str::contains("cannot use "));
    let alone = client_command(&[https_url(&server)], &["put", "foo", "--key", key.to_str().unwrap()]).assert();
    alone.code(2).stdout("").stderr(predicate::str::contains("--cert must name it"));
}

#[test]
fn wrong_bytes_are_never_returned() {
    let bar = digest(b"bar");
    let lying = spawn_scripted_server(move |first, _| match first.starts_with("GET /messages/") {
        true => http_response(200, "Content-Type: application/octet-stream\r\n", "not foo"),
        false => http_response(
            200,
            "Content-Type: application/x-ndjson\r\n",
            &format!(
                "{{\"digest\":\"{FOO}\",\"message\":\"not foo\"}}\n{{\"digest\":\"{bar}\",\"message\":\"bar\"}}\n"
            ),
        ),
    });
    let url = [http_url(lying)];
    let corrupt = predicate::str::contains(format!("{FOO} is corrupt"));
    client_command(&url, &["get", FOO]).assert().code(4).stdout("").stderr(corrupt.clone());
    client_command(&url, &["get", FOO, &digest(b"bar")]).assert().code(4).stdout("bar").stderr(corrupt.clone());
    client_command(&url, &["get", "--json", FOO]).assert().code(4).stdout("").stderr(corrupt);
}

#[test]
fn an_inconsistent_response_is_an_error_that_names_the_server() {
    let (bar, baz) = (digest(b"bar"), digest(b"baz"));
    let named = format!("{{\"digest\":\"{bar}\"}}\n");
    let entry = |digest: &str| format!(r#"{{"digest":"{digest}","length":3,"stored_at":"2026-01-01T00:00:00Z"}}"#);
    let list = format!(r#"{{"messages":[{},{}]}}"#, entry(&baz), entry(&bar));
    let lines = format!("{{\"digest\":\"{bar}\",\"new\":true}}\n");
    let twice = [lines.as_str(), &lines].concat();
    assert!(FOO < bar.as_str() && baz < bar);
    let cases: [(&[&str], &str, &str); 9] = [
        (&["put", "foo"], "", &named),
        (&["put", "foo"], "", "nonsense"),
        (&["put", "--lines"], "foo\nbar\n", &twice),
        (&["put", "--lines"], "bar\nbar\n", &lines),
        (&["has", FOO], "", &named),
        (&["list"], "", &list.replace(&baz, "zz")),
        (&["list", "--after", &"f".repeat(64)], "", &list),
        (&["list", "--prefix", "00"], "", &list),
        (&["get", FOO, FOO], "", &named),
    ];
    for (args, stdin, answer) in cases {
        let answer = answer.to_owned();
        let url = http_url(spawn_scripted_server(move |_, _| http_response(200, "", &answer)));
        let command = client_command(std::slice::from_ref(&url), args).write_stdin(stdin).assert();
        let why = format!("sha-api: {url}: invalid response: ");
        command.code(3).stdout("").stderr(predicate::str::starts_with(why));
    }
    let url = http_url(spawn_scripted_server(|_, _| "SSH-2.0-OpenSSH\r\n".to_owned()));
    let get = client_command(std::slice::from_ref(&url), &["get", FOO]).assert();
    get.code(3).stdout("").stderr(predicate::str::starts_with(format!("sha-api: {url}: ")));
}

#[test]
fn a_silent_server_times_out() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = http_url(silent.local_addr().unwrap());
    for scheme in [url.clone(), url.replace("http:", "https:")] {
        let get = client_command(std::slice::from_ref(&scheme), &["get", FOO, "--read-timeout", "100ms"]).assert();
        let why = predicate::str::starts_with(format!("sha-api: {scheme}: "));
        get.code(3).stdout("").stderr(why.and(predicate::str::contains("100ms")));
    }
    let server = Server::http(&[]);
    let live = http_url(server.address);
    client_command(&[url, live], &["put", "foo", "--read-timeout", "100ms"])
        .assert()
        .code(0)
        .stdout(format!("{FOO}\n"));
}

#[test]
fn a_server_that_is_not_ready_is_waited_for_until_the_timeout() {
    let busy = || http_response(503, "Retry-After: 1\r\n", r#"{"err_msg": "The store is not open yet"}"#);
    let mut asked = 0;
    let opening = http_url(spawn_scripted_server(move |_, _| {
        asked += 1;
        if asked < 3 { busy() } else { http_response(201, "", &format!("{{\"digest\":\"{FOO}\"}}")) }
    }));
    client_command(&[opening], &["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    let never = http_url(spawn_scripted_server(move |_, _| busy()));
    let put = client_command(std::slice::from_ref(&never), &["put", "foo", "--ready-timeout", "10ms"]).assert();
    put.code(3).stdout("").stderr(format!("sha-api: {never}: The store is not open yet\n"));
}

#[test]
fn redirects_are_not_followed() {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = http_url(trap.local_addr().unwrap());
    let field = format!("Location: {to}/messages\r\n");
    let url = http_url(spawn_scripted_server(move |_, _| http_response(307, &field, "")));
    let put = client_command(std::slice::from_ref(&url), &["put", "foo"]).assert();
    put.code(3).stdout("").stderr(format!(
        "sha-api: {url}: unexpected redirect to {to}/messages: redirects are not followed; check the URL\n"
    ));
    trap.set_nonblocking(true).unwrap();
    assert_eq!(trap.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn an_invalid_url_is_a_usage_error() {
    for bad in ["localhost:8443", "ftp://a", "https://a/b", "https://u:p@a", "unix:"] {
        let get = client_command(&[bad.to_owned()], &["get", FOO]).assert();
        get.code(2).stdout("").stderr(predicate::str::contains(format!("invalid server URL `{bad}`")));
    }
}

#[test]
fn a_flag_overrides_a_variable_between_store_and_server() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let dead = http_url(closed_port());
    let get = || sandbox.sha_api(["get", FOO]);
    let refused = || predicate::str::contains("Connection refused");
    get().env("SHA_API_SERVER", &dead).assert().code(2).stdout("").stderr(predicate::str::contains("one of them"));
    get().args(["--server", &dead]).assert().code(3).stdout("").stderr(refused());
    let mut by_flag = get();
    by_flag.env("SHA_API_SERVER", &dead).arg("--store").arg(sandbox.store()).assert().code(0).stdout("foo");
    let file = sandbox.write_file("settings.toml", format!("server = '{dead}'").as_bytes());
    get().arg("--config").arg(&file).assert().code(0).stdout("foo");
    get().env_remove("SHA_API_STORE").arg("--config").arg(&file).assert().code(3).stdout("").stderr(refused());
}

#[test]
fn a_message_too_large_for_the_server_is_reported_with_the_remedy() {
    let server = Server::http(&["--max-body", "64KiB"]);
    let url = http_url(server.address);
    let long = pseudorandom_bytes(100_000, 1);
    let put = client_command(std::slice::from_ref(&url), &["put"]).write_stdin(long.clone()).assert();
    let why =
        "cannot store a message of 100000 bytes: over the limit of the server; raise its --max-message and --max-body";
    put.code(3).stdout("").stderr(format!("sha-api: {url}: {why}\n"));
    // What is too much at a time is sent in parts.
    let (one, other) = ("x".repeat(50_000), "y".repeat(50_000));
    let put = client_command(&[url], &["put", "--lines"]).write_stdin(format!("{one}\n{other}\n")).assert();
    put.code(0).stdout(format!("{}\n{}\n", digest(one.as_bytes()), digest(other.as_bytes()))).stderr("");
}

#[test]
fn two_hundred_concurrent_commands_on_a_served_store_are_answered() {
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
    let held = format!("locked by process {} (sha-api serve)", server.pid().as_raw_nonzero());
    second.code(3).stderr(predicate::str::contains(held));
}

#[test]
fn a_served_store_with_a_long_path_is_found() {
    let sandbox = Sandbox::new();
    let deep = (0..4).fold(sandbox.dir().join("a"), |dir, _| dir.join("b".repeat(60)));
    let server = Server::start(Sandbox::new(), &["--http", "--store", deep.to_str().unwrap()]);
    sandbox
        .sha_api(["put", "foo", "--lock-timeout", "0s", "--store"])
        .arg(&deep)
        .assert()
        .code(0)
        .stdout(format!("{FOO}\n"));
    drop(server);
    sandbox.sha_api(["get", FOO, "--store"]).arg(&deep).assert().code(0).stdout("foo").stderr("");
}

#[test]
fn a_socket_can_be_given_as_a_url() {
    let server = Server::start(Sandbox::with_messages(&[b"foo"]), &[]);
    let url = format!("unix:{}", server.sandbox.store().join("sha-api.sock").display());
    client_command(&[url], &["get", FOO]).assert().code(0).stdout("foo").stderr("");
    let nowhere = client_command(&["unix:/no/such.sock".to_owned()], &["get", FOO]).assert();
    nowhere.code(3).stdout("").stderr("sha-api: unix:/no/such.sock: No such file or directory (os error 2)\n");
}
