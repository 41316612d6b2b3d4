//! Tests of NDJSON requests: each line has its own result, in order, and responses are bounded.

use super::super::{Method, Request, handle, json};
use super::*;
use crate::testing::MemoryStore;

const FOO: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

fn post_lines(path: &str, body: &[u8], store: &MemoryStore) -> Response {
    let content_type = Some(CONTENT_TYPE.to_owned());
    handle(Request { content_type, body: body.to_vec(), ..Request::new(Method::Post, path) }, store)
}

fn status_and_body(response: &Response) -> (u16, String) {
    (response.status, String::from_utf8(response.body.clone()).unwrap())
}

fn parse_values(response: &Response) -> Vec<serde_json::Value> {
    assert!(response.body.is_empty() || response.body.ends_with(b"\n"));
    let lines = std::str::from_utf8(&response.body).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn digest_lines(digests: &[Digest]) -> Vec<u8> {
    let mut body = Vec::new();
    for digest in digests {
        json::append_line(&mut body, &ResultLine { digest: Some(*digest), ..ResultLine::default() });
    }
    body
}

#[test]
fn each_line_has_a_result_in_order_and_an_invalid_line_has_an_error() {
    let store = MemoryStore::default();
    let deep = format!("{{\"message\": \"a\", \"b\": {}", "[".repeat(100_000));
    let body = format!(
        "{{\"message\": \"foo\"}}\n\n{{\"base64\": \"/w==\", \"digest\": \"{}\"}}\r\n{{\"message\": \"a\", \"digest\": \"{FOO}\"}}\n\
         [null, \"foo\", null]\n{{\"message\": \"a\"}} x\n{{}}\n{deep}\n{{\"message\": \"foo\", \"more\": [1]}}",
        Digest::compute(b"\xff")
    );
    let response = post_lines("/messages", body.as_bytes(), &store);
    assert_eq!((response.status, response.raw_headers.as_str()), (200, "Content-Type: application/x-ndjson\r\n"));
    let values = parse_values(&response);
    let texts: Vec<_> = values.iter().map(|value| value["err_msg"].as_str().unwrap_or("")).collect();
    let invalid_line = "Invalid line, expected a JSON object with a message or base64";
    let wrong_digest = "The message does not hash to its digest";
    assert_eq!(texts, ["", invalid_line, "", wrong_digest, invalid_line, invalid_line, invalid_line, invalid_line, ""]);
    assert!(
        status_and_body(&response)
            .1
            .starts_with(&format!("{{\"digest\": \"{FOO}\", \"new\": true}}\n{{\"err_msg\": \""))
    );
    assert_eq!(values[2]["digest"], Digest::compute(b"\xff").to_string());
    assert_eq!((values[8]["digest"].as_str(), values[8]["new"].as_bool()), (Some(FOO), Some(false)));
    assert_eq!(store.stats().unwrap().messages, 2);
}

#[test]
fn a_message_that_is_too_large_fails_only_its_own_line() {
    let store = MemoryStore::with_limit(3);
    let body = b"{\"message\": \"foo\"}\n{\"message\": \"long\"}\n{\"message\": \"bar\"}\n";
    let values = parse_values(&post_lines("/messages", body, &store));
    assert_eq!(values[1]["err_msg"], "Message is too large");
    assert_eq!((values[0]["new"].as_bool(), values[2]["new"].as_bool()), (Some(true), Some(true)));
    assert_eq!(store.stats().unwrap().messages, 2);
}

#[test]
fn an_empty_body_returns_no_lines_and_a_missing_content_type_is_400() {
    for path in ["/messages", "/messages/missing", "/messages/get", "/messages/remove"] {
        let store = MemoryStore::default();
        assert_eq!(status_and_body(&post_lines(path, b"", &store)), (200, String::new()), "{path}");
        assert_eq!(handle(Request::new(Method::Post, path), &store).status, 400, "{path}");
    }
}

#[test]
fn a_store_error_fails_the_whole_request() {
    let store = || MemoryStore::failing(Error::NoSpace("/secret".into()));
    for (path, body) in [
        ("/messages", &b"{\"message\": \"foo\"}\n"[..]),
        ("/messages/missing", &digest_lines(&[Digest::compute(b"")])),
        ("/messages/get", &digest_lines(&[Digest::compute(b"")])),
        ("/messages/remove", &digest_lines(&[Digest::compute(b"")])),
    ] {
        assert_eq!(
            status_and_body(&post_lines(path, body, &store())),
            (507, r#"{"err_msg": "No space left"}"#.to_owned()),
            "{path}"
        );
    }
}

#[test]
fn a_line_without_a_digest_is_400_with_its_number_and_changes_nothing() {
    let store = MemoryStore::default();
    store.put(vec![b"foo".to_vec()]).unwrap();
    for bad in ["", "{}", "[]", "foo", "{\"digest\": \"2c26\"}", "{\"digest\": 1}"] {
        let body = format!("{{\"digest\": \"{FOO}\"}}\n{bad}\n");
        for path in ["/messages/missing", "/messages/get", "/messages/remove"] {
            let error = r#"{"err_msg": "Invalid line 2, expected a JSON object with a digest"}"#;
            assert_eq!(
                status_and_body(&post_lines(path, body.as_bytes(), &store)),
                (400, error.to_owned()),
                "{path} {bad}"
            );
        }
    }
    assert_eq!(store.stats().unwrap().messages, 1);
}

#[test]
fn missing_lists_absent_digests_and_remove_reports_which_were_stored() {
    let store = MemoryStore::default();
    store.put(vec![b"foo".to_vec()]).unwrap();
    let body = digest_lines(&[Digest::compute(b"a"), Digest::compute(b"foo"), Digest::compute(b"b")]);
    let absent = digest_lines(&[Digest::compute(b"a"), Digest::compute(b"b")]);
    assert_eq!(post_lines("/messages/missing", &body, &store).body, absent);
    let removed = parse_values(&post_lines("/messages/remove", &body, &store));
    assert_eq!(removed.iter().map(|line| line["removed"].as_bool().unwrap()).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(store.stats().unwrap().messages, 0);
}

#[test]
fn messages_are_returned_in_request_order_and_failures_are_marked() {
    let store = MemoryStore::default();
    let large = vec![b'x'; (1 << 20) + 1];
    store.put(vec![b"foo".to_vec(), b"\xff".to_vec(), large.clone()]).unwrap();
    store.make_corrupt(b"bad");
    let requested: Vec<_> = [&b"foo"[..], b"none", b"\xff", &large, b"bad", b"foo"].map(Digest::compute).to_vec();
    let lines = parse_values(&post_lines("/messages/get", &digest_lines(&requested), &store));
    assert_eq!(lines.len(), 6);
    for (line, digest) in lines.iter().zip(requested) {
        assert_eq!(line["digest"], digest.to_string());
    }
    assert_eq!((lines[0]["message"].as_str(), lines[2]["base64"].as_str()), (Some("foo"), Some("/w==")));
    assert_eq!(
        (&lines[1]["absent"], &lines[3]["large"], &lines[4]["corrupt"]),
        (&true.into(), &true.into(), &true.into())
    );
    assert_eq!(lines[5]["message"], "foo");
}

#[test]
fn a_response_ends_at_its_size_limit_but_has_at_least_one_line() {
    let store = MemoryStore::default();
    let messages: Vec<_> = (0..20_u8).map(|seed| vec![seed; 1 << 20]).collect();
    let digests: Vec<_> = messages.iter().map(|message| Digest::compute(message)).collect();
    store.put(messages).unwrap();
    let (mut remaining, mut rounds) = (digests.as_slice(), 0);
    while !remaining.is_empty() {
        let response = post_lines("/messages/get", &digest_lines(remaining), &store);
        let got = parse_values(&response);
        assert!(
            !got.is_empty() && (response.body.len() <= MAX_RESPONSE_BYTES || got.len() == 1),
            "{}",
            response.body.len()
        );
        remaining = &remaining[got.len()..];
        rounds += 1;
    }
    assert!((3..=20).contains(&rounds), "{rounds}");
}

#[test]
fn too_many_lines_are_413() {
    for path in ["/messages", "/messages/missing", "/messages/get", "/messages/remove"] {
        let body = b"\n".repeat(MAX_LINES + 1);
        assert_eq!(post_lines(path, &body, &MemoryStore::default()).status, 413, "{path}");
    }
    assert_eq!(post_lines("/messages", &b"\n".repeat(MAX_LINES), &MemoryStore::default()).status, 200);
}
