//! The contract over HTTP, on a running server, wherever it keeps its messages: batches, uploads, listings, removal, parts, and what is declared.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::server::{Response, Server, build_request};
use crate::common::store_factory::{StoreFactory, for_each_store_kind};
use crate::common::{FOO, digest, pseudorandom_bytes};

const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const ACCEPT_BYTES: &str = "Accept: application/octet-stream\r\n";
/// Of `foo` and of `bar`, as RFC 9530 writes them.
const DIGEST_FIELD_FOO: &str = "sha-256=:LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564=:";
const DIGEST_FIELD_BAR: &str = "sha-256=:/N4rLtula/QIYB+3If6bXDONEO5CnqBPrlURto+/j7k=:";

for_each_store_kind! {
    put_lines_are_answered_in_order_and_stored,
    concurrent_puts_are_each_answered_for_their_own_message,
    an_oversized_message_is_an_invalid_line_and_its_upload_gets_413,
    an_upload_gets_201_if_new_200_if_stored_and_409_on_a_digest_mismatch,
    expect_continue_skips_the_body_of_a_stored_message_only,
    a_corrupt_stored_message_is_requested_and_stored_again,
    missing_digests_are_listed_and_batches_are_read_in_order,
    a_large_batch_is_read_in_several_responses_by_concurrent_clients,
    a_listing_is_complete_when_its_links_are_followed,
    an_invalid_parameter_gets_400_and_is_named,
    a_removed_message_is_not_served_from_the_cache,
    readers_never_see_a_message_after_its_acknowledged_removal,
    a_byte_range_gets_206_and_an_unsatisfiable_one_416,
    a_body_that_contradicts_its_digest_field_gets_400_and_is_not_stored,
    stats_report_counts_and_health,
    verification_covers_the_store_in_steps_and_repair_quarantines_damage,
}

fn message_path(message: &[u8]) -> String {
    format!("/messages/{}", digest(message))
}

fn send_request(server: &Server, method: &str, path: &str, fields: &str, body: impl AsRef<[u8]>) -> Response {
    server.client().call_bytes(build_request(method, path, fields, body))
}

fn json_lines(reply: &Response) -> Vec<Value> {
    assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("application/x-ndjson")), "{}", reply.text());
    reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn digest_lines(digests: impl IntoIterator<Item = String>) -> String {
    digests.into_iter().map(|digest| format!("{{\"digest\": \"{digest}\"}}\n")).collect()
}

/// Who may do everything, and says so to a server that knows what a token is.
struct FullAccessServer {
    server: Server,
    token: &'static str,
}

impl FullAccessServer {
    fn with_messages(place: &StoreFactory, messages: &[&[u8]]) -> Self {
        let sandbox = if messages.is_empty() { place.empty_store() } else { place.with_messages(messages) };
        let line = format!("all read,write,list,rm {}\n", digest(b"secret"));
        let tokens = sandbox.write_file("tokens", line.as_bytes());
        let server = Server::start(sandbox, &["--http", "--token-file", tokens.to_str().unwrap()]);
        Self { server, token: "Authorization: Bearer secret\r\n" }
    }

    fn send(&self, method: &str, path: &str, fields: &str, body: impl AsRef<[u8]>) -> Response {
        send_request(&self.server, method, path, &[self.token, fields].concat(), body)
    }
}

fn put_lines_are_answered_in_order_and_stored(place: &StoreFactory) {
    for server in [place.http(&[]), place.https(&[])] {
        let body = format!(
            "{{\"message\": \"foo\"}}\nnonsense\n{{\"base64\": \"/w==\", \"digest\": \"{FOO}\"}}\n{{\"base64\": \"/w==\"}}"
        );
        let out = json_lines(&send_request(&server, "POST", "/messages", NDJSON, &body));
        assert_eq!(out[0], json!({"digest": FOO, "new": true}));
        assert!(out[1]["err_msg"].as_str().unwrap().starts_with("Invalid line"));
        assert_eq!(out[2], json!({"err_msg": "The message does not hash to its digest"}));
        assert_eq!(out[3], json!({"digest": digest(b"\xff"), "new": true}));
        assert_eq!(server.get(&message_path(b"foo")).text(), r#"{"message": "foo"}"#);
        let again = json_lines(&send_request(&server, "POST", "/messages", NDJSON, "{\"message\": \"foo\"}\n"));
        assert_eq!(again, [json!({"digest": FOO, "new": false})]);
    }
}

fn concurrent_puts_are_each_answered_for_their_own_message(place: &StoreFactory) {
    let server = place.http(&[]);
    let message = |who: usize, turn: usize| format!("{turn}\n\u{e4}\"{}", who % 20);
    std::thread::scope(|scope| {
        for who in 0..24 {
            let (server, message) = (&server, &message);
            scope.spawn(move || {
                let mut client = server.client();
                for turn in 0..20 {
                    let message = message(who, turn);
                    let reply = client.call_bytes(build_request(
                        "POST",
                        "/messages",
                        JSON,
                        json!({"message": message}).to_string(),
                    ));
                    let digest = digest(message.as_bytes());
                    assert_eq!((reply.status, reply.text()), (200, format!("{{\"digest\": \"{digest}\"}}").as_str()));
                    assert_eq!(reply.header("Location"), Some(message_path(message.as_bytes()).as_str()));
                    let reply = client.call_bytes(build_request("POST", "/messages", JSON, r#"{"base64": "AA=="}"#));
                    let words = r#"{"err_msg": "Invalid JSON request, no message key found"}"#;
                    assert_eq!((reply.status, reply.text()), (400, words));
                }
            });
        }
    });
    let digests = (0..400).map(|number| digest(message(number / 20, number % 20).as_bytes()));
    assert_eq!(
        json_lines(&send_request(&server, "POST", "/messages/missing", NDJSON, digest_lines(digests))),
        [] as [Value; 0]
    );
}

fn an_oversized_message_is_an_invalid_line_and_its_upload_gets_413(place: &StoreFactory) {
    let server = place.http(&["--max-message", "3B"]);
    let out = json_lines(&send_request(
        &server,
        "POST",
        "/messages",
        NDJSON,
        "{\"message\": \"long\"}\n{\"message\": \"foo\"}\n",
    ));
    assert_eq!(out, [json!({"err_msg": "Message is too large"}), json!({"digest": FOO, "new": true})]);
    assert_eq!(send_request(&server, "PUT", &message_path(b"long"), "", "long").status, 413);
}

fn an_upload_gets_201_if_new_200_if_stored_and_409_on_a_digest_mismatch(place: &StoreFactory) {
    let server = place.http(&[]);
    let upper = format!("/messages/{}", FOO.to_uppercase());
    for (to, body, status) in [
        (message_path(b"foo"), &b"bar"[..], 409),
        (message_path(b"foo"), b"", 409),
        (message_path(b"foo"), b"foo", 201),
        (upper, b"foo", 200),
        (message_path(b"\xff\0"), b"\xff\0", 201),
        (message_path(b""), b"", 201),
        ("/messages/2c26".to_owned(), b"foo", 400),
        ("/messages/".to_owned(), b"foo", 400),
    ] {
        let reply = send_request(&server, "PUT", &to, "Content-Type: text/whatever\r\n", body);
        assert_eq!(reply.status, status, "{to} {}", reply.text());
        if status < 300 {
            assert_eq!(reply.text(), format!("{{\"digest\": \"{}\"}}", digest(body)));
            assert_eq!(reply.header("Location"), Some(message_path(body).as_str()));
        }
    }
    let got = send_request(&server, "GET", &message_path(b"\xff\0"), ACCEPT_BYTES, "");
    assert_eq!((got.status, got.body.as_slice()), (200, &b"\xff\0"[..]));
    assert_eq!(server.get(&message_path(b"bar")).status, 404, "what did not hash to the digest is not stored");
}

fn expect_continue_skips_the_body_of_a_stored_message_only(place: &StoreFactory) {
    let server = place.http(&[]);
    server.put("foo");
    let head = |message: &[u8], fields: &str| {
        format!("PUT {} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{fields}\r\n", message_path(message))
    };
    for fields in [
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        &format!("Content-Length: 3\r\nContent-Digest: {DIGEST_FIELD_FOO}\r\n"),
    ] {
        let mut client = server.client();
        client.send(head(b"foo", fields));
        let rest = client.read_until_close();
        assert!(rest.starts_with("HTTP/1.1 200 ") && rest.contains("Connection: close\r\n"), "{rest}");
        assert!(rest.ends_with(&format!("{{\"digest\": \"{FOO}\"}}")), "{rest}");
    }
    for (message, fields) in [
        (&b"bar"[..], "Content-Length: 3\r\n"),
        (b"foo", "Content-Length: 4\r\n"),
        (b"foo", &format!("Content-Length: 3\r\nRepr-Digest: {DIGEST_FIELD_BAR}\r\n")),
    ] {
        let mut client = server.client();
        client.send(head(message, fields));
        assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n", "{fields}");
    }
    for (to, fields, status) in [("2c26", "", 400), (FOO, "Content-Digest: x\r\n", 400)] {
        let mut client = server.client();
        let head = format!("PUT /messages/{to} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n");
        client.send(head + fields + "\r\n");
        assert!(client.read_until_close().starts_with(&format!("HTTP/1.1 {status} ")), "{to} {fields}");
    }
}

fn a_corrupt_stored_message_is_requested_and_stored_again(place: &StoreFactory) {
    let server = place.http(&["--cache-size", "0B"]);
    let message = pseudorandom_bytes(1000, 7);
    let to = message_path(&message);
    assert_eq!(send_request(&server, "PUT", &to, "", &message).status, 201);
    place.flip_message_bit(&server.sandbox, &message);
    let reply = send_request(&server, "GET", &to, ACCEPT_BYTES, "");
    assert_eq!((reply.status, reply.text()), (500, r#"{"err_msg": "Message is corrupt"}"#));
    let out = json_lines(&send_request(&server, "POST", "/messages/get", NDJSON, digest_lines([digest(&message)])));
    assert_eq!(out, [json!({"digest": digest(&message), "corrupt": true})]);
    let mut client = server.client();
    client.send(format!(
        "PUT {to} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        message.len()
    ));
    assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(&message);
    assert!([200, 201].contains(&client.read_response().status));
    assert_eq!(send_request(&server, "GET", &to, ACCEPT_BYTES, "").status, 200);
}

fn missing_digests_are_listed_and_batches_are_read_in_order(place: &StoreFactory) {
    let server = place.http(&["--max-body", "2MiB"]);
    let large = "x".repeat((1 << 20) + 1);
    server.put("foo");
    server.put(&large);
    let digests = [digest(b"a"), FOO.to_uppercase(), digest(b"b"), digest(large.as_bytes())];
    let body = digest_lines(digests);
    let missing = send_request(&server, "POST", "/messages/missing", NDJSON, &body);
    assert_eq!(missing.text(), digest_lines([digest(b"a"), digest(b"b")]));
    let got = json_lines(&send_request(&server, "POST", "/messages/get", NDJSON, &body));
    assert_eq!(
        got[..3],
        [
            json!({"digest": digest(b"a"), "absent": true}),
            json!({"digest": FOO, "message": "foo"}),
            json!({"digest": digest(b"b"), "absent": true}),
        ]
    );
    assert_eq!(got[3..], [json!({"digest": digest(large.as_bytes()), "large": true})]);
    let reply = send_request(&server, "POST", "/messages/get", NDJSON, body + "nonsense\n");
    assert_eq!((reply.status, reply.text()), (400, r#"{"err_msg": "Line 5 is no JSON object with a digest"}"#));
    assert_eq!(send_request(&server, "POST", "/messages/get", JSON, "").status, 400);
}

fn a_large_batch_is_read_in_several_responses_by_concurrent_clients(place: &StoreFactory) {
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
                    let got = json_lines(&send_request(
                        &server,
                        "POST",
                        "/messages/get",
                        NDJSON,
                        digest_lines(left.to_vec()),
                    ));
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

fn a_listing_is_complete_when_its_links_are_followed(place: &StoreFactory) {
    let messages: Vec<_> = (0..25).map(|number: u8| vec![number]).collect();
    let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).filter(|message| **message != [0]).collect();
    let all = FullAccessServer::with_messages(place, &slices);
    let mut listed = Vec::new();
    let mut next = Some("/messages?limit=7".to_owned());
    while let Some(link) = next {
        let page = all.send("GET", &link, "", "");
        assert_eq!(page.status, 200, "{}", page.text());
        let value: Value = serde_json::from_str(page.text()).unwrap();
        for entry in value["messages"].as_array().unwrap() {
            assert_eq!((&entry["length"], entry["stored_at"].as_str().unwrap().len()), (&json!(1), 20));
            listed.push(entry["digest"].as_str().unwrap().to_owned());
        }
        let link =
            page.header("Link").map(|link| link.strip_prefix('<').unwrap().split_once(">; rel=\"next\"").unwrap());
        next = link.map(|(link, rest)| (link.to_owned(), rest)).map(|(link, rest)| {
            assert_eq!(rest, "");
            link
        });
    }
    let sorted: BTreeSet<_> = slices.iter().map(|message| digest(message)).collect();
    assert_eq!(listed, sorted.into_iter().collect::<Vec<_>>());
    let first = &listed[0];
    let by_prefix = all.send("GET", &format!("/messages?prefix={}&limit=1", first[..8].to_uppercase()), "", "");
    assert!(by_prefix.text().contains(first.as_str()));
    assert!(by_prefix.header("Link").unwrap().contains(&format!("prefix={}", first[..8].to_uppercase())));
    assert_eq!(all.send("GET", "/messages?limit=99999999999999999999999", "", "").status, 200);
}

fn an_invalid_parameter_gets_400_and_is_named(place: &StoreFactory) {
    let all = FullAccessServer::with_messages(place, &[]);
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
        let reply = all.send("GET", &format!("/messages?{query}"), "", "");
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.text().contains(&format!("Invalid parameter {name}: ")), "{}", reply.text());
    }
}

fn a_removed_message_is_not_served_from_the_cache(place: &StoreFactory) {
    let all = FullAccessServer::with_messages(place, &[b"foo", b"bar"]);
    let get = |message: &[u8], fields: &str| all.send("GET", &message_path(message), fields, "").status;
    for _ in 0..2 {
        assert_eq!((get(b"foo", ""), get(b"foo", ACCEPT_BYTES), get(b"bar", "")), (200, 200, 200));
    }
    let gone = all.send("DELETE", &message_path(b"foo"), "", "");
    assert_eq!((gone.status, gone.header("Content-Length"), gone.body.len()), (204, None, 0));
    assert_eq!((get(b"foo", ""), get(b"foo", ACCEPT_BYTES)), (404, 404));
    assert_eq!(all.send("DELETE", &message_path(b"foo"), "", "").text(), r#"{"err_msg": "Message not found"}"#);
    let body = digest_lines([FOO.to_owned(), digest(b"bar")]);
    let out = json_lines(&all.send("POST", "/messages/remove", NDJSON, body));
    assert_eq!(out, [json!({"digest": FOO, "removed": false}), json!({"digest": digest(b"bar"), "removed": true})]);
    assert_eq!(get(b"bar", ""), 404);
    assert_eq!(all.send("PUT", &message_path(b"foo"), "", "foo").status, 201);
    assert_eq!(get(b"foo", ""), 200);
}

fn readers_never_see_a_message_after_its_acknowledged_removal(place: &StoreFactory) {
    let all = FullAccessServer::with_messages(place, &[]);
    for round in 0..20 {
        let message = format!("round {round}");
        let to = message_path(message.as_bytes());
        assert_eq!(all.send("PUT", &to, "", &message).status, 201);
        let gone = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..30 {
                        let was_gone = gone.load(std::sync::atomic::Ordering::SeqCst);
                        let status = all.send("GET", &to, "", "").status;
                        assert!(status == 404 || status == 200 && !was_gone, "{status}");
                    }
                });
            }
            assert_eq!(all.send("DELETE", &to, "", "").status, 204);
            gone.store(true, std::sync::atomic::Ordering::SeqCst);
        });
    }
}

fn a_byte_range_gets_206_and_an_unsatisfiable_one_416(place: &StoreFactory) {
    let server = place.http(&[]);
    let to = server.put("0123456789");
    let tag = format!("\"{}-bytes\"", digest(b"0123456789"));
    let get = |fields: &str| send_request(&server, "GET", &to, &[ACCEPT_BYTES, fields].concat(), "");
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
            assert_eq!(reply.header("Content-Range"), Some(content_range));
            assert_eq!((reply.header("ETag"), reply.header("Accept-Ranges")), (Some(tag.as_str()), Some("bytes")));
            assert_eq!(reply.header("Repr-Digest"), get("").header("Repr-Digest"), "of the whole message");
        }
        let beyond = get("Range: bytes=10-\r\n");
        assert_eq!((beyond.status, beyond.header("Content-Range")), (416, Some("bytes */10")));
        assert_eq!(beyond.header("Repr-Digest").or(beyond.header("ETag")), None, "these would speak of the error");
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
                (reply.status, reply.text(), reply.header("Content-Range")),
                (200, "0123456789", None),
                "{whole}"
            );
        }
        let as_json = send_request(&server, "GET", &to, "Range: bytes=0-1\r\n", "");
        assert_eq!((as_json.status, as_json.header("Accept-Ranges")), (200, None));
        let mut client = server.client();
        client.send(build_request("HEAD", &to, &[ACCEPT_BYTES, "Range: bytes=0-1\r\n"].concat(), ""));
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Length: 10\r\n"), "{head}");
        let known = get(&format!("Range: bytes=0-1\r\nIf-None-Match: {tag}\r\n"));
        assert_eq!(known.status, 304);
    }
    assert_eq!(get("Range: bytes=0-1\r\nRange: bytes=0-1\r\n").status, 400);
}

fn a_body_that_contradicts_its_digest_field_gets_400_and_is_not_stored(place: &StoreFactory) {
    let server = place.http(&[]);
    let (json, line) = (r#"{"message": "foo"}"#, "{\"message\": \"foo\"}\n");
    for field in ["Content-Digest", "Repr-Digest"] {
        for (method, to, kind, body) in [
            ("PUT", message_path(b"foo"), "", "foo"),
            ("POST", "/messages".to_owned(), JSON, json),
            ("POST", "/messages".to_owned(), NDJSON, line),
        ] {
            for bad in [DIGEST_FIELD_BAR, "sha-256=:AAAA:", "sha-256", "sha-256=:%:"] {
                let reply = send_request(&server, method, &to, &format!("{kind}{field}: {bad}\r\n"), body);
                assert_eq!(reply.status, 400, "{method} {field}: {bad}");
            }
            assert_eq!(server.get(&message_path(b"foo")).status, 404);
        }
    }
    let reply = send_request(
        &server,
        "PUT",
        &message_path(b"foo"),
        &format!("Content-Digest: md5=:AAAA:\r\nRepr-Digest: {DIGEST_FIELD_FOO}\r\n"),
        "foo",
    );
    assert_eq!(reply.status, 201);
}

fn stats_report_counts_and_health(place: &StoreFactory) {
    let all = FullAccessServer::with_messages(place, &[b"foo"]);
    let reply = all.send("GET", "/stats", "", "");
    let stats: Value = serde_json::from_str(reply.text()).unwrap();
    assert_eq!((&stats["messages"], &stats["bytes"], &stats["health"]), (&json!(1), &json!(3), &json!("ok")));
    assert!(stats["newest"].is_string() && stats["disk"].as_u64().unwrap() > 0);
}

fn verification_covers_the_store_in_steps_and_repair_quarantines_damage(place: &StoreFactory) {
    let all = FullAccessServer::with_messages(place, &[b"foo", b"bar"]);
    let verify = |from: &Value| {
        let reply = all.send("POST", "/verify", JSON, json!({ "from": from }).to_string());
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
        assert_eq!(all.send("POST", "/verify", JSON, bad).status, 400, "{bad}");
    }
    assert_eq!(all.send("POST", "/repair", JSON, r#"{"damage": []}"#).status, 204);
    let deep = format!("{{\"damage\": [{{\"damage\": \"gap\", \"a\": {}", "[".repeat(100_000));
    for bad in ["", "{}", r#"{"damage": [{"damage": "other"}]}"#, &deep] {
        assert_eq!(all.send("POST", "/repair", JSON, bad).status, 400);
    }
    all.server.get("/readyz");
}
