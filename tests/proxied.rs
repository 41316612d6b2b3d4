//! sha-api behind nginx and `HAProxy`, as `deploy/` sets them up: what passes, what is kept, what is asked again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::common::proxy::{KINDS, Kind, Proxy};
use crate::common::server::{Client, Reply, Server, post, request, until};
use crate::common::side::{TOKEN, tokens};
use crate::common::{FOO, Sandbox, digest, noise};

const RAW: &str = "Accept: application/octet-stream\r\n";
const LINES: &str = "Content-Type: application/x-ndjson\r\n";

/// What a proxy writes anew by right: about the connection, the time and itself.
const ITS_OWN: [&str; 5] = ["connection", "keep-alive", "date", "server", "x-request-id"];

/// Status, fields in order of their names, and body.
fn essence(reply: &Reply) -> (u16, Vec<String>, String) {
    let fields = reply.head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let mut fields: Vec<_> = fields
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| !ITS_OWN.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    fields.sort();
    (reply.status, fields, reply.body.escape_ascii().to_string())
}

/// Requests of every sort, all of which may be sent twice, and what comes of them.
fn requests() -> Vec<(u16, Vec<u8>)> {
    let binary = digest(&noise(5000, 1));
    let get = |path: &str, fields: &str| request("GET", path, fields, "");
    let (known, other) = (format!("/messages/{FOO}"), format!("/messages/{}", digest(b"absent")));
    let json = "Content-Type: application/json\r\n";
    let lines = "{\"message\": \"one\"}\n{\"message\": 2}\n{\"base64\": \"AP8=\"}\n";
    let asked = format!("{{\"digest\": \"{FOO}\"}}\n{{\"digest\": \"{}\"}}\n", digest(b"absent"));
    vec![
        (200, request("POST", "/messages", json, "{\"message\": \"foo\"}")),
        (400, request("POST", "/messages", "Content-Type: text/plain\r\n", "foo")),
        (400, request("POST", "/messages", json, "{\"massage\": \"foo\"}")),
        (200, get(&known, "")),
        (200, get(&known, RAW)),
        (200, get(&known.to_uppercase().replace("MESSAGES", "messages"), "")),
        (304, get(&known, "If-None-Match: *\r\n")),
        (206, get(&known, &format!("{RAW}Range: bytes=1-1\r\n"))),
        (416, get(&known, &format!("{RAW}Range: bytes=9-\r\n"))),
        (404, get(&other, "")),
        (404, get("/messages/nonsense", "")),
        (404, get("/a//b/../c?d=e%20f", "")),
        (200, request("PUT", &format!("/messages/{binary}"), "", noise(5000, 1))),
        (200, get(&format!("/messages/{binary}"), RAW)),
        (406, get(&format!("/messages/{binary}"), "")),
        (409, request("PUT", &other, "", "present")),
        (400, request("PUT", &known, "Repr-Digest: sha-256=:AAAA:\r\n", "foo")),
        (200, request("POST", "/messages", LINES, lines)),
        (200, request("POST", "/messages/missing", LINES, &asked)),
        (200, request("POST", "/messages/get", LINES, &asked)),
        (405, request("PATCH", &known, "", "")),
        (403, request("DELETE", &known, "", "")),
        (403, get("/messages?limit=1", "")),
        (200, get("/livez", "")),
        (200, get("/readyz", "")),
        (200, get("/openapi.json", "")),
        (200, get("/", "Accept: text/html\r\n")),
        (413, request("PUT", &known, "", vec![b'.'; (1 << 20) + 1])),
    ]
}

/// Each proxy that is here, before a server in plain HTTP and before one with TLS, each verified.
fn each(flags: &[&str], claim: impl Fn(&Server, &Proxy)) {
    for server in [Server::http(flags), Server::https(flags)] {
        for kind in KINDS {
            let Some(proxy) = kind.before(&[&server]) else { continue };
            claim(&server, &proxy);
        }
    }
}

#[test]
fn what_is_asked_and_answered_passes_unchanged() {
    each(&[], |server, proxy| {
        for (_, request) in requests() {
            // Then all that is put is known when it is compared.
            server.client().exchange(request);
        }
        for (status, request) in requests() {
            let shown = request[..request.len().min(300)].escape_ascii().to_string();
            let direct = essence(&server.client().exchange(&request));
            assert_eq!(direct.0, status, "{shown}");
            assert_eq!(essence(&proxy.client().exchange(&request)), direct, "{shown}\n{}", proxy.said());
        }
        let head = format!("HEAD /messages/{FOO} HTTP/1.1\r\nHost: a\r\n{RAW}\r\n");
        let ask = |mut client: Client| {
            client.send(&head);
            let head = client.head();
            let after = client.ask("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(after.status, 200, "{head}");
            essence(&Reply { status: 200, head, body: Vec::new() })
        };
        let direct = ask(server.client());
        assert!(direct.1.contains(&"content-length: 3".to_owned()), "{direct:?}");
        assert_eq!(ask(proxy.client()), direct);
    });
}

/// Puts with the body in pieces, or only once that is asked for.
fn upload(client: &mut Client, message: &[u8], fields: &str) -> Reply {
    let path = format!("/messages/{}", digest(message));
    client.send(format!("PUT {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    if fields.contains("Expect") {
        let head = client.head();
        if !head.starts_with("HTTP/1.1 100 ") {
            return client.reply_with(head);
        }
    }
    if fields.contains("chunked") {
        for piece in message.chunks(4_999) {
            client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        }
        client.send("0\r\n\r\n");
    } else {
        client.send(message);
    }
    client.reply()
}

#[test]
fn long_and_binary_messages_pass_in_every_way_to_send_them() {
    each(&[], |_, proxy| {
        for (seed, length) in [0, 1, 16_384, 70_000, 1 << 20].into_iter().enumerate() {
            for (way, more) in ["", "Expect: 100-continue\r\n"].into_iter().enumerate() {
                for framing in [format!("Content-Length: {length}\r\n"), "Transfer-Encoding: chunked\r\n".to_owned()] {
                    let message = noise(length, (seed * 10 + way) as u64 * 10 + framing.len() as u64);
                    let fields = format!("{framing}{more}");
                    // An empty body that is announced is not waited for, and there is only one empty message.
                    if length == 0 && !more.is_empty() {
                        continue;
                    }
                    let reply = upload(&mut proxy.client(), &message, &fields);
                    assert!([200, 201].contains(&reply.status), "{length} {fields}{}{}", reply.head, proxy.said());
                    let get = request("GET", &format!("/messages/{}", digest(&message)), RAW, "");
                    let got = proxy.client().exchange(get);
                    assert!(got.status == 200 && got.body == message, "{length} {fields}{}", got.head);
                }
            }
        }
    });
}

#[test]
fn what_is_too_long_is_refused_in_json_whoever_refuses_it() {
    each(&[], |server, proxy| {
        let message = noise(1_500_000, 1);
        for framing in ["Content-Length: 1500000\r\n", "Transfer-Encoding: chunked\r\n"] {
            let reply = upload(&mut proxy.client(), &message, framing);
            assert_eq!((reply.status, reply.text()), (413, "{\"err_msg\": \"Request body too large\"}"), "{framing}");
        }
        let mut client = proxy.client();
        client.send(format!("PUT /messages/{FOO} HTTP/1.1\r\nHost: a\r\nContent-Length: 70368744177664\r\n\r\n"));
        let reply = client.reply();
        assert_eq!((reply.status, reply.text()), (413, "{\"err_msg\": \"Request body too large\"}"));
        assert_eq!(reply.field("Content-Type"), Some("application/json"));
        server.is_well();
    });
}

/// A number that the server counts.
fn metric(server: &Server, name: &str) -> u64 {
    let text = server.get("/metrics").text().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name}\n{text}")).parse().unwrap()
}

/// A request that puts or gets, of which `number` says what.
fn mixed(number: u64) -> Vec<u8> {
    let message = format!("{number} {}", "long ".repeat(usize::try_from(number % 4).unwrap() * 600));
    match number % 3 {
        0 => post(&message, "").into(),
        1 => request("PUT", &format!("/messages/{}", digest(message.as_bytes())), "", message),
        _ => request("GET", &format!("/messages/{FOO}"), "", ""),
    }
}

fn is_done(number: u64, reply: &Reply, proxy: &Proxy) {
    assert!([200, 201].contains(&reply.status), "{number}: {}{}\n{}", reply.head, reply.text(), proxy.said());
}

/// Mixed requests of four clients, each on a kept connection; none may fail.
fn load(proxy: &Proxy) {
    let one = |client: u64| {
        let mut connection = proxy.client();
        (0..500).for_each(|number| is_done(number, &connection.exchange(mixed(client * 500 + number)), proxy));
    };
    let one = &one;
    thread::scope(|scope| (0..4).for_each(|client| drop(scope.spawn(move || one(client)))));
}

#[test]
fn connections_to_the_server_are_kept_and_used_again() {
    each(&[], |server, proxy| {
        server.client().ask(&post("foo", ""));
        let before = metric(server, "sha_api_connections_total");
        load(proxy);
        let opened = metric(server, "sha_api_connections_total") - before;
        assert!(opened < 50, "2000 requests took {opened} connections");
    });
}

#[test]
fn no_request_fails_though_the_server_closes_connections_just_when_they_are_used() {
    for server in [Server::http, Server::https] {
        let server = server(&["--idle-timeout", "300ms", "--max-requests", "7"]);
        server.put("foo");
        for kind in KINDS {
            let Some(proxy) = kind.before(&[&server]) else { continue };
            let before = metric(&server, "sha_api_connections_total");
            load(&proxy);
            assert!(metric(&server, "sha_api_connections_total") - before > 250, "{kind:?}");
            let mut clients: Vec<_> = (0..8).map(|number| (number, proxy.client())).collect();
            for _ in 0..5 {
                for (number, client) in &mut clients {
                    is_done(*number, &client.exchange(mixed(*number)), &proxy);
                }
                // It learns first that somebody asks, and then that the connections that it kept are closed.
                proxy.signal(Signal::STOP);
                for (number, client) in &mut clients {
                    *number += 8;
                    client.send(mixed(*number));
                }
                until("the server closes all", || metric(&server, "sha_api_connections") == 1);
                proxy.signal(Signal::CONT);
                for (number, client) in &mut clients {
                    is_done(*number, &client.reply(), &proxy);
                }
            }
        }
    }
}

#[test]
fn what_a_server_had_in_hand_when_it_was_killed_is_done_by_the_next() {
    for (kind, length) in [(Kind::Nginx, 300_000), (Kind::Haproxy, 3_000)] {
        let (mut one, other) = (Server::http(&[]), Server::http(&[]));
        let Some(proxy) = kind.before(&[&one, &other]) else { continue };
        // What reaches it from now on is taken by its kernel, and never answered.
        one.signal(Signal::STOP);
        let answered = AtomicUsize::new(0);
        let ask = |number: u64| {
            let message = "m".repeat(length) + &number.to_string();
            let path = format!("/messages/{}", digest(message.as_bytes()));
            let request = if number % 4 < 2 { post(&message, "").into() } else { request("PUT", &path, "", &message) };
            let reply = proxy.client().exchange(request);
            answered.fetch_add(1, Ordering::Relaxed);
            assert!([200, 201].contains(&reply.status), "{number} {}{}\n{}", reply.head, reply.text(), proxy.said());
        };
        thread::scope(|scope| {
            for number in 0..8 {
                let ask = &ask;
                scope.spawn(move || ask(number));
            }
            until("the other has answered its half", || answered.load(Ordering::Relaxed) >= 4);
            one.signal(Signal::KILL);
            one.ended();
        });
        assert_eq!(answered.into_inner(), 8);
    }
}

#[test]
fn that_no_server_answers_is_said_in_json_and_asks_to_come_again() {
    for kind in KINDS {
        let mut server = Server::http(&[]);
        let Some(proxy) = kind.before(&[&server]) else { continue };
        server.signal(Signal::TERM);
        server.ended();
        let reply = proxy.client().ask(&format!("GET /messages/{FOO} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!((reply.status, reply.text()), (503, "{\"err_msg\": \"No server answers\"}"), "{kind:?}");
        assert_eq!((reply.field("Content-Type"), reply.field("Retry-After")), (Some("application/json"), Some("1")));
    }
}

#[test]
fn a_command_says_the_same_through_a_proxy() {
    let numbers: String = (0..3000).map(|number| format!("{number}\n")).collect();
    let long = noise(900_000, 1);
    let here = Sandbox::new();
    let sandbox = Sandbox::new();
    let tokens = tokens(&sandbox);
    std::fs::write(&tokens, format!("all read,write,list,rm {}\n", digest(TOKEN.as_bytes()))).unwrap();
    let server = Server::start(sandbox, &["--http", "--token-file", &tokens]);
    for kind in KINDS {
        let Some(proxy) = kind.before(&[&server]) else { continue };
        let commands: [(&[&str], &[u8]); 8] = [
            (&["put", "--lines"], numbers.as_bytes()),
            (&["put"], &long),
            (&["get", &digest(&long)], b""),
            (&["has", FOO, &digest(b"1")], b""),
            (&["list"], b""),
            (&["export"], b""),
            (&["get", FOO], b""),
            (&["rm", &digest(&long)], b""),
        ];
        let said = |mut command: assert_cmd::Command, stdin: &[u8]| {
            let output = command.write_stdin(stdin).output().unwrap();
            (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
        };
        for (args, stdin) in commands {
            let mut through = here.sha_api(args);
            through.env_remove("SHA_API_STORE").env("SHA_API_SERVER", proxy.url());
            through.env("SHA_API_CACERT", proxy.cert()).env("SHA_API_TOKEN", TOKEN);
            assert!(said(through, stdin) == said(here.sha_api(args), stdin), "{kind:?} {args:?}\n{}", proxy.said());
        }
    }
}

/// The number after `name` in a file of `deploy/`.
fn number(kind: Kind, name: &str) -> u64 {
    let file = std::fs::read_to_string(kind.file()).unwrap();
    let after = file.split_once(name).unwrap_or_else(|| panic!("{name}")).1;
    after.trim_start().split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn the_proxies_close_kept_connections_before_the_server_does() {
    let told = Sandbox::new().sha_api(["serve", "--check"]).assert().code(0);
    let told = String::from_utf8(told.get_output().stdout.clone()).unwrap();
    let default = |name: &str| -> u64 {
        let line = told.lines().find_map(|line| line.strip_prefix(&format!("{name} = "))).unwrap();
        line.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    assert!(number(Kind::Nginx, "keepalive_timeout") < default("idle-timeout"));
    assert!(number(Kind::Nginx, "keepalive_requests") < default("max-requests"));
    assert!(number(Kind::Haproxy, "max-reuse") < default("max-requests"));
    assert!(
        number(Kind::Haproxy, "default-server check inter 1s rise 1 max-reuse 900 maxconn")
            < default("max-connections")
    );
    assert!(number(Kind::Nginx, "client_max_body_size") > default("max-body"), "both in MiB");
}

#[test]
fn neither_warns_of_anything_in_its_file() {
    let server = Server::http(&[]);
    for kind in KINDS {
        let Some(proxy) = kind.before(&[&server]) else { continue };
        assert!(!proxy.said().to_lowercase().contains("warn"), "{}", proxy.said());
    }
}
