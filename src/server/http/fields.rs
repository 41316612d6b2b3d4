//! Header fields of a request. A known field is accepted once, or combined if it is a list. Unknown fields are dropped.

use super::request_error::RequestError;
use crate::digest::Digest;
use crate::server::api::Request;

/// Maximum number of fields in a head.
pub(super) const MAX_HEADER_FIELDS: usize = 100;

/// List fields, which may occur in several lines.
const COMBINABLE_HEADERS: [&str; 4] = ["Accept", "If-None-Match", "Content-Digest", "Repr-Digest"];

/// Version of HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HttpVersion {
    Http10,
    Http11,
}

/// Fields that are not passed on with the request. Some can be checked only when all of them are known.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) hosts: usize,
    /// Value of `Content-Length`.
    pub(super) length: Option<&'a [u8]>,
    /// Number of transfer codings, each of them `chunked`.
    pub(super) codings: usize,
    id: Option<&'a [u8]>,
    pub(super) forwarded: Option<String>,
    credentials: Option<&'a [u8]>,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
}

impl<'a> Fields<'a> {
    /// Parses `bytes`, which are the field lines of a head and the empty line at the end. The fields that the API knows
    /// are added to `request`.
    pub(super) fn parse(bytes: &'a [u8], version: HttpVersion, request: &mut Request) -> Result<Self, RequestError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADER_FIELDS];
        let mut fields = Self::default();
        for field in parse_field_lines(bytes, &mut headers)? {
            fields.add(field, version, request)?;
        }
        Ok(fields)
    }

    /// Returns the digest of the bearer token.
    pub(super) fn token(&self) -> Option<Digest> {
        self.credentials.and_then(bearer_digest)
    }

    /// Returns the client's request id if it is safe to log.
    pub(super) fn request_id(&self) -> Option<String> {
        self.id.and_then(sanitize_request_id)
    }

    fn add(
        &mut self,
        field: &httparse::Header<'a>,
        version: HttpVersion,
        request: &mut Request,
    ) -> Result<(), RequestError> {
        let is_name = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is_name("Host") {
            self.hosts += 1;
            if !field.value.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(&byte)) {
                return Err(RequestError::bad_request("Invalid Host"));
            }
        } else if is_name("Content-Length") {
            if self.length.replace(field.value).is_some() {
                return Err(RequestError::bad_request("More than one Content-Length"));
            }
        } else if is_name("Transfer-Encoding") {
            if self.codings > 0 || field.value != b"chunked" {
                return Err(RequestError::bad_request("Transfer-Encoding other than chunked"));
            }
            self.codings += 1;
        } else if is_name("Connection") {
            for option in field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if is_name("Expect") {
            if version == HttpVersion::Http11 && !field.value.eq_ignore_ascii_case(b"100-continue") {
                return Err(RequestError::new(417, "Expectation failed"));
            }
            self.expects_continue = true;
        } else if is_name("Authorization") {
            if self.credentials.replace(field.value).is_some() {
                return Err(RequestError::bad_request("More than one Authorization"));
            }
        } else if is_name("X-Request-Id") {
            self.id = Some(field.value);
        } else if is_name("X-Forwarded-For") {
            // Each proxy may add a line. Invalid UTF-8 is replaced, because it cannot be an address.
            let value = String::from_utf8_lossy(field.value);
            match &mut self.forwarded {
                Some(list) => list.extend([", ", &value]),
                None => self.forwarded = Some(value.into_owned()),
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
}

/// Parses the field lines of a head or of trailers. `bytes` end with the empty line.
pub(super) fn parse_field_lines<'a, 'b>(
    bytes: &'b [u8],
    headers: &'a mut [httparse::Header<'b>],
) -> Result<&'a [httparse::Header<'b>], RequestError> {
    match httparse::parse_headers(bytes, headers) {
        Ok(httparse::Status::Complete((_, fields))) => Ok(fields),
        Err(httparse::Error::TooManyHeaders) => Err(RequestError::new(431, "Too many header fields")),
        Ok(httparse::Status::Partial) | Err(_) => Err(RequestError::bad_request("Invalid header field")),
    }
}

/// Parses the value of `Content-Length`.
pub(super) fn parse_content_length(digits: &[u8]) -> Result<u64, RequestError> {
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
