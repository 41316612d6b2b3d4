//! Header fields of a request. A known field is accepted once, or combined if it is a list. Unknown fields are dropped.

use super::{Framing, Head, HttpVersion, RequestError};
use crate::digest::Digest;
use crate::server::api::Request;

/// Maximum number of fields in a head.
pub(super) const MAX_HEADER_FIELDS: usize = 100;

/// List fields, which may occur in several lines.
const COMBINABLE_HEADERS: [&str; 4] = ["Accept", "If-None-Match", "Content-Digest", "Repr-Digest"];

/// Fields that can be checked only when all of them are known.
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

/// Builds a head from its request line and `bytes`, which are the field lines and the empty line at the end.
pub(super) fn parse_headers(mut request: Request, minor: HttpVersion, bytes: &[u8]) -> Result<Head, RequestError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADER_FIELDS];
    let fields = parse_field_lines(bytes, &mut headers)?;
    let mut state = HeaderState::default();
    for field in fields {
        apply_header(field, &mut request, &mut state, minor)?;
    }
    if state.hosts != 1 && (minor == 1 || state.hosts > 1) {
        return Err(RequestError::bad_request("Missing or duplicate Host"));
    }
    let framing = match (state.length, state.codings > 0) {
        (Some(_), true) => return Err(RequestError::bad_request("Content-Length with Transfer-Encoding")),
        (None, true) if minor == 0 => return Err(RequestError::bad_request("Transfer-Encoding in HTTP/1.0")),
        (None, true) => Framing::Chunked,
        (Some(digits), false) => Framing::Length(parse_content_length(digits)?),
        (None, false) => Framing::Length(0),
    };
    Ok(Head {
        request,
        framing,
        keep_alive: !state.close && (minor == 1 || state.keep_alive),
        // HTTP/1.0 has no `100 Continue` (RFC 9110, 10.1.1).
        expects_continue: state.expects_continue && minor == 1,
        token: state.credentials.and_then(bearer_digest),
        id: state.id.and_then(sanitize_request_id),
        forwarded: state.forwarded,
    })
}

/// Parses the field lines of a head or of trailers. `bytes` end with the empty line.
pub(in crate::server::http) fn parse_field_lines<'a, 'b>(
    bytes: &'b [u8],
    headers: &'a mut [httparse::Header<'b>],
) -> Result<&'a [httparse::Header<'b>], RequestError> {
    match httparse::parse_headers(bytes, headers) {
        Ok(httparse::Status::Complete((_, fields))) => Ok(fields),
        Err(httparse::Error::TooManyHeaders) => Err(RequestError::new(431, "Too many header fields")),
        Ok(httparse::Status::Partial) | Err(_) => Err(RequestError::bad_request("Invalid header field")),
    }
}

fn apply_header<'a>(
    field: &httparse::Header<'a>,
    request: &mut Request,
    state: &mut HeaderState<'a>,
    minor: HttpVersion,
) -> Result<(), RequestError> {
    let is_name = |name: &str| field.name.eq_ignore_ascii_case(name);
    if is_name("Host") {
        state.hosts += 1;
        if !field.value.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(&byte)) {
            return Err(RequestError::bad_request("Invalid Host"));
        }
    } else if is_name("Content-Length") {
        if state.length.replace(field.value).is_some() {
            return Err(RequestError::bad_request("More than one Content-Length"));
        }
    } else if is_name("Transfer-Encoding") {
        if state.codings > 0 || field.value != b"chunked" {
            return Err(RequestError::bad_request("Transfer-Encoding other than chunked"));
        }
        state.codings += 1;
    } else if is_name("Connection") {
        for option in field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            state.close |= option.eq_ignore_ascii_case(b"close");
            state.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    } else if is_name("Expect") {
        if minor == 1 && !field.value.eq_ignore_ascii_case(b"100-continue") {
            return Err(RequestError::new(417, "Expectation failed"));
        }
        state.expects_continue = true;
    } else if is_name("Authorization") {
        if state.credentials.replace(field.value).is_some() {
            return Err(RequestError::bad_request("More than one Authorization"));
        }
    } else if is_name("X-Request-Id") {
        state.id = Some(field.value);
    } else if is_name("X-Forwarded-For") {
        // Each proxy may add a line. Invalid UTF-8 is replaced, because it cannot be an address.
        let value = String::from_utf8_lossy(field.value);
        match &mut state.forwarded {
            Some(list) => list.extend([", ", &value]),
            None => state.forwarded = Some(value.into_owned()),
        }
    } else if let Some((name, value)) = request.known_headers_mut().into_iter().find(|(name, _)| is_name(name)) {
        let text = ascii_str(field.value)?;
        match value {
            Some(list) if COMBINABLE_HEADERS.contains(&name) => list.extend([", ", text]),
            Some(_) => return Err(RequestError::bad_request("Duplicate header field")),
            None => *value = Some(text.to_owned()),
        }
    }
    Ok(())
}

fn parse_content_length(digits: &[u8]) -> Result<u64, RequestError> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(RequestError::bad_request("Content-Length is not a number"));
    }
    // Digits that do not parse are out of range.
    Ok(std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX))
}

/// Returns the request id if it is safe to log.
fn sanitize_request_id(id: &[u8]) -> Option<String> {
    let is_plain =
        (1..=64).contains(&id.len()) && id.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    is_plain.then(|| String::from_utf8_lossy(id).into_owned())
}

/// Returns the digest of a bearer token (RFC 6750, 2.1), or `None` for another scheme.
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
