//! The HTTP contract on a running server, for each kind of store: batches, uploads, listings, removal, byte ranges and
//! digest fields.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::server::{Response, Server, build_request};
use crate::common::store_factory::{StoreFactory, for_each_store_kind};
use crate::common::{FOO, digest, pseudorandom_bytes};

const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const ACCEPT_BYTES: &str = "Accept: application/octet-stream\r\n";
/// Digests of `foo` and of `bar` as values of `Content-Digest` (RFC 9530).
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

fn json_lines(response: &Response) -> Vec<Value> {
    assert_eq!(
        (response.status, response.header("Content-Type")),
        (200, Some("application/x-ndjson")),
        "{}",
        response.text()
    );
    response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn digest_lines(digests: impl IntoIterator<Item = String>) -> String {
    digests.into_iter().map(|digest| format!("{{\"digest\": \"{digest}\"}}\n")).collect()
}

/// A server with a token file, and the `Authorization` field of a token with all scopes.
struct FullAccessServer {
    server: Server,
    authorization: &'static str,
}

impl FullAccessServer {
    fn with_messages(factory: &StoreFactory, messages: &[&[u8]]) -> Self {
        let sandbox = if messages.is_empty() { factory.empty_store() } else { factory.with_messages(messages) };
        let line = format!("all read,write,list,rm {}\n", digest(b"secret"));
        let tokens = sandbox.write_file("tokens", line.as_bytes());
        let server = Server::start(sandbox, &["--http", "--token-file", tokens.to_str().unwrap()]);
        Self { server, authorization: "Authorization: Bearer secret\r\n" }
    }

    fn send(&self, method: &str, path: &str, fields: &str, body: impl AsRef<[u8]>) -> Response {
        send_request(&self.server, method, path, &[self.authorization, fields].concat(), body)
    }
}

fn put_lines_are_answered_in_order_and_stored(factory: &StoreFactory) {
    for server in [factory.http(&[]), factory.https(&[])] {
        let body = format!(
            "{{\"message\": \"foo\"}}\nnonsense\n{{\"base64\": \"/w==\", \"digest\": \"{FOO}\"}}\n{{\"base64\": \"/w==\"}}"
        );
        let lines = json_lines(&send_request(&server, "POST", "/messages", NDJSON, &body));
        assert_eq!(lines[0], json!({"digest": FOO, "new": true}));
        assert!(lines[1]["err_msg"].as_str().unwrap().starts_with("Invalid line"));
        assert_eq!(lines[2], json!({"err_msg": "The message does not hash to its digest"}));
        assert_eq!(lines[3], json!({"digest": digest(b"\xff"), "new": true}));
        assert_eq!(server.get(&message_path(b"foo")).text(), r#"{"message": "foo"}"#);
        let repeated = json_lines(&send_request(&server, "POST", "/messages", NDJSON, "{\"message\": \"foo\"}\n"));
        assert_eq!(repeated, [json!({"digest": FOO, "new": false})]);
    }
}

fn concurrent_puts_are_each_answered_for_their_own_message(factory: &StoreFactory) {
    let server = factory.http(&[]);
    let message = |client_id: usize, round: usize| format!("{round}\n\u{e4}\"{}", client_id % 20);
    std::thread::scope(|scope| {
        for client_id in 0..24 {
            let (server, message) = (&server, &message);
            scope.spawn(move || {
                let mut client = server.client();
                for round in 0..20 {
                    let message = message(client_id, round);
                    let response = client.call_bytes(build_request(
                        "POST",
                        "/messages",
                        JSON,
                        json!({"message": message}).to_string(),
                    ));
                    let digest = digest(message.as_bytes());
                    assert_eq!(
                        (response.status, response.text()),
                        (200, format!("{{\"digest\": \"{digest}\"}}").as_str())
                    );
                    assert_eq!(response.header("Location"), Some(message_path(message.as_bytes()).as_str()));
                    let response = client.call_bytes(build_request("POST", "/messages", JSON, r#"{"base64": "AA=="}"#));
                    let error = r#"{"err_msg": "Invalid JSON request, no message key found"}"#;
                    assert_eq!((response.status, response.text()), (400, error));
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

fn an_oversized_message_is_an_invalid_line_and_its_upload_gets_413(factory: &StoreFactory) {
    let server = factory.http(&["--max-message", "3B"]);
    let lines = json_lines(&send_request(
        &server,
        "POST",
        "/messages",
        NDJSON,
        "{\"message\": \"long\"}\n{\"message\": \"foo\"}\n",
    ));
    assert_eq!(lines, [json!({"err_msg": "Message is too large"}), json!({"digest": FOO, "new": true})]);
    assert_eq!(send_request(&server, "PUT", &message_path(b"long"), "", "long").status, 413);
}

fn an_upload_gets_201_if_new_200_if_stored_and_409_on_a_digest_mismatch(factory: &StoreFactory) {
    let server = factory.http(&[]);
    let uppercase = format!("/messages/{}", FOO.to_uppercase());
    for (path, body, status) in [
        (message_path(b"foo"), &b"bar"[..], 409),
        (message_path(b"foo"), b"", 409),
        (message_path(b"foo"), b"foo", 201),
        (uppercase, b"foo", 200),
        (message_path(b"\xff\0"), b"\xff\0", 201),
        (message_path(b""), b"", 201),
        ("/messages/2c26".to_owned(), b"foo", 400),
        ("/messages/".to_owned(), b"foo", 400),
    ] {
        let response = send_request(&server, "PUT", &path, "Content-Type: text/whatever\r\n", body);
        assert_eq!(response.status, status, "{path} {}", response.text());
        if status < 300 {
            assert_eq!(response.text(), format!("{{\"digest\": \"{}\"}}", digest(body)));
            assert_eq!(response.header("Location"), Some(message_path(body).as_str()));
        }
    }
    let got = send_request(&server, "GET", &message_path(b"\xff\0"), ACCEPT_BYTES, "");
    assert_eq!((got.status, got.body.as_slice()), (200, &b"\xff\0"[..]));
    assert_eq!(server.get(&message_path(b"bar")).status, 404, "a message that does not match the digest is not stored");
}

fn expect_continue_skips_the_body_of_a_stored_message_only(factory: &StoreFactory) {
    let server = factory.http(&[]);
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
        let received = client.read_until_close();
        assert!(received.starts_with("HTTP/1.1 200 ") && received.contains("Connection: close\r\n"), "{received}");
        assert!(received.ends_with(&format!("{{\"digest\": \"{FOO}\"}}")), "{received}");
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
    for (digest, fields, status) in [("2c26", "", 400), (FOO, "Content-Digest: x\r\n", 400)] {
        let mut client = server.client();
        let head =
            format!("PUT /messages/{digest} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n");
        client.send(head + fields + "\r\n");
        assert!(client.read_until_close().starts_with(&format!("HTTP/1.1 {status} ")), "{digest} {fields}");
    }
}

fn a_corrupt_stored_message_is_requested_and_stored_again(factory: &StoreFactory) {
    let server = factory.http(&["--cache-size", "0B"]);
    let message = pseudorandom_bytes(1000, 7);
    let path = message_path(&message);
    assert_eq!(send_request(&server, "PUT", &path, "", &message).status, 201);
    factory.flip_message_bit(&server.sandbox, &message);
    let response = send_request(&server, "GET", &path, ACCEPT_BYTES, "");
    assert_eq!((response.status, response.text()), (500, r#"{"err_msg": "Message is corrupt"}"#));
    let lines = json_lines(&send_request(&server, "POST", "/messages/get", NDJSON, digest_lines([digest(&message)])));
    assert_eq!(lines, [json!({"digest": digest(&message), "corrupt": true})]);
    let mut client = server.client();
    client.send(format!(
        "PUT {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        message.len()
    ));
    assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(&message);
    assert!([200, 201].contains(&client.read_response().status));
    assert_eq!(send_request(&server, "GET", &path, ACCEPT_BYTES, "").status, 200);
}

fn missing_digests_are_listed_and_batches_are_read_in_order(factory: &StoreFactory) {
    let server = factory.http(&["--max-body", "2MiB"]);
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
    let response = send_request(&server, "POST", "/messages/get", NDJSON, body + "nonsense\n");
    assert_eq!(
        (response.status, response.text()),
        (400, r#"{"err_msg": "Invalid line 5, expected a JSON object with a digest"}"#)
    );
    assert_eq!(send_request(&server, "POST", "/messages/get", JSON, "").status, 400);
}

fn a_large_batch_is_read_in_several_responses_by_concurrent_clients(factory: &StoreFactory) {
    let server = factory.http(&["--max-body", "2MiB"]);
    let messages: Vec<_> = (0..12).map(|seed: u8| char::from(b'a' + seed).to_string().repeat(1_000_000)).collect();
    let digests: Vec<_> = messages.iter().map(|message| digest(message.as_bytes())).collect();
    for message in &messages {
        server.put(message);
    }
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let mut remaining = digests.as_slice();
                while !remaining.is_empty() {
                    let got = json_lines(&send_request(
                        &server,
                        "POST",
                        "/messages/get",
                        NDJSON,
                        digest_lines(remaining.to_vec()),
                    ));
                    for line in &got {
                        assert_eq!(digest(line["message"].as_str().unwrap().as_bytes()), line["digest"]);
                    }
                    assert!((1..=8).contains(&got.len()));
                    remaining = &remaining[got.len()..];
                }
            });
        }
    });
}

fn a_listing_is_complete_when_its_links_are_followed(factory: &StoreFactory) {
    let messages: Vec<_> = (0..25).map(|number: u8| vec![number]).collect();
    let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).filter(|message| **message != [0]).collect();
    let server = FullAccessServer::with_messages(factory, &slices);
    let mut listed = Vec::new();
    let mut next = Some("/messages?limit=7".to_owned());
    while let Some(link) = next {
        let page = server.send("GET", &link, "", "");
        assert_eq!(page.status, 200, "{}", page.text());
        let value: Value = serde_json::from_str(page.text()).unwrap();
        for entry in value["messages"].as_array().unwrap() {
            assert_eq!((&entry["length"], entry["stored_at"].as_str().unwrap().len()), (&json!(1), 20));
            listed.push(entry["digest"].as_str().unwrap().to_owned());
        }
        let link =
            page.header("Link").map(|link| link.strip_prefix('<').unwrap().split_once(">; rel=\"next\"").unwrap());
        next = link.map(|(link, suffix)| {
            assert_eq!(suffix, "");
            link.to_owned()
        });
    }
    let sorted: BTreeSet<_> = slices.iter().map(|message| digest(message)).collect();
    assert_eq!(listed, sorted.into_iter().collect::<Vec<_>>());
    let first = &listed[0];
    let by_prefix = server.send("GET", &format!("/messages?prefix={}&limit=1", first[..8].to_uppercase()), "", "");
    assert!(by_prefix.text().contains(first.as_str()));
    assert!(by_prefix.header("Link").unwrap().contains(&format!("prefix={}", first[..8].to_uppercase())));
    assert_eq!(server.send("GET", "/messages?limit=99999999999999999999999", "", "").status, 200);
}

fn an_invalid_parameter_gets_400_and_is_named(factory: &StoreFactory) {
    let server = FullAccessServer::with_messages(factory, &[]);
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
        let response = server.send("GET", &format!("/messages?{query}"), "", "");
        assert_eq!(response.status, 400, "{query}");
        assert!(response.text().contains(&format!("Invalid parameter {name}: ")), "{}", response.text());
    }
}

fn a_removed_message_is_not_served_from_the_cache(factory: &StoreFactory) {
    let server = FullAccessServer::with_messages(factory, &[b"foo", b"bar"]);
    let get = |message: &[u8], fields: &str| server.send("GET", &message_path(message), fields, "").status;
    for _ in 0..2 {
        assert_eq!((get(b"foo", ""), get(b"foo", ACCEPT_BYTES), get(b"bar", "")), (200, 200, 200));
    }
    let removed = server.send("DELETE", &message_path(b"foo"), "", "");
    assert_eq!((removed.status, removed.header("Content-Length"), removed.body.len()), (204, None, 0));
    assert_eq!((get(b"foo", ""), get(b"foo", ACCEPT_BYTES)), (404, 404));
    assert_eq!(server.send("DELETE", &message_path(b"foo"), "", "").text(), r#"{"err_msg": "Message not found"}"#);
    let body = digest_lines([FOO.to_owned(), digest(b"bar")]);
    let lines = json_lines(&server.send("POST", "/messages/remove", NDJSON, body));
    assert_eq!(lines, [json!({"digest": FOO, "removed": false}), json!({"digest": digest(b"bar"), "removed": true})]);
    assert_eq!(get(b"bar", ""), 404);
    assert_eq!(server.send("PUT", &message_path(b"foo"), "", "foo").status, 201);
    assert_eq!(get(b"foo", ""), 200);
}

fn readers_never_see_a_message_after_its_acknowledged_removal(factory: &StoreFactory) {
    let server = FullAccessServer::with_messages(factory, &[]);
    for round in 0..20 {
        let message = format!("round {round}");
        let path = message_path(message.as_bytes());
        assert_eq!(server.send("PUT", &path, "", &message).status, 201);
        let removed = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..30 {
                        let was_removed = removed.load(std::sync::atomic::Ordering::SeqCst);
                        let status = server.send("GET", &path, "", "").status;
                        assert!(status == 404 || status == 200 && !was_removed, "{status}");
                    }
                });
            }
            assert_eq!(server.send("DELETE", &path, "", "").status, 204);
            removed.store(true, std::sync::atomic::Ordering::SeqCst);
        });
    }
}

fn a_byte_range_gets_206_and_an_unsatisfiable_one_416(factory: &StoreFactory) {
    let server = factory.http(&[]);
    let path = server.put("0123456789");
    let tag = format!("\"{}-bytes\"", digest(b"0123456789"));
    let get = |fields: &str| send_request(&server, "GET", &path, &[ACCEPT_BYTES, fields].concat(), "");
    // In the second round the whole message is in the cache.
    for _ in 0..2 {
        for (range, content_range, body) in [
            ("bytes=0-0", "bytes 0-0/10", "0"),
            ("bytes=3-5", "bytes 3-5/10", "345"),
            ("bytes=7-99", "bytes 7-9/10", "789"),
            ("bytes=-2", "bytes 8-9/10", "89"),
        ] {
            let response = get(&format!("Range: {range}\r\nIf-Range: {tag}\r\n"));
            assert_eq!((response.status, response.text()), (206, body), "{range}");
            assert_eq!(response.header("Content-Range"), Some(content_range));
            assert_eq!(
                (response.header("ETag"), response.header("Accept-Ranges")),
                (Some(tag.as_str()), Some("bytes"))
            );
            assert_eq!(
                response.header("Repr-Digest"),
                get("").header("Repr-Digest"),
                "the digest of the whole message"
            );
        }
        let unsatisfiable = get("Range: bytes=10-\r\n");
        assert_eq!((unsatisfiable.status, unsatisfiable.header("Content-Range")), (416, Some("bytes */10")));
        assert_eq!(
            unsatisfiable.header("Repr-Digest").or(unsatisfiable.header("ETag")),
            None,
            "they would describe the error body"
        );
        for fields in [
            "Range: bytes=0-1,3-4\r\n",
            "Range: lines=0-1\r\n",
            "Range: bytes=5-2\r\n",
            "Range: bytes=0-1\r\nIf-Range: \"other\"\r\n",
            "Range: bytes=0-1\r\nIf-Range: W/\"x\"\r\n",
            "Range: bytes=0-1\r\nIf-Range: Mon, 23 Nov 2026 00:00:00 GMT\r\n",
        ] {
            let response = get(fields);
            assert_eq!(
                (response.status, response.text(), response.header("Content-Range")),
                (200, "0123456789", None),
                "{fields}"
            );
        }
        let as_json = send_request(&server, "GET", &path, "Range: bytes=0-1\r\n", "");
        assert_eq!((as_json.status, as_json.header("Accept-Ranges")), (200, None));
        let mut client = server.client();
        client.send(build_request("HEAD", &path, &[ACCEPT_BYTES, "Range: bytes=0-1\r\n"].concat(), ""));
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Length: 10\r\n"), "{head}");
        let unchanged = get(&format!("Range: bytes=0-1\r\nIf-None-Match: {tag}\r\n"));
        assert_eq!(unchanged.status, 304);
    }
    assert_eq!(get("Range: bytes=0-1\r\nRange: bytes=0-1\r\n").status, 400);
}

fn a_body_that_contradicts_its_digest_field_gets_400_and_is_not_stored(factory: &StoreFactory) {
    let server = factory.http(&[]);
    let (json, line) = (r#"{"message": "foo"}"#, "{\"message\": \"foo\"}\n");
    for field in ["Content-Digest", "Repr-Digest"] {
        for (method, path, content_type, body) in [
            ("PUT", message_path(b"foo"), "", "foo"),
            ("POST", "/messages".to_owned(), JSON, json),
            ("POST", "/messages".to_owned(), NDJSON, line),
        ] {
            for bad in [DIGEST_FIELD_BAR, "sha-256=:AAAA:", "sha-256", "sha-256=:%:"] {
                let response = send_request(&server, method, &path, &format!("{content_type}{field}: {bad}\r\n"), body);
                assert_eq!(response.status, 400, "{method} {field}: {bad}");
            }
            assert_eq!(server.get(&message_path(b"foo")).status, 404);
        }
    }
    let response = send_request(
        &server,
        "PUT",
        &message_path(b"foo"),
        &format!("Content-Digest: md5=:AAAA:\r\nRepr-Digest: {DIGEST_FIELD_FOO}\r\n"),
        "foo",
    );
    assert_eq!(response.status, 201);
}

fn stats_report_counts_and_health(factory: &StoreFactory) {
    let server = FullAccessServer::with_messages(factory, &[b"foo"]);
    let response = server.send("GET", "/stats", "", "");
    let stats: Value = serde_json::from_str(response.text()).unwrap();
    assert_eq!((&stats["messages"], &stats["bytes"], &stats["health"]), (&json!(1), &json!(3), &json!("ok")));
    assert!(stats["newest"].is_string() && stats["disk"].as_u64().unwrap() > 0);
}

fn verification_covers_the_store_in_steps_and_repair_quarantines_damage(factory: &StoreFactory) {
    let server = FullAccessServer::with_messages(factory, &[b"foo", b"bar"]);
    let verify = |cursor: &Value| {
        let response = server.send("POST", "/verify", JSON, json!({ "from": cursor }).to_string());
        assert_eq!(response.status, 200, "{}", response.text());
        serde_json::from_str::<Value>(response.text()).unwrap()
    };
    let (mut cursor, mut count) = (Value::Null, 0);
    loop {
        let step = verify(&cursor);
        count += step["messages"].as_u64().unwrap();
        assert_eq!(step["damage"], json!([]));
        cursor = step["next"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(count, 2);
    for bad in ["", "[]", "[null]", r#"{"from": 1}"#, r#"{"from": "nowhere"}"#, "nonsense"] {
        assert_eq!(server.send("POST", "/verify", JSON, bad).status, 400, "{bad}");
    }
    assert_eq!(server.send("POST", "/repair", JSON, r#"{"damage": []}"#).status, 204);
    let deep = format!("{{\"damage\": [{{\"damage\": \"gap\", \"a\": {}", "[".repeat(100_000));
    for bad in ["", "{}", r#"{"damage": [{"damage": "other"}]}"#, &deep] {
        assert_eq!(server.send("POST", "/repair", JSON, bad).status, 400);
    }
    server.server.get("/readyz");
}
