//! The contract, request by request, over messages kept in memory.

use crate::testing::Memory;

use super::*;

const FOO: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

fn post(content_type: &str, body: &[u8]) -> Reply {
    let request = Request {
        content_type: Some(content_type.to_owned()),
        body: body.to_vec(),
        ..Request::new(Method::Post, "/messages")
    };
    answer(request, &Memory::default())
}

fn get_with(accept: Option<&str>, message: &[u8]) -> Reply {
    let memory = Memory::default();
    let receipts = memory.put(vec![message.to_vec()]).unwrap();
    let path = format!("/messages/{}", receipts[0].digest);
    answer(Request { accept: accept.map(str::to_owned), ..Request::new(Method::Get, &path) }, &memory)
}

fn said(reply: &Reply) -> (u16, &str) {
    (reply.status, std::str::from_utf8(&reply.body).unwrap())
}

fn field<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply.each_field().find(|field| field.0 == name).map(|field| field.1)
}

#[test]
fn a_posted_message_is_answered_with_its_digest_and_location() {
    let reply = post("application/json", br#"{"message": "foo"}"#);
    assert_eq!(said(&reply), (200, format!("{{\"digest\": \"{FOO}\"}}").as_str()));
    assert_eq!(field(&reply, "Location"), Some(format!("/messages/{FOO}").as_str()));
    assert_eq!(field(&reply, "Content-Type"), Some("application/json"));
}

#[test]
fn json_in_any_case_and_with_a_charset_is_taken_and_all_else_refused() {
    let body = br#"{"message": "foo"}"#;
    for good in ["Application/JSON", "application/json; charset=utf-8", "application/json;charset=\"UTF-8\""] {
        assert_eq!(post(good, body).status, 200, "{good}");
    }
    for bad in ["", "text/plain", "application/jsonp", "application/json; charset=utf-16", "application/json, text/a"] {
        assert_eq!(said(&post(bad, body)), (400, r#"{"err_msg": "Invalid content type, expected JSON"}"#), "{bad}");
    }
}

#[test]
fn what_is_no_json_object_with_one_message_string_is_refused() {
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    let deep_inside = [br#"{"message": "a", "b": "#.as_slice(), &deep, b"}"].concat();
    let deep_objects = [br#"{"message": "a", "b": "#.as_slice(), &br#"{"a":"#.repeat(100_000)].concat();
    let bodies: &[&[u8]] = &[
        b"",
        b"foo",
        b"null",
        b"[]",
        b"{}",
        br#"{"message": 1}"#,
        br#"{"message": null}"#,
        br#"{"Message": "foo"}"#,
        br#"{"message": "foo"} x"#,
        br#"{"message": "foo"}{"message": "foo"}"#,
        br#"{"message": "foo", "message": "foo"}"#,
        br#"{"message": "\ud800"}"#,
        br#"{"message": "\udc00 a"}"#,
        b"{\"message\": \"\xff\"}",
        b"\xef\xbb\xbf{\"message\": \"foo\"}",
        &deep,
        &deep_inside,
        &deep_objects,
    ];
    for body in bodies {
        let reply = post("application/json", body);
        assert_eq!(said(&reply), (400, r#"{"err_msg": "Invalid JSON request, no message key found"}"#));
    }
}

#[test]
fn other_keys_beside_the_message_are_skipped() {
    assert_eq!(post("application/json", br#" {"a": [1, {"b": null}], "message": "foo", "c": 1.5e3} "#).status, 200);
}

#[test]
fn a_message_comes_back_as_it_went_in() {
    for message in ["foo", "", "\0", "ü\u{1f600}", "\"\\\n\u{7f}", "  "] {
        let reply = get_with(None, message.as_bytes());
        let value: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!((reply.status, value["message"].as_str()), (200, Some(message)));
    }
    assert_eq!(said(&get_with(None, b"foo")), (200, r#"{"message": "foo"}"#));
}

#[test]
fn a_message_that_is_found_may_be_kept_for_ever() {
    let reply = get_with(None, b"foo");
    assert_eq!(field(&reply, "ETag"), Some(format!("\"{FOO}-json\"").as_str()));
    assert_eq!(field(&reply, "Cache-Control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(field(&reply, "Vary"), Some("Accept"));
    assert!(reply.is_immutable());
}

#[test]
fn bytes_are_given_to_who_prefers_them_with_their_hash() {
    let reply = get_with(Some("application/octet-stream"), b"\xff\0foo");
    assert_eq!((reply.status, reply.body.as_slice()), (200, b"\xff\0foo".as_slice()));
    assert_eq!(field(&reply, "Content-Type"), Some("application/octet-stream"));
    let foo = get_with(Some("application/octet-stream"), b"foo");
    assert_eq!(field(&foo, "Repr-Digest"), Some("sha-256=:LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564=:"));
}

#[test]
fn the_form_follows_accept_by_weight_and_specificity() {
    for json in ["*/*", "text/html, */*;q=0.8", "application/json", "application/*", "text/plain", "", "nonsense"] {
        assert_eq!(Form::wanted(Some(json)), Form::Json, "{json}");
    }
    for bytes in [
        "application/octet-stream",
        "Application/Octet-Stream;q=0.5, application/json; q=0.1",
        "application/octet-stream, */*;q=0.1",
        "*/*, application/json;q=0",
    ] {
        assert_eq!(Form::wanted(Some(bytes)), Form::Bytes, "{bytes}");
    }
}

#[test]
fn a_message_that_is_not_utf8_is_406_as_json_with_the_way_out() {
    let reply = get_with(None, b"\xff");
    assert_eq!(
        said(&reply),
        (406, r#"{"err_msg": "Message is not UTF-8, ask with Accept: application/octet-stream"}"#)
    );
    assert!(!reply.is_immutable());
}

#[test]
fn what_is_absent_and_what_is_no_digest_is_404() {
    let memory = Memory::default();
    for name in [FOO, "foo", "", "../livez", "%2e%2e", &FOO[1..], &format!("{FOO}/"), &format!("{FOO}%00")] {
        let reply = answer(Request::new(Method::Get, &format!("/messages/{name}")), &memory);
        assert_eq!(said(&reply), (404, r#"{"err_msg": "Message not found"}"#), "{name}");
    }
    for path in ["/", "/foo", "/messages2", "//messages", "/MESSAGES", "/%6dessages"] {
        let reply = answer(Request::new(Method::Get, path), &memory);
        assert_eq!(said(&reply), (404, r#"{"err_msg": "Not found"}"#), "{path}");
    }
}

#[test]
fn either_case_of_a_digest_finds_its_message() {
    let memory = Memory::default();
    memory.put(vec![b"foo".to_vec()]).unwrap();
    let reply = answer(Request::new(Method::Get, &format!("/messages/{}", FOO.to_uppercase())), &memory);
    assert_eq!(said(&reply), (200, r#"{"message": "foo"}"#));
}

#[test]
fn a_known_entity_tag_is_answered_with_304_and_only_for_what_is_there() {
    let memory = Memory::default();
    let ask = |tags: &str| Request {
        if_none_match: Some(tags.to_owned()),
        ..Request::new(Method::Get, &format!("/messages/{FOO}"))
    };
    let tag = format!("\"{FOO}-json\"");
    assert_eq!(answer(ask(&tag), &memory).status, 404);
    memory.put(vec![b"foo".to_vec()]).unwrap();
    for known in [tag.clone(), format!("W/{tag}"), format!("\"a\", {tag}"), "*".to_owned()] {
        let reply = answer(ask(&known), &memory);
        assert_eq!((reply.status, reply.body.len()), (304, 0), "{known}");
        assert_eq!(field(&reply, "ETag"), Some(tag.as_str()));
    }
    for other in [format!("\"{FOO}-bytes\""), FOO.to_owned(), "\"\"".to_owned()] {
        assert_eq!(answer(ask(&other), &memory).status, 200, "{other}");
    }
}

#[test]
fn a_method_that_does_not_fit_is_405_and_says_which_does() {
    for (method, path, allowed) in [
        (Method::Put, "/messages", "GET, HEAD, POST"),
        (Method::Post, "/messages/foo", "GET, HEAD, PUT, DELETE"),
        (Method::Get, "/messages/missing", "POST"),
        (Method::Delete, "/messages/get", "POST"),
        (Method::Get, "/messages/remove", "POST"),
        (Method::Post, "/stats", "GET, HEAD"),
        (Method::Get, "/verify", "POST"),
        (Method::Other, "/messages", "GET, HEAD, POST"),
        (Method::Post, "/livez", "GET, HEAD"),
    ] {
        let reply = answer(Request::new(method, path), &Memory::default());
        assert_eq!(said(&reply), (405, r#"{"err_msg": "Method not allowed"}"#));
        assert_eq!(field(&reply, "Allow"), Some(allowed));
    }
}

#[test]
fn a_store_that_fails_is_told_by_the_status_and_never_by_the_cause() {
    let foo: Digest = FOO.parse().unwrap();
    let secret = || std::io::Error::other("/secret/path");
    for (error, status, words, noted) in [
        (messages::Error::Corrupt(foo), 500, "Message is corrupt", true),
        (messages::Error::TooLarge { length: 9, limit: 1 }, 413, "Message is too large", false),
        (messages::Error::Full("/secret".into()), 507, "No space left", true),
        (messages::Error::Failed("secret".into()), 503, "Writing has stopped", true),
        (messages::Error::io("reading /secret", secret()), 500, "Internal server error", true),
        (messages::Error::Unusable("secret".into()), 500, "Internal server error", true),
    ] {
        let memory = Memory::failing(error);
        let get = answer(Request::new(Method::Get, &format!("/messages/{FOO}")), &memory);
        assert_eq!(said(&get), (status, format!("{{\"err_msg\": \"{words}\"}}").as_str()));
        assert_eq!(get.cause.is_some(), noted);
        assert!(!get.cause.unwrap_or_default().contains(FOO), "a digest is a capability");
    }
}

#[test]
fn what_is_described_is_what_is_served() {
    let description: serde_json::Value = serde_json::from_str(own::DESCRIPTION).unwrap();
    let described: Vec<(String, String)> =
        description["paths"].as_object().unwrap().iter().fold(vec![], |mut all, path| {
            let methods = path.1.as_object().unwrap().keys().filter(|key| *key != "parameters");
            all.extend(methods.map(|method| (path.0.clone(), method.to_uppercase())));
            all
        });
    let served: Vec<_> = routes::ROUTES
        .iter()
        .flat_map(|(path, methods)| methods.iter().map(|(method, _)| ((*path).to_owned(), method.as_str().to_owned())))
        .collect();
    for one in &served {
        assert!(described.contains(one), "{one:?} is not described");
    }
    for one in &described {
        assert!(served.contains(one), "{one:?} is not served");
    }
}

#[test]
fn the_probes_say_what_the_store_can() {
    let memory = Memory::default();
    assert_eq!(answer(Request::new(Method::Get, "/livez"), &memory).status, 200);
    assert_eq!(answer(Request::new(Method::Get, "/readyz"), &memory).status, 200);
    let failing = Memory::failing(messages::Error::Failed("disk".into()));
    assert_eq!(answer(Request::new(Method::Get, "/livez"), &failing).status, 200);
    assert_eq!(answer(Request::new(Method::Get, "/readyz"), &failing).status, 503);
    for (health, status) in
        [(Health::Opening, 503), (Health::Draining, 503), (Health::Failed, 503), (Health::Ready, 200)]
    {
        let own = own(&Request::new(Method::Get, "/readyz")).unwrap();
        assert_eq!(own_answer(own, || health, String::new).status, status);
    }
}
