//! Tests of the API over an in-memory store.

use crate::testing::MemoryStore;

use super::*;

const FOO: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

fn post(content_type: &str, body: &[u8]) -> Response {
    let request = Request {
        content_type: Some(content_type.to_owned()),
        body: body.to_vec(),
        ..Request::new(Method::Post, "/messages")
    };
    handle(request, &MemoryStore::default())
}

fn put_then_get(accept: Option<&str>, message: &[u8]) -> Response {
    let store = MemoryStore::default();
    let receipts = store.put(vec![message.to_vec()]).unwrap();
    let path = format!("/messages/{}", receipts[0].digest);
    handle(Request { accept: accept.map(str::to_owned), ..Request::new(Method::Get, &path) }, &store)
}

fn status_and_body(response: &Response) -> (u16, &str) {
    (response.status, std::str::from_utf8(&response.body).unwrap())
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().find(|header| header.0 == name).map(|header| header.1)
}

#[test]
fn post_returns_the_digest_and_a_location_header() {
    let response = post("application/json", br#"{"message": "foo"}"#);
    assert_eq!(status_and_body(&response), (200, format!("{{\"digest\": \"{FOO}\"}}").as_str()));
    assert_eq!(header(&response, "Location"), Some(format!("/messages/{FOO}").as_str()));
    assert_eq!(header(&response, "Content-Type"), Some("application/json"));
}

#[test]
fn json_content_types_are_accepted_in_any_case_and_others_are_rejected() {
    let body = br#"{"message": "foo"}"#;
    for good in ["Application/JSON", "application/json; charset=utf-8", "application/json;charset=\"UTF-8\""] {
        assert_eq!(post(good, body).status, 200, "{good}");
    }
    for bad in ["", "text/plain", "application/jsonp", "application/json; charset=utf-16", "application/json, text/a"] {
        assert_eq!(
            status_and_body(&post(bad, body)),
            (400, r#"{"err_msg": "Invalid content type, expected JSON"}"#),
            "{bad}"
        );
    }
}

#[test]
fn a_body_without_exactly_one_message_string_is_rejected() {
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
        let response = post("application/json", body);
        assert_eq!(status_and_body(&response), (400, r#"{"err_msg": "Invalid JSON request, no message key found"}"#));
    }
}

#[test]
fn unknown_keys_are_ignored() {
    assert_eq!(post("application/json", br#" {"a": [1, {"b": null}], "message": "foo", "c": 1.5e3} "#).status, 200);
}

#[test]
fn a_message_is_returned_unchanged() {
    for message in ["foo", "", "\0", "ü\u{1f600}", "\"\\\n\u{7f}", "  "] {
        let response = put_then_get(None, message.as_bytes());
        let value: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!((response.status, value["message"].as_str()), (200, Some(message)));
    }
    assert_eq!(status_and_body(&put_then_get(None, b"foo")), (200, r#"{"message": "foo"}"#));
}

#[test]
fn a_stored_message_has_immutable_cache_headers() {
    let response = put_then_get(None, b"foo");
    assert_eq!(header(&response, "ETag"), Some(format!("\"{FOO}-json\"").as_str()));
    assert_eq!(header(&response, "Cache-Control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(header(&response, "Vary"), Some("Accept"));
    assert!(response.is_immutable());
}

#[test]
fn octet_stream_is_returned_if_preferred_with_a_repr_digest() {
    let response = put_then_get(Some("application/octet-stream"), b"\xff\0foo");
    assert_eq!((response.status, response.body.as_slice()), (200, b"\xff\0foo".as_slice()));
    assert_eq!(header(&response, "Content-Type"), Some("application/octet-stream"));
    let foo = put_then_get(Some("application/octet-stream"), b"foo");
    assert_eq!(header(&foo, "Repr-Digest"), Some("sha-256=:LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564=:"));
}

#[test]
fn accept_is_negotiated_by_quality_and_specificity() {
    for json in ["*/*", "text/html, */*;q=0.8", "application/json", "application/*", "text/plain", "", "nonsense"] {
        assert_eq!(Representation::negotiate(Some(json)), Representation::Json, "{json}");
    }
    for bytes in [
        "application/octet-stream",
        "Application/Octet-Stream;q=0.5, application/json; q=0.1",
        "application/octet-stream, */*;q=0.1",
        "*/*, application/json;q=0",
    ] {
        assert_eq!(Representation::negotiate(Some(bytes)), Representation::Bytes, "{bytes}");
    }
}

#[test]
fn a_message_that_is_not_utf8_is_406_as_json_and_the_error_names_the_remedy() {
    let response = put_then_get(None, b"\xff");
    assert_eq!(
        status_and_body(&response),
        (406, r#"{"err_msg": "Message is not UTF-8, ask with Accept: application/octet-stream"}"#)
    );
    assert!(!response.is_immutable());
}

#[test]
fn absent_messages_invalid_digests_and_unknown_paths_are_404() {
    let store = MemoryStore::default();
    for name in [FOO, "foo", "", "../livez", "%2e%2e", &FOO[1..], &format!("{FOO}/"), &format!("{FOO}%00")] {
        let response = handle(Request::new(Method::Get, &format!("/messages/{name}")), &store);
        assert_eq!(status_and_body(&response), (404, r#"{"err_msg": "Message not found"}"#), "{name}");
    }
    for path in ["/", "/foo", "/messages2", "//messages", "/MESSAGES", "/%6dessages"] {
        let response = handle(Request::new(Method::Get, path), &store);
        assert_eq!(status_and_body(&response), (404, r#"{"err_msg": "Not found"}"#), "{path}");
    }
}

#[test]
fn a_digest_is_accepted_in_either_case() {
    let store = MemoryStore::default();
    store.put(vec![b"foo".to_vec()]).unwrap();
    let response = handle(Request::new(Method::Get, &format!("/messages/{}", FOO.to_uppercase())), &store);
    assert_eq!(status_and_body(&response), (200, r#"{"message": "foo"}"#));
}

#[test]
fn a_matching_etag_is_304_only_if_the_message_is_stored() {
    let store = MemoryStore::default();
    let request = |tags: &str| Request {
        if_none_match: Some(tags.to_owned()),
        ..Request::new(Method::Get, &format!("/messages/{FOO}"))
    };
    let tag = format!("\"{FOO}-json\"");
    assert_eq!(handle(request(&tag), &store).status, 404);
    store.put(vec![b"foo".to_vec()]).unwrap();
    for matching in [tag.clone(), format!("W/{tag}"), format!("\"a\", {tag}"), "*".to_owned()] {
        let response = handle(request(&matching), &store);
        assert_eq!((response.status, response.body.len()), (304, 0), "{matching}");
        assert_eq!(header(&response, "ETag"), Some(tag.as_str()));
    }
    for other in [format!("\"{FOO}-bytes\""), FOO.to_owned(), "\"\"".to_owned()] {
        assert_eq!(handle(request(&other), &store).status, 200, "{other}");
    }
}

#[test]
fn an_unsupported_method_is_405_with_an_allow_header() {
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
        let response = handle(Request::new(method, path), &MemoryStore::default());
        assert_eq!(status_and_body(&response), (405, r#"{"err_msg": "Method not allowed"}"#));
        assert_eq!(header(&response, "Allow"), Some(allowed));
    }
}

#[test]
fn a_store_error_sets_the_status_and_never_exposes_the_cause() {
    let foo: Digest = FOO.parse().unwrap();
    let secret = || std::io::Error::other("/secret/path");
    for (error, status, text, has_cause) in [
        (message_store::Error::Corrupt(foo), 500, "Message is corrupt", true),
        (message_store::Error::TooLarge { length: 9, limit: 1 }, 413, "Message is too large", false),
        (message_store::Error::NoSpace("/secret".into()), 507, "No space left", true),
        (message_store::Error::WriteFailed("secret".into()), 503, "Writing has stopped", true),
        (message_store::Error::io("reading /secret", secret()), 500, "Internal server error", true),
        (message_store::Error::Unusable("secret".into()), 500, "Internal server error", true),
    ] {
        let store = MemoryStore::failing(error);
        let get = handle(Request::new(Method::Get, &format!("/messages/{FOO}")), &store);
        assert_eq!(status_and_body(&get), (status, format!("{{\"err_msg\": \"{text}\"}}").as_str()));
        assert_eq!(get.cause.is_some(), has_cause);
        assert!(!get.cause.unwrap_or_default().contains(FOO), "a digest grants access to its message");
    }
}

#[test]
fn openapi_describes_exactly_the_served_routes() {
    let description: serde_json::Value = serde_json::from_str(builtin::OPENAPI).unwrap();
    let described: Vec<(String, String)> =
        description["paths"].as_object().unwrap().iter().fold(vec![], |mut routes, (path, methods)| {
            let methods = methods.as_object().unwrap().keys().filter(|key| *key != "parameters");
            routes.extend(methods.map(|method| (path.clone(), method.to_uppercase())));
            routes
        });
    let served = Route::all();
    for route in &served {
        assert!(described.contains(route), "{route:?} is not described");
    }
    for route in &described {
        assert!(served.contains(route), "{route:?} is not served");
    }
}

#[test]
fn livez_and_readyz_report_the_health_of_the_store() {
    let store = MemoryStore::default();
    assert_eq!(handle(Request::new(Method::Get, "/livez"), &store).status, 200);
    assert_eq!(handle(Request::new(Method::Get, "/readyz"), &store).status, 200);
    let failing = MemoryStore::failing(message_store::Error::WriteFailed("disk".into()));
    assert_eq!(handle(Request::new(Method::Get, "/livez"), &failing).status, 200);
    assert_eq!(handle(Request::new(Method::Get, "/readyz"), &failing).status, 503);
    for health in [Health::Opening, Health::Draining, Health::Failed] {
        assert_eq!(builtin_response(BuiltinRoute::Ready, || health, String::new).status, 503);
    }
}

#[test]
fn openapi_lists_exactly_the_statuses_that_the_probes_report() {
    let description: serde_json::Value = serde_json::from_str(builtin::OPENAPI).unwrap();
    let reported: Vec<serde_json::Value> = [
        (BuiltinRoute::Live, Health::Ready),
        (BuiltinRoute::Ready, Health::Ready),
        (BuiltinRoute::Ready, Health::Damaged),
    ]
    .map(|(route, health)| {
        let response = builtin_response(route, || health, String::new);
        assert_eq!(response.status, 200);
        serde_json::from_slice::<serde_json::Value>(&response.body).unwrap()["status"].take()
    })
    .to_vec();
    assert_eq!(
        description["components"]["schemas"]["Status"]["properties"]["status"]["enum"],
        serde_json::Value::from(reported)
    );
}
