//! What is taken as a head, what is refused and how, and that it does not matter in which pieces it comes.

use super::fields::MAX_FIELDS;
use super::*;

const HOST: &str = "Host: a\r\n";

fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
    Scan::default().head(bytes)
}

fn head(text: &str) -> Head {
    parse(text.as_bytes()).unwrap().expect("a whole head").0
}

fn status(bytes: impl AsRef<[u8]>) -> u16 {
    parse(bytes.as_ref()).expect_err(&String::from_utf8_lossy(bytes.as_ref())).status
}

fn with(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\n{HOST}{fields}\r\n\r\n")
}

#[test]
fn what_is_understood_of_a_head_is_all_that_goes_on() {
    let text = "POST /messages?a=b&c HTTP/1.1\r\nHost: a.example:8443\r\nAccept: a/b\r\nx: y\r\naccept: c/d\r\n\
        CONTENT-TYPE: application/json\r\nContent-Length: 07\r\nExpect: 100-Continue\r\n\r\n";
    let head = head(text);
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
fn the_pieces_in_which_a_head_comes_do_not_matter() {
    let text = with("Accept: */*\r\nContent-Length: 3");
    let bytes = format!("{text}foo");
    for step in 1..text.len() {
        let mut scan = Scan::default();
        let mut end = 0;
        let found = loop {
            end = (end + step).min(bytes.len());
            if let Some(found) = scan.head(&bytes.as_bytes()[..end]).unwrap() {
                break found;
            }
        };
        assert_eq!(found, parse(text.as_bytes()).unwrap().unwrap());
        assert_eq!(found.1, text.len());
    }
}

#[test]
fn a_byte_that_may_not_follow_is_refused_wherever_it_stands() {
    for place in 0..3 * STEP {
        let before = "v".repeat(place);
        for bad in ["\0", "\x1f", "\x7f", "\n", "\rv", "\r\r\n", "\r\0"] {
            let text = with(&format!("A: {before}{bad}{}", "v".repeat(3 * STEP - place)));
            let at = text.find("A: ").unwrap() + 3 + place;
            // As soon as it is there, and not before.
            assert_eq!(parse(&text.as_bytes()[..at]), Ok(None));
            assert_eq!(status(&text[..at + bad.len()]), 400, "{bad:?} after {place}");
            assert_eq!(status(&text), 400, "{bad:?} after {place}");
        }
        let head = head(&with(&format!("Accept: v{before}\t~ v")));
        assert!(head.request.accept.unwrap().contains("\t~ v"));
    }
}

#[test]
fn a_connection_is_kept_in_1_1_unless_told_and_in_1_0_only_if_told() {
    assert!(head(&with("A: b")).keep_alive);
    assert!(!head(&with("Connection: foo, CLOSE")).keep_alive);
    assert!(!head(&with("Connection: keep-alive\r\nConnection: close")).keep_alive);
    assert!(!head("GET / HTTP/1.0\r\n\r\n").keep_alive);
    assert!(head("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
}

#[test]
fn framing_that_could_be_read_in_two_ways_is_refused_with_400() {
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
        assert_eq!(status(with(fields)), 400, "{fields}");
    }
    assert_eq!(status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn a_length_beyond_all_numbers_is_a_length_that_is_too_large() {
    assert_eq!(head(&with("Content-Length: 99999999999999999999999999")).framing, Framing::Length(u64::MAX));
}

#[test]
fn fields_that_are_not_clean_are_refused_with_400() {
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
        assert_eq!(status(with(fields)), 400, "{fields:?}");
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
        assert_eq!(status(bytes), 400, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn one_host_is_needed_in_1_1_and_no_two_ever() {
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
    for bad in ["a, b", "a/b", "a b", "u@a", "a\\b", "\u{e9}"] {
        assert_eq!(status(format!("GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n")), 400, "{bad}");
    }
    for good in ["", "a:8443", "[::1]:8443", "a.example"] {
        assert!(parse(format!("GET / HTTP/1.1\r\nHost: {good}\r\n\r\n").as_bytes()).is_ok(), "{good}");
    }
}

#[test]
fn a_request_line_that_is_none_is_refused_as_soon_as_it_ends() {
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
        assert_eq!(status(format!("{line}\r\n")), 400, "{line:?}");
    }
    for line in ["PRI * HTTP/2.0", "GET / HTTP/2", "GET / HTTP/0.9", "GET / HTTP/1.2", "GET / HTTP/1.10", "GET / HTTP/"]
    {
        assert_eq!(status(format!("{line}\r\n")), 505, "{line:?}");
    }
}

#[test]
fn lines_heads_and_fields_are_taken_up_to_the_limit_and_not_beyond() {
    let line = |length: usize| format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(length - 14));
    assert!(parse(line(MAX_LINE).as_bytes()).unwrap().is_some());
    assert_eq!(status(line(MAX_LINE + 1)), 414);
    for more in 2..=2 * STEP {
        assert_eq!(status("a".repeat(MAX_LINE + more)), 414);
    }
    let sized = |length: usize| {
        let rest = with("A: ").len();
        with(&format!("A: {}", "a".repeat(length - rest)))
    };
    assert!(parse(sized(MAX_HEAD).as_bytes()).unwrap().is_some());
    for more in 1..=2 * STEP {
        assert_eq!(status(&sized(2 * MAX_HEAD)[..MAX_HEAD + more]), 431);
    }
    assert_eq!(status(sized(MAX_HEAD + 1)), 431);
    assert!(parse(with(&vec!["A: b"; MAX_FIELDS - 1].join("\r\n")).as_bytes()).unwrap().is_some());
    assert_eq!(status(with(&vec!["A: b"; MAX_FIELDS].join("\r\n"))), 431);
}

#[test]
fn an_expectation_other_than_100_continue_is_417() {
    assert_eq!(status(with("Expect: 200-ok")), 417);
    assert!(head(&with("Expect: 100-continue")).expects_continue);
    assert!(!head("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expects_continue);
}

#[test]
fn no_bytes_make_it_panic() {
    let seed = with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\nHost: b").into_bytes();
    for at in 0..seed.len() {
        for byte in 0..=255 {
            let mut bytes = seed.clone();
            bytes[at] = byte;
            let _ = parse(&bytes);
            let _ = parse(&bytes[at..]);
        }
    }
}

#[test]
fn a_bearers_token_is_known_by_its_digest_and_two_credentials_are_refused() {
    let token = |value: &str| {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {value}\r\n\r\n");
        Scan::default().head(bytes.as_bytes()).map(|head| head.unwrap().0.token)
    };
    for value in ["Bearer secret", "bearer secret", "BEARER   secret  "] {
        assert_eq!(token(value), Ok(Some(Digest::of(b"secret"))), "{value}");
    }
    for value in ["Basic secret", "Bearer", "Bearer ", "secret", "Bearersecret"] {
        assert_eq!(token(value), Ok(None), "{value}");
    }
    assert_eq!(token("Bearer a\r\nAuthorization: Bearer b").unwrap_err().status, 400);
}

#[test]
fn an_id_is_taken_over_only_if_it_is_short_and_plain() {
    let id = |value: &str| {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: {value}\r\n\r\n");
        Scan::default().head(bytes.as_bytes()).unwrap().unwrap().0.id
    };
    assert_eq!(id("a-B_1.c"), Some("a-B_1.c".to_owned()));
    for bad in ["", "a b", "a\"b", "a/b", &"a".repeat(65)] {
        assert_eq!(id(bad), None, "{bad}");
    }
}
