//! A put that shares a request with others: the line that it becomes, and its own reply again from what came of that.
//! Only what would be stored alone as well becomes a line, so that nobody pays for another's mistake.

use super::{Method, Request, Response, batch, json, message};
use crate::digest::Digest;

/// The longest body that becomes a line, in bytes: with more, what is shared is no longer what costs.
const MAX_COALESCED_BODY: usize = 2 << 10;

/// The line for `request`, if it is a put that can be one of many.
pub(in crate::server) fn to_batch_line(request: &Request) -> Option<Vec<u8>> {
    let is_put = (request.method, request.path.as_str()) == (Method::Post, "/messages");
    // What the client says of its bytes is about the body as it came.
    let is_plain = request.content_digest.is_none() && request.repr_digest.is_none();
    if !is_put
        || !is_plain
        || request.body.len() > MAX_COALESCED_BODY
        || !json::is_media_type(json::CONTENT_TYPE, request.content_type.as_deref())
    {
        return None;
    }
    let mut line = json::single_field_object("message", &json::parse_put_body(&request.body)?);
    line.push(b'\n');
    Some(line)
}

/// The request of many lines.
pub(in crate::server) fn batch_request(lines: Vec<u8>) -> Request {
    Request {
        content_type: Some(batch::CONTENT_TYPE.to_owned()),
        body: lines,
        ..Request::new(Method::Post, "/messages")
    }
}

/// What `reply` says of each line: the digest of what is stored; nothing of any, if it is no 200.
pub(in crate::server) fn parse_batch_response(reply: &Response) -> Vec<Option<Digest>> {
    match reply.status {
        200 => batch::parse_digests(&reply.body),
        _ => Vec::new(),
    }
}

/// What one gets whose message is stored.
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
        let more = "{\"base64\": \"/w==\",\n\"digest\": \"no\",\r\n \"message\": \"a\\n\u{e4}\\\"\", \"new\": [true]}";
        assert_eq!(batch_line_text(more).as_deref(), Some(line));
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
            Request { path: "/messages/missing".to_owned(), ..put_request(foo) },
            Request { method: Method::Put, ..put_request(foo) },
        ] {
            assert_eq!(to_batch_line(&request), None, "{request:?}");
        }
    }

    #[test]
    fn only_a_200_response_reports_stored_digests() {
        let lines = format!("{{\"digest\": \"{0}\", \"new\": true}}\n{{\"err_msg\": \"{0}\"}}\n", Digest::compute(b""));
        let reply = |status| Response::new(status, batch::CONTENT_TYPE, lines.clone().into_bytes());
        assert_eq!(parse_batch_response(&reply(200)), [Some(Digest::compute(b"")), None]);
        assert_eq!(parse_batch_response(&reply(507)), []);
    }
}
