//! Bytes in, a request's head or a refusal out. Pure, and stricter than the standard where that keeps out ambiguity.
//! A head that passes has one meaning to every reader, and only what was understood of it goes further.

mod fields;

use super::byte_class::{self, SCAN_WIDTH};
use crate::digest::Digest;
use crate::server::api::{Method, Request, Response};
pub(super) use fields::parse_field_lines;
use fields::parse_headers;

/// Of a request line, in bytes.
const MAX_REQUEST_LINE: usize = 8 << 10;
/// Of a head, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Why a request is not taken. What follows it on the connection has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestError {
    pub(super) status: u16,
    pub(super) message: &'static str,
}

/// A head that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// What it asks, the body still empty.
    pub(super) request: Request,
    /// How the body is delimited.
    pub(super) framing: Framing,
    /// Whether the client can take another reply on this connection.
    pub(super) keep_alive: bool,
    /// The SHA-256 of the token that came with it. The token itself goes no further.
    pub(super) token: Option<Digest>,
    /// What the client calls the request, if that is short and plain.
    pub(super) id: Option<String>,
    /// For whom a proxy says that it came (`X-Forwarded-For`).
    pub(super) forwarded: Option<String>,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// Finds where a head ends, each byte looked at once however it comes in pieces.
#[derive(Debug, Default)]
pub(super) struct HeadParser {
    checked: usize,
    /// What the request line says, and where it ends, before its CR.
    request_line: Option<(Request, HttpVersion, usize)>,
}

impl From<RequestError> for Response {
    fn from(refusal: RequestError) -> Self {
        Self::error(refusal.status, refusal.message)
    }
}

impl RequestError {
    pub(super) const fn new(status: u16, message: &'static str) -> Self {
        Self { status, message }
    }

    pub(super) const fn bad_request(message: &'static str) -> Self {
        Self::new(400, message)
    }
}

impl HeadParser {
    /// The head that `bytes` begin with and its length, or `None` while it is not whole.
    ///
    /// To be called again with the same bytes and more.
    pub(super) fn parse(&mut self, bytes: &[u8]) -> Result<Option<(Head, usize)>, RequestError> {
        let Some(end) = self.find_end(bytes)? else { return Ok(None) };
        let (request, version, line) = self.request_line.take().expect("a head that ended has a first line");
        parse_headers(request, version, &bytes[line + 2..end]).map(|head| Some((head, end)))
    }

    fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, RequestError> {
        while self.checked < bytes.len() {
            let (from, to) = (self.checked, bytes.len().min(self.checked + SCAN_WIDTH));
            let is_plain = bytes[from..].first_chunk().copied().is_some_and(byte_class::has_no_controls);
            // What may end a line or break a limit is looked at byte by byte.
            if !is_plain || to > MAX_REQUEST_LINE || bytes[..from].ends_with(b"\r") {
                for at in from..to {
                    if self.is_end_at(bytes, at)? {
                        return Ok(Some(at + 1));
                    }
                }
            }
            self.checked = to;
        }
        Ok(None)
    }

    /// Looks at one byte, and tells whether the head ends with it.
    fn is_end_at(&mut self, bytes: &[u8], at: usize) -> Result<bool, RequestError> {
        let (previous, byte) = (at.checked_sub(1).map_or(0, |previous| bytes[previous]), bytes[at]);
        if !byte_class::is_legal_after(previous, byte) {
            return Err(RequestError::bad_request("Control character in the head"));
        }
        if at >= MAX_HEAD {
            return Err(RequestError::new(431, "Request head too large"));
        }
        match self.request_line {
            None if byte == b'\n' => {
                // Said at once: who speaks another protocol may not send more until it is answered.
                let (request, version) = parse_request_line(&bytes[..at - 1])?;
                self.request_line = Some((request, version, at - 1));
                Ok(false)
            }
            None if at > MAX_REQUEST_LINE => Err(RequestError::new(414, "Request line too long")),
            Some(_) => Ok(byte == b'\n' && bytes[..at - 1].ends_with(b"\r\n")),
            None => Ok(false),
        }
    }
}

/// The minor version of HTTP/1.
type HttpVersion = u8;

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
    let minor = match version {
        "HTTP/1.1" => 1,
        "HTTP/1.0" => 0,
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
    Ok((request, minor))
}

/// Whether `byte` may stand in a method or a field's name (RFC 9110, 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
