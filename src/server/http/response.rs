//! Encoder of responses: status line, fields of the connection, fields of the response. The `Date` field is formatted
//! once per second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::server::api::Response;

/// Maximum length of a body that is copied behind its head, so that both are sent by one write, in bytes.
const MAX_INLINE_BODY: usize = 16 << 10;

/// Encoder with a reused buffer and the `Date` field of the current second.
#[derive(Default)]
pub(super) struct ResponseEncoder {
    second: u64,
    date: String,
    out: Vec<u8>,
}

impl ResponseEncoder {
    /// Encodes `response`. Returns two parts, to be written one after the other.
    ///
    /// `keep_alive` determines the `Connection` field, `id` is the `X-Request-Id`.
    pub(super) fn encode<'a>(
        &'a mut self,
        response: &'a Response,
        with_body: bool,
        keep_alive: bool,
        id: &str,
    ) -> (&'a [u8], &'a [u8]) {
        self.refresh_date();
        let out = &mut self.out;
        out.clear();
        let mut add = |part: &str| out.extend_from_slice(part.as_bytes());
        add("HTTP/1.1 ");
        add(&response.status.to_string());
        add(" ");
        add(reason_phrase(response.status));
        add("\r\n");
        add(&self.date);
        add(&response.raw_headers);
        add("X-Request-Id: ");
        add(id);
        add("\r\n");
        if !matches!(response.status, 204 | 304) {
            add("Content-Length: ");
            add(&response.content_length.to_string());
            add("\r\n");
        }
        add(if keep_alive { "Connection: keep-alive\r\n\r\n" } else { "Connection: close\r\n\r\n" });
        let body = if with_body { response.body.as_slice() } else { &[] };
        if body.len() > MAX_INLINE_BODY {
            return (out, body);
        }
        out.extend_from_slice(body);
        (out, &[])
    }

    fn refresh_date(&mut self) {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        if second != self.second || self.date.is_empty() {
            self.second = second;
            // A clock before 1970 counts as 1970, because `httpdate` cannot format earlier times.
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            self.date = format!("Date: {date}\r\n");
        }
    }
}

const fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_response_is_one_slice_and_a_long_body_is_not_copied() {
        let mut encoder = ResponseEncoder::default();
        let short = Response::json(200, b"{}".to_vec());
        let (head, body) = encoder.encode(&short, true, true, "a");
        assert!(head.ends_with(b"X-Request-Id: a\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n{}"));
        assert!(head.starts_with(b"HTTP/1.1 200 OK\r\nDate: ") && body.is_empty());
        let long = Response::json(200, vec![b' '; MAX_INLINE_BODY + 1]);
        assert_eq!(encoder.encode(&long, true, false, "a").1, long.body);
        assert_eq!(encoder.encode(&long, false, false, "a").1, b"");
    }
}
