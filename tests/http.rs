//! The contract over HTTP, on a running server, wherever it keeps its messages: batches, uploads, listings, removal, parts, and what is declared.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::place::{Place, in_each_place};
use crate::common::server::{Reply, Server, request};
use crate::common::{FOO, digest, noise};

const LINES: &str = "Content-Type: application/x-ndjson\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const BYTES: &str = "Accept: application/octet-stream\r\n";
/// Of `foo` and of `bar`, as RFC 9530 writes them.
const SHA_FOO: &str = "sha-256=:LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564=:";
const SHA_BAR: &str = "sha-256=:/N4rLtula/QIYB+3If6bXDONEO5CnqBPrlURto+/j7k=:";

in_each_place! {
    lines_that_are_put_are_answered_in_order_and_are_there,
    who_puts_at_the_same_time_as_others_is_answered_for_its_own_message,
    a_message_beyond_the_longest_is_a_bad_line_and_an_upload_of_it_413,
    an_upload_is_201_when_new_200_when_known_and_409_when_it_is_another_message,
    who_expects_continue_need_not_send_what_is_stored_and_must_send_all_else,
    a_known_message_that_is_corrupt_is_asked_for_and_stored_afresh,
    the_absent_are_told_and_many_are_got_in_order,
    a_long_batch_is_got_in_several_replies_by_many_at_once,
    a_listing_goes_on_where_its_link_leads_until_all_was_listed,
    a_parameter_that_is_wrong_is_400_and_named,
    what_was_removed_is_not_answered_from_memory_either,
    readers_never_see_a_message_after_its_removal_was_acknowledged,
    one_range_of_the_bytes_is_206_and_what_is_not_there_416,
    a_body_that_is_not_what_it_is_said_to_be_is_400_and_nothing_is_stored,
    the_counts_and_the_health_are_told,
    everything_is_verified_step_by_step_and_what_is_damaged_is_put_out_of_the_way,
}

fn path(message: &[u8]) -> String {
    format!("/messages/{}", digest(message))
}

fn ask(server: &Server, method: &str, path: &str, fields: &str, body: impl AsRef<[u8]>) -> Reply {
    server.client().exchange(request(method, path, fields, body))
}

fn lines(reply: &Reply) -> Vec<Value> {
    assert_eq!((reply.status, reply.field("Content-Type")), (200, Some("application/x-ndjson")), "{}", reply.text());
    reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn named(digests: impl IntoIterator<Item = String>) -> String {
    digests.into_iter().map(|digest| format!("{{\"digest\": \"{digest}\"}}\n")).collect()
}

/// Who may do everything, and says so to a server that knows what a token is.
struct All {
    server: Server,
    token: &'static str,
}

impl All {
    fn with(place: &Place, messages: &[&[u8]]) -> Self {
        let sandbox = if messages.is_empty() { place.empty() } else { place.with(messages) };
        let line = format!("all read,write,list,rm {}\n", digest(b"secret"));
        let tokens = sandbox.file("tokens", line.as_bytes());
        let server = Server::start(sandbox, &["--http", "--token-file", tokens.to_str().unwrap()]);
        Self { server, token: "Authorization: Bearer secret\r\n" }
    }

    fn ask(&self, method: &str, path: &str, fields: &str, body: impl AsRef<[u8]>) -> Reply {
        ask(&self.server, method, path, &[self.token, fields].concat(), body)
    }
}

fn lines_that_are_put_are_answered_in_order_and_are_there(place: &Place) {
    for server in [place.http(&[]), place.https(&[])] {
        let body = format!(
            "{{\"message\": \"foo\"}}\nnonsense\n{{\"base64\": \"/w==\", \"digest\": \"{FOO}\"}}\n{{\"base64\": \"/w==\"}}"
        );
        let out = lines(&ask(&server, "POST", "/messages", LINES, &body));
        assert_eq!(out[0], json!({"digest": FOO, "new": true}));
        assert!(out[1]["err_msg"].as_str().unwrap().starts_with("Invalid line"));
        assert_eq!(out[2], json!({"err_msg": "The message does not hash to its digest"}));
        assert_eq!(out[3], json!({"digest": digest(b"\xff"), "new": true}));
        assert_eq!(server.get(&path(b"foo")).text(), r#"{"message": "foo"}"#);
        let again = lines(&ask(&server, "POST", "/messages", LINES, "{\"message\": \"foo\"}\n"));
        assert_eq!(again, [json!({"digest": FOO, "new": false})]);
    }
}

fn who_puts_at_the_same_time_as_others_is_answered_for_its_own_message(place: &Place) {
    let server = place.http(&[]);
    let message = |who: usize, turn: usize| format!("{turn}\n\u{e4}\"{}", who % 20);
    std::thread::scope(|scope| {
        for who in 0..24 {
            let (server, message) = (&server, &message);
            scope.spawn(move || {
                let mut client = server.client();
                for turn in 0..20 {
                    let message = message(who, turn);
                    let reply =
                        client.exchange(request("POST", "/messages", JSON, json!({"message": message}).to_string()));
                    let digest = digest(message.as_bytes());
                    assert_eq!((reply.status, reply.text()), (200, format!("{{\"digest\": \"{digest}\"}}").as_str()));
                    assert_eq!(reply.field("Location"), Some(path(message.as_bytes()).as_str()));
                    let reply = client.exchange(request("POST", "/messages", JSON, r#"{"base64": "AA=="}"#));
                    let words = r#"{"err_msg": "Invalid JSON request, no message key found"}"#;
                    assert_eq!((reply.status, reply.text()), (400, words));
                }
            });
        }
    });
    let digests = (0..400).map(|number| digest(message(number / 20, number % 20).as_bytes()));
    assert_eq!(lines(&ask(&server, "POST", "/messages/missing", LINES, named(digests))), [] as [Value; 0]);
}

fn a_message_beyond_the_longest_is_a_bad_line_and_an_upload_of_it_413(place: &Place) {
    let server = place.http(&["--max-message", "3B"]);
    let out = lines(&ask(&server, "POST", "/messages", LINES, "{\"message\": \"long\"}\n{\"message\": \"foo\"}\n"));
    assert_eq!(out, [json!({"err_msg": "Message is too large"}), json!({"digest": FOO, "new": true})]);
    assert_eq!(ask(&server, "PUT", &path(b"long"), "", "long").status, 413);
}

fn an_upload_is_201_when_new_200_when_known_and_409_when_it_is_another_message(place: &Place) {
    let server = place.http(&[]);
    let upper = format!("/messages/{}", FOO.to_uppercase());
    for (to, body, status) in [
        (path(b"foo"), &b"bar"[..], 409),
        (path(b"foo"), b"", 409),
        (path(b"foo"), b"foo", 201),
        (upper, b"foo", 200),
        (path(b"\xff\0"), b"\xff\0", 201),
        (path(b""), b"", 201),
        ("/messages/2c26".to_owned(), b"foo", 400),
        ("/messages/".to_owned(), b"foo", 400),
    ] {
        let reply = ask(&server, "PUT", &to, "Content-Type: text/whatever\r\n", body);
        assert_eq!(reply.status, status, "{to} {}", reply.text());
        if status < 300 {
            assert_eq!(reply.text(), format!("{{\"digest\": \"{}\"}}", digest(body)));
            assert_eq!(reply.field("Location"), Some(path(body).as_str()));
        }
    }
    let got = ask(&server, "GET", &path(b"\xff\0"), BYTES, "");
    assert_eq!((got.status, got.body.as_slice()), (200, &b"\xff\0"[..]));
    assert_eq!(server.get(&path(b"bar")).status, 404, "what did not hash to the digest is not stored");
}

fn who_expects_continue_need_not_send_what_is_stored_and_must_send_all_else(place: &Place) {
    let server = place.http(&[]);
    server.put("foo");
    let head = |message: &[u8], fields: &str| {
        format!("PUT {} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{fields}\r\n", path(message))
    };
    for fields in [
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        &format!("Content-Length: 3\r\nContent-Digest: {SHA_FOO}\r\n"),
    ] {
        let mut client = server.client();
        client.send(head(b"foo", fields));
        let rest = client.rest();
        assert!(rest.starts_with("HTTP/1.1 200 ") && rest.contains("Connection: close\r\n"), "{rest}");
        assert!(rest.ends_with(&format!("{{\"digest\": \"{FOO}\"}}")), "{rest}");
    }
    for (message, fields) in [
        (&b"bar"[..], "Content-Length: 3\r\n"),
        (b"foo", "Content-Length: 4\r\n"),
        (b"foo", &format!("Content-Length: 3\r\nRepr-Digest: {SHA_BAR}\r\n")),
    ] {
        let mut client = server.client();
        client.send(head(message, fields));
        assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n", "{fields}");
    }
    for (to, fields, status) in [("2c26", "", 400), (FOO, "Content-Digest: x\r\n", 400)] {
        let mut client = server.client();
        let head = format!("PUT /messages/{to} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n");
        client.send(head + fields + "\r\n");
        assert!(client.rest().starts_with(&format!("HTTP/1.1 {status} ")), "{to} {fields}");
    }
}

fn a_known_message_that_is_corrupt_is_asked_for_and_stored_afresh(place: &Place) {
    let server = place.http(&["--cache-size", "0B"]);
    let message = noise(1000, 7);
    let to = path(&message);
    assert_eq!(ask(&server, "PUT", &to, "", &message).status, 201);
    place.damage(&server.sandbox, &message);
    let reply = ask(&server, "GET", &to, BYTES, "");
    assert_eq!((reply.status, reply.text()), (500, r#"{"err_msg": "Message is corrupt"}"#));
    let out = lines(&ask(&server, "POST", "/messages/get", LINES, named([digest(&message)])));
    assert_eq!(out, [json!({"digest": digest(&message), "corrupt": true})]);
    let mut client = server.client();
    client.send(format!(
        "PUT {to} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        message.len()
    ));
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(&message);
    assert!([200, 201].contains(&client.reply().status));
    assert_eq!(ask(&server, "GET", &to, BYTES, "").status, 200);
}

fn the_absent_are_told_and_many_are_got_in_order(place: &Place) {
    let server = place.http(&["--max-body", "2MiB"]);
    let large = "x".repeat((1 << 20) + 1);
    server.put("foo");
    server.put(&large);
    let digests = [digest(b"a"), FOO.to_uppercase(), digest(b"b"), digest(large.as_bytes())];
    let body = named(digests);
    let missing = ask(&server, "POST", "/messages/missing", LINES, &body);
    assert_eq!(missing.text(), named([digest(b"a"), digest(b"b")]));
    let got = lines(&ask(&server, "POST", "/messages/get", LINES, &body));
    assert_eq!(
        got[..3],
        [
            json!({"digest": digest(b"a"), "absent": true}),
            json!({"digest": FOO, "message": "foo"}),
            json!({"digest": digest(b"b"), "absent": true}),
        ]
    );
    assert_eq!(got[3..], [json!({"digest": digest(large.as_bytes()), "large": true})]);
    let reply = ask(&server, "POST", "/messages/get", LINES, body + "nonsense\n");
    assert_eq!((reply.status, reply.text()), (400, r#"{"err_msg": "Line 5 is no JSON object with a digest"}"#));
    assert_eq!(ask(&server, "POST", "/messages/get", JSON, "").status, 400);
}

fn a_long_batch_is_got_in_several_replies_by_many_at_once(place: &Place) {
    let server = place.http(&["--max-body", "2MiB"]);
    let messages: Vec<_> = (0..12).map(|seed: u8| char::from(b'a' + seed).to_string().repeat(1_000_000)).collect();
    let digests: Vec<_> = messages.iter().map(|message| digest(message.as_bytes())).collect();
    for message in &messages {
        server.put(message);
    }
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let mut left = digests.as_slice();
                while !left.is_empty() {
                    let got = lines(&ask(&server, "POST", "/messages/get", LINES, named(left.to_vec())));
                    for line in &got {
                        assert_eq!(digest(line["message"].as_str().unwrap().as_bytes()), line["digest"]);
                    }
                    assert!((1..=8).contains(&got.len()));
                    left = &left[got.len()..];
                }
            });
        }
    });
}

fn a_listing_goes_on_where_its_link_leads_until_all_was_listed(place: &Place) {
    let messages: Vec<_> = (0..25).map(|number: u8| vec![number]).collect();
    let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).filter(|message| **message != [0]).collect();
    let all = All::with(place, &slices);
    let mut listed = Vec::new();
    let mut next = Some("/messages?limit=7".to_owned());
    while let Some(link) = next {
        let page = all.ask("GET", &link, "", "");
        assert_eq!(page.status, 200, "{}", page.text());
        let value: Value = serde_json::from_str(page.text()).unwrap();
        for entry in value["messages"].as_array().unwrap() {
            assert_eq!((&entry["length"], entry["stored_at"].as_str().unwrap().len()), (&json!(1), 20));
            listed.push(entry["digest"].as_str().unwrap().to_owned());
        }
        let link =
            page.field("Link").map(|link| link.strip_prefix('<').unwrap().split_once(">; rel=\"next\"").unwrap());
        next = link.map(|(link, rest)| (link.to_owned(), rest)).map(|(link, rest)| {
            assert_eq!(rest, "");
            link
        });
    }
    let sorted: BTreeSet<_> = slices.iter().map(|message| digest(message)).collect();
    assert_eq!(listed, sorted.into_iter().collect::<Vec<_>>());
    let first = &listed[0];
    let by_prefix = all.ask("GET", &format!("/messages?prefix={}&limit=1", first[..8].to_uppercase()), "", "");
    assert!(by_prefix.text().contains(first.as_str()));
    assert!(by_prefix.field("Link").unwrap().contains(&format!("prefix={}", first[..8].to_uppercase())));
    assert_eq!(all.ask("GET", "/messages?limit=99999999999999999999999", "", "").status, 200);
}

fn a_parameter_that_is_wrong_is_400_and_named(place: &Place) {
    let all = All::with(place, &[]);
    for (query, name) in [
        ("after=2c26", "after"),
        ("after=", "after"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("prefix=xy", "prefix"),
        ("limit=1&limit=2", "limit"),
        ("foo=bar", "foo"),
        ("limit", "limit"),
    ] {
        let reply = all.ask("GET", &format!("/messages?{query}"), "", "");
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.text().contains(&format!("Invalid parameter {name}: ")), "{}", reply.text());
    }
}

fn what_was_removed_is_not_answered_from_memory_either(place: &Place) {
    let all = All::with(place, &[b"foo", b"bar"]);
    let get = |message: &[u8], fields: &str| all.ask("GET", &path(message), fields, "").status;
    for _ in 0..2 {
        assert_eq!((get(b"foo", ""), get(b"foo", BYTES), get(b"bar", "")), (200, 200, 200));
    }
    let gone = all.ask("DELETE", &path(b"foo"), "", "");
    assert_eq!((gone.status, gone.field("Content-Length"), gone.body.len()), (204, None, 0));
    assert_eq!((get(b"foo", ""), get(b"foo", BYTES)), (404, 404));
    assert_eq!(all.ask("DELETE", &path(b"foo"), "", "").text(), r#"{"err_msg": "Message not found"}"#);
    let body = named([FOO.to_owned(), digest(b"bar")]);
    let out = lines(&all.ask("POST", "/messages/remove", LINES, body));
    assert_eq!(out, [json!({"digest": FOO, "removed": false}), json!({"digest": digest(b"bar"), "removed": true})]);
    assert_eq!(get(b"bar", ""), 404);
    assert_eq!(all.ask("PUT", &path(b"foo"), "", "foo").status, 201);
    assert_eq!(get(b"foo", ""), 200);
}

fn readers_never_see_a_message_after_its_removal_was_acknowledged(place: &Place) {
    let all = All::with(place, &[]);
    for round in 0..20 {
        let message = format!("round {round}");
        let to = path(message.as_bytes());
        assert_eq!(all.ask("PUT", &to, "", &message).status, 201);
        let gone = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..30 {
                        let was_gone = gone.load(std::sync::atomic::Ordering::SeqCst);
                        let status = all.ask("GET", &to, "", "").status;
                        assert!(status == 404 || status == 200 && !was_gone, "{status}");
                    }
                });
            }
            assert_eq!(all.ask("DELETE", &to, "", "").status, 204);
            gone.store(true, std::sync::atomic::Ordering::SeqCst);
        });
    }
}

fn one_range_of_the_bytes_is_206_and_what_is_not_there_416(place: &Place) {
    let server = place.http(&[]);
    let to = server.put("0123456789");
    let tag = format!("\"{}-bytes\"", digest(b"0123456789"));
    let get = |fields: &str| ask(&server, "GET", &to, &[BYTES, fields].concat(), "");
    // The second time around the whole message is in the cache.
    for _ in 0..2 {
        for (range, content_range, body) in [
            ("bytes=0-0", "bytes 0-0/10", "0"),
            ("bytes=3-5", "bytes 3-5/10", "345"),
            ("bytes=7-99", "bytes 7-9/10", "789"),
            ("bytes=-2", "bytes 8-9/10", "89"),
        ] {
            let reply = get(&format!("Range: {range}\r\nIf-Range: {tag}\r\n"));
            assert_eq!((reply.status, reply.text()), (206, body), "{range}");
            assert_eq!(reply.field("Content-Range"), Some(content_range));
            assert_eq!((reply.field("ETag"), reply.field("Accept-Ranges")), (Some(tag.as_str()), Some("bytes")));
            assert_eq!(reply.field("Repr-Digest"), get("").field("Repr-Digest"), "of the whole message");
        }
        let beyond = get("Range: bytes=10-\r\n");
        assert_eq!((beyond.status, beyond.field("Content-Range")), (416, Some("bytes */10")));
        assert_eq!(beyond.field("Repr-Digest").or(beyond.field("ETag")), None, "these would speak of the error");
        for whole in [
            "Range: bytes=0-1,3-4\r\n",
            "Range: lines=0-1\r\n",
            "Range: bytes=5-2\r\n",
            "Range: bytes=0-1\r\nIf-Range: \"other\"\r\n",
            "Range: bytes=0-1\r\nIf-Range: W/\"x\"\r\n",
            "Range: bytes=0-1\r\nIf-Range: Mon, 23 Nov 2026 00:00:00 GMT\r\n",
        ] {
            let reply = get(whole);
            assert_eq!(
                (reply.status, reply.text(), reply.field("Content-Range")),
                (200, "0123456789", None),
                "{whole}"
            );
        }
        let as_json = ask(&server, "GET", &to, "Range: bytes=0-1\r\n", "");
        assert_eq!((as_json.status, as_json.field("Accept-Ranges")), (200, None));
        let mut client = server.client();
        client.send(request("HEAD", &to, &[BYTES, "Range: bytes=0-1\r\n"].concat(), ""));
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Length: 10\r\n"), "{head}");
        let known = get(&format!("Range: bytes=0-1\r\nIf-None-Match: {tag}\r\n"));
        assert_eq!(known.status, 304);
    }
    assert_eq!(get("Range: bytes=0-1\r\nRange: bytes=0-1\r\n").status, 400);
}

fn a_body_that_is_not_what_it_is_said_to_be_is_400_and_nothing_is_stored(place: &Place) {
    let server = place.http(&[]);
    let (json, line) = (r#"{"message": "foo"}"#, "{\"message\": \"foo\"}\n");
    for field in ["Content-Digest", "Repr-Digest"] {
        for (method, to, kind, body) in [
            ("PUT", path(b"foo"), "", "foo"),
            ("POST", "/messages".to_owned(), JSON, json),
            ("POST", "/messages".to_owned(), LINES, line),
        ] {
            for bad in [SHA_BAR, "sha-256=:AAAA:", "sha-256", "sha-256=:%:"] {
                let reply = ask(&server, method, &to, &format!("{kind}{field}: {bad}\r\n"), body);
                assert_eq!(reply.status, 400, "{method} {field}: {bad}");
            }
            assert_eq!(server.get(&path(b"foo")).status, 404);
        }
    }
    let reply =
        ask(&server, "PUT", &path(b"foo"), &format!("Content-Digest: md5=:AAAA:\r\nRepr-Digest: {SHA_FOO}\r\n"), "foo");
    assert_eq!(reply.status, 201);
}

fn the_counts_and_the_health_are_told(place: &Place) {
    let all = All::with(place, &[b"foo"]);
    let reply = all.ask("GET", "/stats", "", "");
    let stats: Value = serde_json::from_str(reply.text()).unwrap();
    assert_eq!((&stats["messages"], &stats["bytes"], &stats["health"]), (&json!(1), &json!(3), &json!("ok")));
    assert!(stats["newest"].is_string() && stats["disk"].as_u64().unwrap() > 0);
}

fn everything_is_verified_step_by_step_and_what_is_damaged_is_put_out_of_the_way(place: &Place) {
    let all = All::with(place, &[b"foo", b"bar"]);
    let verify = |from: &Value| {
        let reply = all.ask("POST", "/verify", JSON, json!({ "from": from }).to_string());
        assert_eq!(reply.status, 200, "{}", reply.text());
        serde_json::from_str::<Value>(reply.text()).unwrap()
    };
    let (mut from, mut whole) = (Value::Null, 0);
    loop {
        let step = verify(&from);
        whole += step["messages"].as_u64().unwrap();
        assert_eq!(step["damage"], json!([]));
        from = step["next"].clone();
        if from.is_null() {
            break;
        }
    }
    assert_eq!(whole, 2);
    for bad in ["", "[]", "[null]", r#"{"from": 1}"#, r#"{"from": "nowhere"}"#, "nonsense"] {
        assert_eq!(all.ask("POST", "/verify", JSON, bad).status, 400, "{bad}");
    }
    assert_eq!(all.ask("POST", "/repair", JSON, r#"{"damage": []}"#).status, 204);
    let deep = format!("{{\"damage\": [{{\"damage\": \"gap\", \"a\": {}", "[".repeat(100_000));
    for bad in ["", "{}", r#"{"damage": [{"damage": "other"}]}"#, &deep] {
        assert_eq!(all.ask("POST", "/repair", JSON, bad).status, 400);
    }
    all.server.get("/readyz");
}
