//! A put that shares a request with others: the line that it becomes, and its own reply again from what came of that.
//! Only what would be stored alone as well becomes a line, so that nobody pays for another's mistake.

use super::{Method, Reply, Request, batch, json, message};
use crate::digest::Digest;

/// The longest body that becomes a line, in bytes: with more, what is shared is no longer what costs.
const LONGEST: usize = 2 << 10;

/// The line for `request`, if it is a put that can be one of many.
pub(in crate::server) fn line(request: &Request) -> Option<Vec<u8>> {
    let is_put = (request.method, request.path.as_str()) == (Method::Post, "/messages");
    // What the client says of its bytes is about the body as it came.
    let is_plain = request.content_digest.is_none() && request.repr_digest.is_none();
    if !is_put || !is_plain || request.body.len() > LONGEST || !json::is(json::KIND, request.content_type.as_deref()) {
        return None;
    }
    let mut line = json::object("message", &json::message(&request.body)?);
    line.push(b'\n');
    Some(line)
}

/// The request of many lines.
pub(in crate::server) fn request(lines: Vec<u8>) -> Request {
    Request { content_type: Some(batch::KIND.to_owned()), body: lines, ..Request::new(Method::Post, "/messages") }
}

/// What `reply` says of each line: the digest of what is stored; nothing of any, if it is no 200.
pub(in crate::server) fn stored(reply: &Reply) -> Vec<Option<Digest>> {
    match reply.status {
        200 => batch::named(&reply.body),
        _ => Vec::new(),
    }
}

/// What one gets whose message is stored.
pub(in crate::server) fn reply(digest: Digest) -> Reply {
    message::stored(200, digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(body: &str) -> Request {
        let content_type = Some("application/json; charset=utf-8".to_owned());
        Request { content_type, body: body.into(), ..Request::new(Method::Post, "/messages") }
    }

    fn said(body: &str) -> Option<String> {
        line(&put(body)).map(|line| String::from_utf8(line).unwrap())
    }

    #[test]
    fn a_put_becomes_one_line_with_the_message_and_nothing_else() {
        let line = "{\"message\": \"a\\n\u{e4}\\\"\"}\n";
        assert_eq!(said("{\"message\": \"a\\n\\u00e4\\\"\"}").as_deref(), Some(line));
        let more = "{\"base64\": \"/w==\",\n\"digest\": \"no\",\r\n \"message\": \"a\\n\u{e4}\\\"\", \"new\": [true]}";
        assert_eq!(said(more).as_deref(), Some(line));
    }

    #[test]
    fn what_is_not_stored_alone_or_needs_more_than_its_message_becomes_no_line() {
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
            assert_eq!(said(body), None, "{body}");
        }
        assert_eq!(said(&format!("{{\"message\": \"{}\"}}", "x".repeat(LONGEST))), None);
        let some = |text: &str| Some(text.to_owned());
        for request in [
            Request { content_type: None, ..put(foo) },
            Request { content_type: some(batch::KIND), ..put(foo) },
            Request { content_digest: some("sha-256=:AAAA:"), ..put(foo) },
            Request { repr_digest: some("sha-256=:AAAA:"), ..put(foo) },
            Request { path: "/messages/missing".to_owned(), ..put(foo) },
            Request { method: Method::Put, ..put(foo) },
        ] {
            assert_eq!(line(&request), None, "{request:?}");
        }
    }

    #[test]
    fn only_a_200_says_that_something_is_stored() {
        let lines = format!("{{\"digest\": \"{0}\", \"new\": true}}\n{{\"err_msg\": \"{0}\"}}\n", Digest::of(b""));
        let reply = |status| Reply::new(status, batch::KIND, lines.clone().into_bytes());
        assert_eq!(stored(&reply(200)), [Some(Digest::of(b"")), None]);
        assert_eq!(stored(&reply(507)), []);
    }
}
