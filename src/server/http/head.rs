//! Incremental parser of request heads, without I/O. It is stricter than RFC 9112 where that excludes ambiguity: an
//! accepted head has only one meaning, and only known fields are passed on.

use super::byte_class::{self, SCAN_WIDTH};
use super::fields::{Fields, HttpVersion, parse_content_length};
use super::request_error::RequestError;
use crate::digest::Digest;
use crate::server::api::{Method, Request};

/// Maximum length of a request line, in bytes.
const MAX_REQUEST_LINE: usize = 8 << 10;
/// Maximum length of a head, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// A parsed request head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The request, with an empty body.
    pub(super) request: Request,
    /// Delimitation of the body.
    pub(super) framing: Framing,
    /// The connection may be used for another request.
    pub(super) keep_alive: bool,
    /// SHA-256 of the bearer token. The token itself is dropped.
    pub(super) token: Option<Digest>,
    /// The client's request id, if it is short and safe to log.
    pub(super) id: Option<String>,
    /// Value of `X-Forwarded-For`, not verified.
    pub(super) forwarded: Option<String>,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
}

/// Delimitation of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// Incremental parser of a head. Each byte is checked once, however the input is split.
#[derive(Debug, Default)]
pub(super) struct HeadParser {
    checked: usize,
    /// The parsed request line, and the offset of its CR.
    request_line: Option<(Request, HttpVersion, usize)>,
}

impl Head {
    /// Builds a head from its request line and `bytes`, which are the field lines and the empty line at the end.
    fn new(mut request: Request, version: HttpVersion, bytes: &[u8]) -> Result<Self, RequestError> {
        let fields = Fields::parse(bytes, version, &mut request)?;
        let is_http11 = version == HttpVersion::Http11;
        if fields.hosts != 1 && (is_http11 || fields.hosts > 1) {
            return Err(RequestError::bad_request("Missing or duplicate Host"));
        }
        let framing = match (fields.length, fields.codings > 0) {
            (Some(_), true) => return Err(RequestError::bad_request("Content-Length with Transfer-Encoding")),
            (None, true) if !is_http11 => return Err(RequestError::bad_request("Transfer-Encoding in HTTP/1.0")),
            (None, true) => Framing::Chunked,
            (Some(digits), false) => Framing::Length(parse_content_length(digits)?),
            (None, false) => Framing::Length(0),
        };
        Ok(Self {
            request,
            framing,
            keep_alive: !fields.close && (is_http11 || fields.keep_alive),
            // HTTP/1.0 has no `100 Continue` (RFC 9110, 10.1.1).
            expects_continue: fields.expects_continue && is_http11,
            token: fields.token(),
            id: fields.request_id(),
            forwarded: fields.forwarded,
        })
    }
}

impl HeadParser {
    /// Returns the head at the start of `bytes` and its length, or `None` if it is incomplete.
    ///
    /// While the head is incomplete, call it again with the same bytes and those that follow.
    pub(super) fn parse(&mut self, bytes: &[u8]) -> Result<Option<(Head, usize)>, RequestError> {
        let Some(end) = self.find_end(bytes)? else { return Ok(None) };
        let (request, version, line_end) = self.request_line.take().expect("a complete head has a request line");
        Head::new(request, version, &bytes[line_end + 2..end]).map(|head| Some((head, end)))
    }

    fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, RequestError> {
        while self.checked < bytes.len() {
            let (start, end) = (self.checked, bytes.len().min(self.checked + SCAN_WIDTH));
            let is_plain = bytes[start..].first_chunk().copied().is_some_and(byte_class::has_no_controls);
            // Bytes that may end a line or exceed a limit are checked one by one.
            if !is_plain || end > MAX_REQUEST_LINE || bytes[..start].ends_with(b"\r") {
                for offset in start..end {
                    if self.is_end_at(bytes, offset)? {
                        return Ok(Some(offset + 1));
                    }
                }
            }
            self.checked = end;
        }
        Ok(None)
    }

    /// Checks one byte. Returns whether it ends the head.
    fn is_end_at(&mut self, bytes: &[u8], offset: usize) -> Result<bool, RequestError> {
        let (previous, byte) = (offset.checked_sub(1).map_or(0, |previous| bytes[previous]), bytes[offset]);
        if !byte_class::is_legal_after(previous, byte) {
            return Err(RequestError::bad_request("Control character in the head"));
        }
        if offset >= MAX_HEAD {
            return Err(RequestError::new(431, "Request head too large"));
        }
        match self.request_line {
            None if byte == b'\n' => {
                // The line is checked before the head is complete: a client of another protocol may wait for a response
                // here.
                let (request, version) = parse_request_line(&bytes[..offset - 1])?;
                self.request_line = Some((request, version, offset - 1));
                Ok(false)
            }
            None if offset > MAX_REQUEST_LINE => Err(RequestError::new(414, "Request line too long")),
            Some(_) => Ok(byte == b'\n' && bytes[..offset - 1].ends_with(b"\r\n")),
            None => Ok(false),
        }
    }
}

fn parse_request_line(line: &[u8]) -> Result<(Request, HttpVersion), RequestError> {
    const NOT_HTTP: RequestError = RequestError::bad_request("Not an HTTP request");
    let line = std::str::from_utf8(line).map_err(|_| NOT_HTTP)?;
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(NOT_HTTP);
    };
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(NOT_HTTP);
    }
    let version = match version {
        "HTTP/1.1" => HttpVersion::Http11,
        "HTTP/1.0" => HttpVersion::Http10,
        _ if version.starts_with("HTTP/") => return Err(RequestError::new(505, "HTTP version not supported")),
        _ => return Err(NOT_HTTP),
    };
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(RequestError::bad_request("Invalid request target"));
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let request = Request { query, ..Request::new(Method::from_name(method), path) };
    Ok((request, version))
}

/// Returns whether `byte` may occur in a method or field name (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
