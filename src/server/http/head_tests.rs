//! Accepted and rejected heads, some of them also in pieces of any size.

use super::super::fields::MAX_HEADER_FIELDS;
use super::*;

const HOST: &str = "Host: a\r\n";

fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, RequestError> {
    HeadParser::default().parse(bytes)
}

fn expect_head(text: &str) -> Head {
    parse_head(text.as_bytes()).unwrap().expect("a whole head").0
}

fn error_status(bytes: impl AsRef<[u8]>) -> u16 {
    parse_head(bytes.as_ref()).expect_err(&String::from_utf8_lossy(bytes.as_ref())).status
}

fn request_with(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\n{HOST}{fields}\r\n\r\n")
}

#[test]
fn only_known_header_fields_are_kept_in_the_head() {
    let text = "POST /messages?a=b&c HTTP/1.1\r\nHost: a.example:8443\r\nAccept: a/b\r\nx: y\r\naccept: c/d\r\n\
        CONTENT-TYPE: application/json\r\nContent-Length: 07\r\nExpect: 100-Continue\r\n\r\n";
    let head = expect_head(text);
    let expected = Request {
        query: Some("a=b&c".to_owned()),
        accept: Some("a/b, c/d".to_owned()),
        content_type: Some("application/json".to_owned()),
        ..Request::new(Method::Post, "/messages")
    };
    let (framing, keep_alive, expects_continue) = (Framing::Length(7), true, true);
    assert_eq!(
        head,
        Head { request: expected, framing, keep_alive, token: None, id: None, forwarded: None, expects_continue }
    );
}

#[test]
fn a_head_parses_the_same_in_pieces_of_any_size() {
    let text = request_with("Accept: */*\r\nContent-Length: 3");
    let bytes = format!("{text}foo");
    for step in 1..text.len() {
        let mut parser = HeadParser::default();
        let mut end = 0;
        let found = loop {
            end = (end + step).min(bytes.len());
            if let Some(found) = parser.parse(&bytes.as_bytes()[..end]).unwrap() {
                break found;
            }
        };
        assert_eq!(found, parse_head(text.as_bytes()).unwrap().unwrap());
        assert_eq!(found.1, text.len());
    }
}

#[test]
fn an_illegal_control_byte_is_rejected_at_any_position() {
    for count in 0..3 * SCAN_WIDTH {
        let before = "v".repeat(count);
        for invalid in ["\0", "\x1f", "\x7f", "\n", "\rv", "\r\r\n", "\r\0"] {
            let text = request_with(&format!("A: {before}{invalid}{}", "v".repeat(3 * SCAN_WIDTH - count)));
            let offset = text.find("A: ").unwrap() + 3 + count;
            // The byte is rejected when it arrives, not before.
            assert_eq!(parse_head(&text.as_bytes()[..offset]), Ok(None));
            assert_eq!(error_status(&text[..offset + invalid.len()]), 400, "{invalid:?} after {count}");
            assert_eq!(error_status(&text), 400, "{invalid:?} after {count}");
        }
        let head = expect_head(&request_with(&format!("Accept: v{before}\t~ v")));
        assert!(head.request.accept.unwrap().contains("\t~ v"));
    }
}

#[test]
fn http_1_1_keeps_alive_by_default_and_http_1_0_only_on_request() {
    assert!(expect_head(&request_with("A: b")).keep_alive);
    assert!(!expect_head(&request_with("Connection: foo, CLOSE")).keep_alive);
    assert!(!expect_head(&request_with("Connection: keep-alive\r\nConnection: close")).keep_alive);
    assert!(!expect_head("GET / HTTP/1.0\r\n\r\n").keep_alive);
    assert!(expect_head("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
}

#[test]
fn ambiguous_framing_is_rejected_with_400() {
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3, 3",
        "Content-Length: +3",
        "Content-Length: -3",
        "Content-Length: 0x3",
        "Content-Length: 3a",
        "Content-Length: 3 3",
        "Content-Length: 3.0",
        "Content-Length:",
        "Content-Length: \u{663}",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: Chunked",
        "Transfer-Encoding: chunked;a=b",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding:",
        "Transfer-Encoding: identity",
    ] {
        assert_eq!(error_status(request_with(fields)), 400, "{fields}");
    }
    assert_eq!(error_status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn an_overflowing_content_length_becomes_the_maximum() {
    assert_eq!(
        expect_head(&request_with("Content-Length: 99999999999999999999999999")).framing,
        Framing::Length(u64::MAX)
    );
}

#[test]
fn malformed_header_fields_are_rejected_with_400() {
    for fields in [
        "A: b\r\n c",
        "A: b\r\n\tc",
        " A: b",
        "A : b",
        "A\t: b",
        ": b",
        "A b: c",
        "A",
        "\u{e9}: b",
        "Content-Type: a/b\r\nContent-Type: c/d",
        "Content-Type: caf\u{e9}",
        "Host: b",
    ] {
        assert_eq!(error_status(request_with(fields)), 400, "{fields:?}");
    }
    for bytes in [
        &b"GET / HTTP/1.1\nHost: a\n\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: b\0c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: \x7f\r\n\r\n",
        b"\0",
        b"\x16\x03\x01\x02\0\x01",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(error_status(bytes), 400, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn http_1_1_requires_a_host_and_two_hosts_are_always_rejected() {
    assert_eq!(error_status("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(error_status("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
    for invalid in ["a, b", "a/b", "a b", "u@a", "a\\b", "\u{e9}"] {
        assert_eq!(error_status(format!("GET / HTTP/1.1\r\nHost: {invalid}\r\n\r\n")), 400, "{invalid}");
    }
    for valid in ["", "a:8443", "[::1]:8443", "a.example"] {
        assert!(parse_head(format!("GET / HTTP/1.1\r\nHost: {valid}\r\n\r\n").as_bytes()).is_ok(), "{valid}");
    }
}

#[test]
fn an_invalid_request_line_is_rejected_as_soon_as_it_ends() {
    for line in [
        "",
        " ",
        "GET",
        "GET /",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/\tHTTP/1.1",
        "G(T / HTTP/1.1",
        "GET / HTTPS/1.1",
        "GET / http/1.1",
        "GET * HTTP/1.1",
        "GET foo HTTP/1.1",
        "GET http://a/ HTTP/1.1",
        "CONNECT a:1 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /a#b HTTP/1.1",
    ] {
        assert_eq!(error_status(format!("{line}\r\n")), 400, "{line:?}");
    }
    for line in ["PRI * HTTP/2.0", "GET / HTTP/2", "GET / HTTP/0.9", "GET / HTTP/1.2", "GET / HTTP/1.10", "GET / HTTP/"]
    {
        assert_eq!(error_status(format!("{line}\r\n")), 505, "{line:?}");
    }
}

#[test]
fn request_line_head_and_field_count_are_accepted_up_to_their_limits() {
    let line = |length: usize| format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(length - 14));
    assert!(parse_head(line(MAX_REQUEST_LINE).as_bytes()).unwrap().is_some());
    assert_eq!(error_status(line(MAX_REQUEST_LINE + 1)), 414);
    for more in 2..=2 * SCAN_WIDTH {
        assert_eq!(error_status("a".repeat(MAX_REQUEST_LINE + more)), 414);
    }
    let sized = |length: usize| {
        let overhead = request_with("A: ").len();
        request_with(&format!("A: {}", "a".repeat(length - overhead)))
    };
    assert!(parse_head(sized(MAX_HEAD).as_bytes()).unwrap().is_some());
    for more in 1..=2 * SCAN_WIDTH {
        assert_eq!(error_status(&sized(2 * MAX_HEAD)[..MAX_HEAD + more]), 431);
    }
    assert_eq!(error_status(sized(MAX_HEAD + 1)), 431);
    assert!(parse_head(request_with(&vec!["A: b"; MAX_HEADER_FIELDS - 1].join("\r\n")).as_bytes()).unwrap().is_some());
    assert_eq!(error_status(request_with(&vec!["A: b"; MAX_HEADER_FIELDS].join("\r\n"))), 431);
}

#[test]
fn an_expectation_other_than_100_continue_is_417() {
    assert_eq!(error_status(request_with("Expect: 200-ok")), 417);
    assert!(expect_head(&request_with("Expect: 100-continue")).expects_continue);
    assert!(!expect_head("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expects_continue);
}

#[test]
fn no_input_byte_makes_the_parser_panic() {
    let seed = request_with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\nHost: b").into_bytes();
    for offset in 0..seed.len() {
        for byte in 0..=255 {
            let mut bytes = seed.clone();
            bytes[offset] = byte;
            let _ = parse_head(&bytes);
            let _ = parse_head(&bytes[offset..]);
        }
    }
}

#[test]
fn a_bearer_token_is_kept_as_its_digest_and_two_credentials_are_rejected() {
    let token = |value: &str| {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {value}\r\n\r\n");
        HeadParser::default().parse(bytes.as_bytes()).map(|head| head.unwrap().0.token)
    };
    for value in ["Bearer secret", "bearer secret", "BEARER   secret  "] {
        assert_eq!(token(value), Ok(Some(Digest::compute(b"secret"))), "{value}");
    }
    for value in ["Basic secret", "Bearer", "Bearer ", "secret", "Bearersecret"] {
        assert_eq!(token(value), Ok(None), "{value}");
    }
    assert_eq!(token("Bearer a\r\nAuthorization: Bearer b").unwrap_err().status, 400);
}

#[test]
fn a_request_id_is_kept_only_if_it_is_short_and_safe_to_log() {
    let id = |value: &str| {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: {value}\r\n\r\n");
        HeadParser::default().parse(bytes.as_bytes()).unwrap().unwrap().0.id
    };
    assert_eq!(id("a-B_1.c"), Some("a-B_1.c".to_owned()));
    for invalid in ["", "a b", "a\"b", "a/b", &"a".repeat(65)] {
        assert_eq!(id(invalid), None, "{invalid}");
    }
}
