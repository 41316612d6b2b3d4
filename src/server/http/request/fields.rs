//! The fields of a head: each that means something to us is taken once, or as the list that it is; the rest goes no
//! further.

use super::{Framing, Head, HttpVersion, RequestError};
use crate::digest::Digest;
use crate::server::api::Request;

/// Of the fields in a head.
pub(super) const MAX_HEADER_FIELDS: usize = 100;

/// Fields that are lists, so that they may come in several lines.
const COMBINABLE_HEADERS: [&str; 4] = ["Accept", "If-None-Match", "Content-Digest", "Repr-Digest"];

/// What the fields say that needs all of them to be known.
#[derive(Default)]
struct HeaderState<'a> {
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

/// The head that a request line and these fields make, from after the line to the end of the empty one.
pub(super) fn parse_headers(mut request: Request, minor: HttpVersion, bytes: &[u8]) -> Result<Head, RequestError> {
    let mut space = [httparse::EMPTY_HEADER; MAX_HEADER_FIELDS];
    let fields = parse_field_lines(bytes, &mut space)?;
    let mut seen = HeaderState::default();
    for field in fields {
        apply_header(field, &mut request, &mut seen, minor)?;
    }
    if seen.hosts != 1 && (minor == 1 || seen.hosts > 1) {
        return Err(RequestError::bad_request("One Host is needed"));
    }
    let framing = match (seen.length, seen.codings > 0) {
        (Some(_), true) => return Err(RequestError::bad_request("Content-Length with Transfer-Encoding")),
        (None, true) if minor == 0 => return Err(RequestError::bad_request("Transfer-Encoding in HTTP/1.0")),
        (None, true) => Framing::Chunked,
        (Some(digits), false) => Framing::Length(parse_content_length(digits)?),
        (None, false) => Framing::Length(0),
    };
    Ok(Head {
        request,
        framing,
        keep_alive: !seen.close && (minor == 1 || seen.keep_alive),
        // A client of 1.0 does not know of it (RFC 9110, 10.1.1).
        expects_continue: seen.expects_continue && minor == 1,
        token: seen.credentials.and_then(bearer_digest),
        id: seen.id.and_then(sanitize_request_id),
        forwarded: seen.forwarded,
    })
}

/// The fields of a head or of trailers, from after the first line to the end of the empty one.
pub(in crate::server::http) fn parse_field_lines<'a, 'b>(
    bytes: &'b [u8],
    space: &'a mut [httparse::Header<'b>],
) -> Result<&'a [httparse::Header<'b>], RequestError> {
    match httparse::parse_headers(bytes, space) {
        Ok(httparse::Status::Complete((_, fields))) => Ok(fields),
        Err(httparse::Error::TooManyHeaders) => Err(RequestError::new(431, "Too many header fields")),
        Ok(httparse::Status::Partial) | Err(_) => Err(RequestError::bad_request("Invalid header field")),
    }
}

fn apply_header<'a>(
    field: &httparse::Header<'a>,
    request: &mut Request,
    seen: &mut HeaderState<'a>,
    minor: HttpVersion,
) -> Result<(), RequestError> {
    let is = |name: &str| field.name.eq_ignore_ascii_case(name);
    if is("Host") {
        seen.hosts += 1;
        if !field.value.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(&byte)) {
            return Err(RequestError::bad_request("Invalid Host"));
        }
    } else if is("Content-Length") {
        if seen.length.replace(field.value).is_some() {
            return Err(RequestError::bad_request("More than one Content-Length"));
        }
    } else if is("Transfer-Encoding") {
        if seen.codings > 0 || field.value != b"chunked" {
            return Err(RequestError::bad_request("Transfer-Encoding other than chunked"));
        }
        seen.codings += 1;
    } else if is("Connection") {
        for option in field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            seen.close |= option.eq_ignore_ascii_case(b"close");
            seen.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    } else if is("Expect") {
        if minor == 1 && !field.value.eq_ignore_ascii_case(b"100-continue") {
            return Err(RequestError::new(417, "Expectation failed"));
        }
        seen.expects_continue = true;
    } else if is("Authorization") {
        if seen.credentials.replace(field.value).is_some() {
            return Err(RequestError::bad_request("More than one Authorization"));
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
    } else if let Some((name, value)) = request.known_headers_mut().into_iter().find(|(name, _)| is(name)) {
        let text = ascii_str(field.value)?;
        match value {
            Some(list) if COMBINABLE_HEADERS.contains(&name) => list.extend([", ", text]),
            Some(_) => return Err(RequestError::bad_request("A field that may stand once stands twice")),
            None => *value = Some(text.to_owned()),
        }
    }
    Ok(())
}

fn parse_content_length(digits: &[u8]) -> Result<u64, RequestError> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(RequestError::bad_request("Content-Length is not a number"));
    }
    // All digits, so what does not parse is out of range.
    Ok(std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX))
}

/// An id that can stand in a log as it is.
fn sanitize_request_id(id: &[u8]) -> Option<String> {
    let is_plain =
        (1..=64).contains(&id.len()) && id.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    is_plain.then(|| String::from_utf8_lossy(id).into_owned())
}

/// The digest of a bearer's token (RFC 6750, 2.1). Another scheme is as good as none.
fn bearer_digest(credentials: &[u8]) -> Option<Digest> {
    let (scheme, token) = credentials.split_at_checked(b"Bearer ".len())?;
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.trim_ascii().is_empty())
        .then(|| Digest::compute(token.trim_ascii()))
}

fn ascii_str(value: &[u8]) -> Result<&str, RequestError> {
    match std::str::from_utf8(value) {
        Ok(value) if value.is_ascii() => Ok(value),
        _ => Err(RequestError::bad_request("Header field is not ASCII")),
    }
}
