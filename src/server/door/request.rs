//! Bytes in, a request's head or a refusal out. Pure, and stricter than the standard where that keeps out ambiguity.
//! A head that passes has one meaning to every reader, and only what was understood of it goes further.

use super::line;
use crate::digest::Digest;
use crate::server::api::{Method, Reply, Request};

/// Of a request line, in bytes.
const MAX_LINE: usize = 8 << 10;
/// Of a head, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Of the fields in a head.
const MAX_FIELDS: usize = 100;

/// Fields that are lists, so that they may come in several lines.
const LISTS: [&str; 4] = ["Accept", "If-None-Match", "Content-Digest", "Repr-Digest"];

/// Why a request is not taken. What follows it on the connection has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
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
pub(super) struct Scan {
    checked: usize,
    /// Where the request line ends, before its CR.
    line: Option<usize>,
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::error(refusal.status, refusal.message)
    }
}

impl Refusal {
    pub(super) const fn new(status: u16, message: &'static str) -> Self {
        Self { status, message }
    }

    pub(super) const fn bad(message: &'static str) -> Self {
        Self::new(400, message)
    }
}

impl Scan {
    /// The head that `bytes` begin with and its length, or `None` while it is not whole.
    ///
    /// To be called again with the same bytes and more.
    pub(super) fn head(&mut self, bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
        let Some(end) = self.end(bytes)? else { return Ok(None) };
        let line = self.line.expect("a head that ended has a first line");
        let (request, version) = request_line(&bytes[..line])?;
        fields(request, version, &bytes[line + 2..end]).map(|head| Some((head, end)))
    }

    fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        for at in self.checked..bytes.len() {
            let before = if at == 0 { 0 } else { bytes[at - 1] };
            if !line::may_follow(before, bytes[at]) {
                return Err(Refusal::bad("Control character in the head"));
            }
            if at >= MAX_HEAD {
                return Err(Refusal::new(431, "Request head too large"));
            }
            match self.line {
                None if bytes[at] == b'\n' => {
                    // Said at once: who speaks another protocol may not send more until it is answered.
                    request_line(&bytes[..at - 1])?;
                    self.line = Some(at - 1);
                }
                None if at > MAX_LINE => return Err(Refusal::new(414, "Request line too long")),
                Some(_) if bytes[at] == b'\n' && bytes[..at - 1].ends_with(b"\r\n") => return Ok(Some(at + 1)),
                _ => {}
            }
        }
        self.checked = bytes.len();
        Ok(None)
    }
}

/// The minor version of HTTP/1.
type Minor = u8;

fn request_line(line: &[u8]) -> Result<(Request, Minor), Refusal> {
    const NONE: Refusal = Refusal::bad("Not an HTTP request");
    let line = std::str::from_utf8(line).map_err(|_| NONE)?;
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(NONE);
    };
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(NONE);
    }
    let minor = match version {
        "HTTP/1.1" => 1,
        "HTTP/1.0" => 0,
        _ if version.starts_with("HTTP/") => return Err(Refusal::new(505, "HTTP version not supported")),
        _ => return Err(NONE),
    };
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Refusal::bad("Invalid request target"));
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let request = Request { query, ..Request::new(Method::named(method), path) };
    Ok((request, minor))
}

/// What the fields say that needs all of them to be known.
#[derive(Default)]
struct Seen<'a> {
    hosts: usize,
    length: Option<&'a [u8]>,
    codings: usize,
    id: Option<&'a [u8]>,
    forwarded: Option<String>,
    credentials: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

fn fields(mut request: Request, minor: Minor, bytes: &[u8]) -> Result<Head, Refusal> {
    let mut space = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let fields = parse_fields(bytes, &mut space)?;
    let mut seen = Seen::default();
    for field in fields {
        take(field, &mut request, &mut seen, minor)?;
    }
    if seen.hosts != 1 && (minor == 1 || seen.hosts > 1) {
        return Err(Refusal::bad("One Host is needed"));
    }
    let framing = match (seen.length, seen.codings > 0) {
        (Some(_), true) => return Err(Refusal::bad("Content-Length with Transfer-Encoding")),
        (None, true) if minor == 0 => return Err(Refusal::bad("Transfer-Encoding in HTTP/1.0")),
        (None, true) => Framing::Chunked,
        (Some(digits), false) => Framing::Length(content_length(digits)?),
        (None, false) => Framing::Length(0),
    };
    Ok(Head {
        request,
        framing,
        keep_alive: !seen.close && (minor == 1 || seen.keep_alive),
        // A client of 1.0 does not know of it (RFC 9110, 10.1.1).
        expects_continue: seen.expects_continue && minor == 1,
        token: seen.credentials.and_then(bearer),
        id: seen.id.and_then(plain),
        forwarded: seen.forwarded,
    })
}

/// The fields of a head or of trailers, from after the first line to the end of the empty one.
pub(super) fn parse_fields<'a, 'b>(
    bytes: &'b [u8],
    space: &'a mut [httparse::Header<'b>],
) -> Result<&'a [httparse::Header<'b>], Refusal> {
    match httparse::parse_headers(bytes, space) {
        Ok(httparse::Status::Complete((_, fields))) => Ok(fields),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::new(431, "Too many header fields")),
        Ok(httparse::Status::Partial) | Err(_) => Err(Refusal::bad("Invalid header field")),
    }
}

fn take<'a>(
    field: &httparse::Header<'a>,
    request: &mut Request,
    seen: &mut Seen<'a>,
    minor: Minor,
) -> Result<(), Refusal> {
    let is = |name: &str| field.name.eq_ignore_ascii_case(name);
    if is("Host") {
        seen.hosts += 1;
        if !field.value.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(&byte)) {
            return Err(Refusal::bad("Invalid Host"));
        }
    } else if is("Content-Length") {
        if seen.length.replace(field.value).is_some() {
            return Err(Refusal::bad("More than one Content-Length"));
        }
    } else if is("Transfer-Encoding") {
        if seen.codings > 0 || field.value != b"chunked" {
            return Err(Refusal::bad("Transfer-Encoding other than chunked"));
        }
        seen.codings += 1;
    } else if is("Connection") {
        for option in field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            seen.close |= option.eq_ignore_ascii_case(b"close");
            seen.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    } else if is("Expect") {
        if minor == 1 && !field.value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::new(417, "Expectation failed"));
        }
        seen.expects_continue = true;
    } else if is("Authorization") {
        if seen.credentials.replace(field.value).is_some() {
            return Err(Refusal::bad("More than one Authorization"));
        }
    } else if is("X-Request-Id") {
        seen.id = Some(field.value);
    } else if is("X-Forwarded-For") {
        // Each proxy may add a line of its own. What is no text is no address either.
        let value = String::from_utf8_lossy(field.value);
        match &mut seen.forwarded {
            Some(list) => list.extend([", ", &value]),
            None => seen.forwarded = Some(value.into_owned()),
        }
    } else if let Some((name, value)) = request.fields_mut().into_iter().find(|(name, _)| is(name)) {
        let text = text(field.value)?;
        match value {
            Some(list) if LISTS.contains(&name) => list.extend([", ", text]),
            Some(_) => return Err(Refusal::bad("A field that may stand once stands twice")),
            None => *value = Some(text.to_owned()),
        }
    }
    Ok(())
}

fn content_length(digits: &[u8]) -> Result<u64, Refusal> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::bad("Content-Length is not a number"));
    }
    // All digits, so what does not parse is out of range.
    Ok(std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX))
}

/// An id that can stand in a log as it is.
fn plain(id: &[u8]) -> Option<String> {
    let is_plain =
        (1..=64).contains(&id.len()) && id.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    is_plain.then(|| String::from_utf8_lossy(id).into_owned())
}

/// The digest of a bearer's token (RFC 6750, 2.1). Another scheme is as good as none.
fn bearer(credentials: &[u8]) -> Option<Digest> {
    let (scheme, token) = credentials.split_at_checked(b"Bearer ".len())?;
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.trim_ascii().is_empty()).then(|| Digest::of(token.trim_ascii()))
}

fn text(value: &[u8]) -> Result<&str, Refusal> {
    match std::str::from_utf8(value) {
        Ok(value) if value.is_ascii() => Ok(value),
        _ => Err(Refusal::bad("Header field is not ASCII")),
    }
}

/// Whether `byte` may stand in a method or a field's name (RFC 9110, 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
