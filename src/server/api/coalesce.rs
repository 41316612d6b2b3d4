//! Conversion between a small put and a line of a batch request. Only a put that would also succeed alone becomes a
//! line, so an invalid put never affects the others. See docs/design.md, "Put coalescing".

use super::{Method, Request, Response, Route, batch, json, message};
use crate::digest::Digest;

/// Maximum length in bytes of a body that is coalesced. For longer bodies, sharing a commit saves little.
const MAX_COALESCED_BODY: usize = 2 << 10;

/// Returns the batch line for `request`, or `None` if `request` is not a put that can be coalesced.
pub(in crate::server) fn to_batch_line(request: &Request) -> Option<Vec<u8>> {
    let is_put = (request.route, request.method) == (Route::Messages, Method::Post);
    // A declared hash refers to the body as it was received, which a line does not preserve.
    let declares_hash = request.content_digest.is_some() || request.repr_digest.is_some();
    if !is_put
        || declares_hash
        || request.body.len() > MAX_COALESCED_BODY
        || !json::is_media_type(json::CONTENT_TYPE, request.content_type.as_deref())
    {
        return None;
    }
    let mut line = json::single_field_object("message", &json::parse_put_body(&request.body)?);
    line.push(b'\n');
    Some(line)
}

/// Returns the batch request with these lines.
pub(in crate::server) fn batch_request(lines: Vec<u8>) -> Request {
    Request {
        content_type: Some(batch::CONTENT_TYPE.to_owned()),
        body: lines,
        ..Request::new(Method::Post, "/messages")
    }
}

/// Returns the digest that was stored for each line, or `None` for a line that failed. Returns no entries unless the
/// status is 200.
pub(in crate::server) fn parse_batch_response(response: &Response) -> Vec<Option<Digest>> {
    match response.status {
        200 => batch::parse_digests(&response.body),
        _ => Vec::new(),
    }
}

/// Returns the response to a put whose message was stored as part of a batch.
pub(in crate::server) fn put_response(digest: Digest) -> Response {
    message::stored_response(200, digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_request(body: &str) -> Request {
        let content_type = Some("application/json; charset=utf-8".to_owned());
        Request { content_type, body: body.into(), ..Request::new(Method::Post, "/messages") }
    }

    fn batch_line_text(body: &str) -> Option<String> {
        to_batch_line(&put_request(body)).map(|line| String::from_utf8(line).unwrap())
    }

    #[test]
    fn a_put_becomes_one_line_with_only_its_message() {
        let line = "{\"message\": \"a\\n\u{e4}\\\"\"}\n";
        assert_eq!(batch_line_text("{\"message\": \"a\\n\\u00e4\\\"\"}").as_deref(), Some(line));
        let with_unknown_keys =
            "{\"base64\": \"/w==\",\n\"digest\": \"no\",\r\n \"message\": \"a\\n\u{e4}\\\"\", \"new\": [true]}";
        assert_eq!(batch_line_text(with_unknown_keys).as_deref(), Some(line));
    }

    #[test]
    fn invalid_puts_and_puts_with_a_digest_header_are_not_coalesced() {
        let foo = "{\"message\": \"foo\"}";
        for body in [
            "",
            "[]",
            "{}",
            "{\"base64\": \"/w==\"}",
            "{\"message\": 1}",
            "{\"message\": \"foo\"} x",
            "{\"message\": \"\\ud800\"}",
        ] {
            assert_eq!(batch_line_text(body), None, "{body}");
        }
        assert_eq!(batch_line_text(&format!("{{\"message\": \"{}\"}}", "x".repeat(MAX_COALESCED_BODY))), None);
        let some = |text: &str| Some(text.to_owned());
        for request in [
            Request { content_type: None, ..put_request(foo) },
            Request { content_type: some(batch::CONTENT_TYPE), ..put_request(foo) },
            Request { content_digest: some("sha-256=:AAAA:"), ..put_request(foo) },
            Request { repr_digest: some("sha-256=:AAAA:"), ..put_request(foo) },
            Request { route: Route::Missing, ..put_request(foo) },
            Request { method: Method::Put, ..put_request(foo) },
        ] {
            assert_eq!(to_batch_line(&request), None, "{request:?}");
        }
    }

    #[test]
    fn only_a_200_response_reports_stored_digests() {
        let lines = format!("{{\"digest\": \"{0}\", \"new\": true}}\n{{\"err_msg\": \"{0}\"}}\n", Digest::compute(b""));
        let response = |status| Response::new(status, batch::CONTENT_TYPE, lines.clone().into_bytes());
        assert_eq!(parse_batch_response(&response(200)), [Some(Digest::compute(b"")), None]);
        assert_eq!(parse_batch_response(&response(507)), []);
    }
}
