//! A client believes no server, waits for none for ever, and says why it cannot go on.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use predicates::prelude::*;

use crate::common::actor::{actor, nobody, reply};
use crate::common::server::Server;
use crate::common::side::{cert, over, token, tokens, url};
use crate::common::{FOO, Sandbox, digest, noise};

fn http(address: std::net::SocketAddr) -> String {
    format!("http://{address}")
}

#[test]
fn the_next_server_is_asked_when_one_does_not_answer() {
    let server = Server::http(&[]);
    let (dead, live) = (http(nobody()), http(server.address));
    over(&[dead.clone(), live.clone()], &["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    over(&[live.clone(), dead.clone()], &["get", FOO]).assert().code(0).stdout("foo").stderr("");
    let both = format!("{dead},{live}");
    over(&[], &["has", FOO]).env("SHA_API_SERVER", both).assert().code(0).stdout("").stderr("");
    let other = http(nobody());
    let nobody = over(&[dead.clone(), other.clone()], &["get", FOO]).assert();
    let why = "Connection refused (os error 111)";
    nobody.code(3).stdout("").stderr(format!("sha-api: {dead}: {why}; {other}: {why}\n"));
}

#[test]
fn who_may_not_is_told_so_with_exit_code_5() {
    let sandbox = Sandbox::with(&[b"foo"]);
    let (reader, all) = (token(&sandbox, "read"), token(&sandbox, "read,write,list,rm"));
    let server = Server::start(Sandbox::with(&[b"foo"]), &["--http", "--token-file", &tokens(&sandbox)]);
    let url = http(server.address);
    let refused = |why: &str| format!("sha-api: {url} does not permit this: {why}\n");
    let ask = |args: &[&str], token: &str| {
        let mut command = over(std::slice::from_ref(&url), args);
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
    ask(&["get", FOO], "no\ntoken").code(3).stdout("").stderr("sha-api: SHA_API_TOKEN is no token\n");
}

#[test]
fn what_a_server_does_not_offer_has_exit_code_5_too() {
    let server = Server::start(Sandbox::with(&[b"foo"]), &["--http", "--read-only"]);
    let url = http(server.address);
    let refused = format!("sha-api: {url} does not permit this: Method not allowed\n");
    over(std::slice::from_ref(&url), &["put", "bar"]).assert().code(5).stdout("").stderr(refused);
    over(&[url], &["get", FOO]).assert().code(0).stdout("foo").stderr("");
}

#[test]
fn a_token_comes_from_a_variable_or_the_file_and_is_never_shown() {
    let sandbox = Sandbox::new();
    let secret = token(&sandbox, "read,write");
    let server = Server::start(Sandbox::new(), &["--http", "--token-file", &tokens(&sandbox)]);
    let settings = format!("token = '{secret}'\nserver = ['{}']\n", http(server.address));
    let file = sandbox.file("settings.toml", settings.as_bytes());
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
fn only_a_certificate_that_someone_vouches_for_is_trusted() {
    let server = Server::https(&[]);
    let other = Server::https(&[]);
    let url = url(&server);
    let get = |args: &[&str]| over(std::slice::from_ref(&url), &[&["get", FOO], args].concat());
    let unknown = "nobody whom we trust vouches for its certificate; --cacert names who may";
    get(&[]).assert().code(3).stdout("").stderr(format!("sha-api: {url}: {unknown}\n"));
    let with = |file: &Path| {
        let mut get = get(&["--cacert"]);
        get.arg(file);
        get.assert()
    };
    with(&cert(&other.sandbox)).code(3).stdout("");
    with(&cert(&server.sandbox)).code(1).stdout("");
    let nonsense = server.sandbox.file("nonsense.pem", b"nonsense");
    with(&nonsense).code(3).stderr(predicate::str::ends_with("nonsense.pem: there is no certificate in it\n"));
    with(Path::new("/no/such.pem")).code(3).stderr(predicate::str::contains("cannot use /no/such.pem: "));
}

#[test]
fn a_certificate_for_another_name_is_not_trusted() {
    let made = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
    let sandbox = Sandbox::new();
    let cert = sandbox.file("cert.pem", made.cert.pem().as_bytes());
    let key = sandbox.file("key.pem", made.signing_key.serialize_pem().as_bytes());
    let pair = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let server = Server::begin(Sandbox::new(), &pair);
    let put = over(&[url(&server)], &["put", "foo", "--cacert", cert.to_str().unwrap()]).assert();
    put.code(3).stdout("").stderr(predicate::str::contains("its certificate cannot be trusted: certificate not valid"));
}

#[test]
fn a_client_shows_its_certificate_to_a_server_that_asks_for_it() {
    let made = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    let sandbox = Sandbox::new();
    let chain = sandbox.file("client.pem", made.cert.pem().as_bytes());
    let key = sandbox.file("client.key", made.signing_key.serialize_pem().as_bytes());
    let wrong = sandbox.file("wrong.key", other.signing_key.serialize_pem().as_bytes());
    let both = sandbox.file("both.pem", [made.cert.pem(), made.signing_key.serialize_pem()].concat().as_bytes());
    let server = Server::begin(Sandbox::new(), &["--tls-client-ca", chain.to_str().unwrap()]);
    let put = |args: &[&Path]| {
        let mut put = over(&[url(&server)], &["put", "foo", "--wait", "30s", "--cacert"]);
        put.arg(cert(&server.sandbox));
        for (flag, file) in ["--cert", "--key"].iter().zip(args) {
            put.arg(flag).arg(file);
        }
        put.assert()
    };
    put(&[&chain, &key]).code(0).stdout(format!("{FOO}\n")).stderr("");
    put(&[&both]).code(0).stdout(format!("{FOO}\n")).stderr("");
    put(&[]).code(3).stdout("").stderr(predicate::str::starts_with(format!("sha-api: {}: ", url(&server))));
    put(&[&chain, &wrong]).code(3).stdout("").stderr(predicate::str::contains("cannot use "));
    put(&[&chain]).code(3).stdout("").stderr(predicate::str::contains("cannot use "));
    let alone = over(&[url(&server)], &["put", "foo", "--key", key.to_str().unwrap()]).assert();
    alone.code(2).stdout("").stderr(predicate::str::contains("--cert must name it"));
}

#[test]
fn wrong_bytes_are_never_handed_out() {
    let bar = digest(b"bar");
    let lying = actor(move |first, _| match first.starts_with("GET /messages/") {
        true => reply(200, "Content-Type: application/octet-stream\r\n", "not foo"),
        false => reply(
            200,
            "Content-Type: application/x-ndjson\r\n",
            &format!(
                "{{\"digest\":\"{FOO}\",\"message\":\"not foo\"}}\n{{\"digest\":\"{bar}\",\"message\":\"bar\"}}\n"
            ),
        ),
    });
    let url = [http(lying)];
    let corrupt = predicate::str::contains(format!("{FOO} is corrupt"));
    over(&url, &["get", FOO]).assert().code(4).stdout("").stderr(corrupt.clone());
    over(&url, &["get", FOO, &digest(b"bar")]).assert().code(4).stdout("bar").stderr(corrupt.clone());
    over(&url, &["get", "--json", FOO]).assert().code(4).stdout("").stderr(corrupt);
}

#[test]
fn an_answer_that_cannot_be_true_is_an_error_that_names_the_server() {
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
        let url = http(actor(move |_, _| reply(200, "", &answer)));
        let command = over(std::slice::from_ref(&url), args).write_stdin(stdin).assert();
        let why = format!("sha-api: {url}: its answer makes no sense: ");
        command.code(3).stdout("").stderr(predicate::str::starts_with(why));
    }
    let url = http(actor(|_, _| "SSH-2.0-OpenSSH\r\n".to_owned()));
    let get = over(std::slice::from_ref(&url), &["get", FOO]).assert();
    get.code(3).stdout("").stderr(predicate::str::starts_with(format!("sha-api: {url}: ")));
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = http(silent.local_addr().unwrap());
    for scheme in [url.clone(), url.replace("http:", "https:")] {
        let get = over(std::slice::from_ref(&scheme), &["get", FOO, "--timeout", "100ms"]).assert();
        let why = predicate::str::starts_with(format!("sha-api: {scheme}: no "));
        get.code(3).stdout("").stderr(why.and(predicate::str::contains("within 100ms")));
    }
    let server = Server::http(&[]);
    let live = http(server.address);
    over(&[url, live], &["put", "foo", "--timeout", "100ms"]).assert().code(0).stdout(format!("{FOO}\n"));
}

#[test]
fn a_server_that_will_be_ready_soon_is_waited_for_and_no_longer_than_asked() {
    let busy = || reply(503, "Retry-After: 1\r\n", r#"{"err_msg": "The store is not open yet"}"#);
    let mut asked = 0;
    let opening = http(actor(move |_, _| {
        asked += 1;
        if asked < 3 { busy() } else { reply(201, "", &format!("{{\"digest\":\"{FOO}\"}}")) }
    }));
    over(&[opening], &["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    let never = http(actor(move |_, _| busy()));
    let put = over(std::slice::from_ref(&never), &["put", "foo", "--wait", "10ms"]).assert();
    put.code(3).stdout("").stderr(format!("sha-api: {never}: The store is not open yet\n"));
}

#[test]
fn nobody_is_sent_elsewhere() {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = http(trap.local_addr().unwrap());
    let field = format!("Location: {to}/messages\r\n");
    let url = http(actor(move |_, _| reply(307, &field, "")));
    let put = over(std::slice::from_ref(&url), &["put", "foo"]).assert();
    put.code(3).stdout("").stderr(format!("sha-api: {url}: it refers to {to}/messages, which is not followed\n"));
    trap.set_nonblocking(true).unwrap();
    assert_eq!(trap.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn what_is_no_url_is_a_usage_error() {
    for bad in ["localhost:8443", "ftp://a", "https://a/b", "https://u:p@a", "unix:"] {
        let get = over(&[bad.to_owned()], &["get", FOO]).assert();
        get.code(2).stdout("").stderr(predicate::str::contains(format!("`{bad}` is no URL of a server")));
    }
}

#[test]
fn a_flag_for_the_store_goes_before_a_variable_for_the_server_and_the_other_way_round() {
    let sandbox = Sandbox::with(&[b"foo"]);
    let dead = http(nobody());
    let get = || sandbox.sha_api(["get", FOO]);
    let refused = || predicate::str::contains("Connection refused");
    get().env("SHA_API_SERVER", &dead).assert().code(2).stdout("").stderr(predicate::str::contains("one of them"));
    get().args(["--server", &dead]).assert().code(3).stdout("").stderr(refused());
    let mut by_flag = get();
    by_flag.env("SHA_API_SERVER", &dead).arg("--store").arg(sandbox.store()).assert().code(0).stdout("foo");
    let file = sandbox.file("settings.toml", format!("server = '{dead}'").as_bytes());
    get().arg("--config").arg(&file).assert().code(0).stdout("foo");
    get().env_remove("SHA_API_STORE").arg("--config").arg(&file).assert().code(3).stdout("").stderr(refused());
}

#[test]
fn a_message_that_a_server_does_not_take_is_said_with_the_remedy() {
    let server = Server::http(&["--max-body", "64KiB"]);
    let url = http(server.address);
    let long = noise(100_000, 1);
    let put = over(std::slice::from_ref(&url), &["put"]).write_stdin(long.clone()).assert();
    let why = "a message of 100000 bytes is more than it takes; its --max-message and --max-body raise that";
    put.code(3).stdout("").stderr(format!("sha-api: {url}: {why}\n"));
    // What is too much at a time is sent in parts.
    let (one, other) = ("x".repeat(50_000), "y".repeat(50_000));
    let put = over(&[url], &["put", "--lines"]).write_stdin(format!("{one}\n{other}\n")).assert();
    put.code(0).stdout(format!("{}\n{}\n", digest(one.as_bytes()), digest(other.as_bytes()))).stderr("");
}

#[test]
fn two_hundred_commands_at_once_beside_a_server_are_answered() {
    let server = Server::start(Sandbox::new(), &[]);
    server.sandbox.put_at_once(200);
    let list = server.sandbox.sha_api(["list"]).assert().code(0).get_output().stdout.clone();
    assert_eq!(list.split(|byte| *byte == b'\n').count(), 201);
}

#[test]
fn a_socket_that_a_dead_server_left_is_passed_over() {
    let sandbox = Sandbox::with(&[b"foo"]);
    drop(UnixListener::bind(sandbox.store().join("sha-api.sock")).unwrap());
    sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
    sandbox.file("store/sha-api.sock.not", b"");
    std::fs::remove_file(sandbox.store().join("sha-api.sock")).unwrap();
    sandbox.file("store/sha-api.sock", b"");
    sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
}

#[test]
fn who_waits_for_a_store_takes_the_server_that_gets_it_first() {
    let sandbox = Sandbox::new();
    let mut put = sandbox.held("foo");
    let mut command = sandbox.process(["get", "--wait", "60s", FOO]);
    let get = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let server = Server::begin(sandbox, &["--wait", "60s"]);
    assert!(put.wait().unwrap().success());
    let output = get.wait_with_output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (b"foo".as_slice(), b"".as_slice()));
    server.is_ready();
}

#[test]
fn a_second_server_does_not_ask_the_first_but_says_who_it_is() {
    let server = Server::start(Sandbox::new(), &[]);
    let second = server.sandbox.sha_api(["serve", "--listen", "127.0.0.1:0", "--wait", "50ms"]).assert();
    let held = format!("is held by process {} (sha-api serve)", server.pid().as_raw_nonzero());
    second.code(3).stderr(predicate::str::contains(held));
}

#[test]
fn a_served_store_is_found_however_long_its_path_is() {
    let sandbox = Sandbox::new();
    let deep = (0..4).fold(sandbox.dir().join("a"), |dir, _| dir.join("b".repeat(60)));
    let server = Server::start(Sandbox::new(), &["--http", "--store", deep.to_str().unwrap()]);
    sandbox.sha_api(["put", "foo", "--wait", "0s", "--store"]).arg(&deep).assert().code(0).stdout(format!("{FOO}\n"));
    drop(server);
    sandbox.sha_api(["get", FOO, "--store"]).arg(&deep).assert().code(0).stdout("foo").stderr("");
}

#[test]
fn a_socket_can_be_named_as_a_url() {
    let server = Server::start(Sandbox::with(&[b"foo"]), &[]);
    let url = format!("unix:{}", server.sandbox.store().join("sha-api.sock").display());
    over(&[url], &["get", FOO]).assert().code(0).stdout("foo").stderr("");
    let nowhere = over(&["unix:/no/such.sock".to_owned()], &["get", FOO]).assert();
    nowhere.code(3).stdout("").stderr("sha-api: unix:/no/such.sock: No such file or directory (os error 2)\n");
}
