//! HTTP/1.1 codec of the connections to the engine. Requests are encoded from their parsed form; responses are read
//! completely. The peer is part of this program, so a malformed response is a bug and fails the connection.

use std::io::{self, Read};

use crate::server::api::{Method, Request, Response};
use crate::server::budget::{Budget, Reservation};

/// Maximum number of header fields of a response.
const MAX_RESPONSE_HEADERS: usize = 32;
/// Bytes per read while a head is incomplete.
const READ_CHUNK: usize = 8 << 10;

/// Encodes the head of `request`, including the exact length of its body.
pub(super) fn encode_head(request: &mut Request) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + request.path.len());
    let mut add = |part: &str| out.extend_from_slice(part.as_bytes());
    add(request.method.as_str());
    add(" ");
    add(&request.path);
    if let Some(query) = &request.query {
        add("?");
        add(query);
    }
    add(" HTTP/1.1\r\n");
    for (name, value) in request.known_headers_mut() {
        if let Some(value) = value {
            add(name);
            add(": ");
            add(value);
            add("\r\n");
        }
    }
    add("Content-Length: ");
    add(&request.body.len().to_string());
    add("\r\n\r\n");
    out
}

/// Reads the response to a request with `method`, and reserves memory for its body. Blocks until it is complete.
///
/// Returns `None` if the body exceeds `budget`. It is then read and discarded, so that the connection can be used again.
pub(super) fn read_response(
    mut stream: impl Read,
    method: Method,
    budget: &Budget,
) -> io::Result<Option<(Response, Reservation)>> {
    let (mut response, rest) = read_response_head(&mut stream)?;
    let has_body = method != Method::Head && !matches!(response.status, 204 | 304);
    let length = if has_body { response.content_length } else { 0 };
    let missing = length.checked_sub(rest.len()).ok_or_else(|| protocol_error("data after the response"))?;
    let mut body = stream.take(missing as u64);
    let mut reservation = budget.reserve();
    if !reservation.try_grow(length as u64) {
        return match io::copy(&mut body, &mut io::sink())? {
            count if count == missing as u64 => Ok(None),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        };
    }
    response.body.reserve_exact(length);
    response.body.extend_from_slice(&rest);
    if missing > 0 && body.read_to_end(&mut response.body)? < missing {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((response, reservation)))
}

/// Reads the head of a response. Returns also the bytes that were received after it.
fn read_response_head(stream: &mut impl Read) -> io::Result<(Response, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; READ_CHUNK];
        match stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if let Some((response, end)) = parse_response_head(&bytes)? {
            bytes.drain(..end);
            return Ok((response, bytes));
        }
    }
}

/// Returns the response and the length of its head, or `None` if the head is incomplete.
fn parse_response_head(bytes: &[u8]) -> io::Result<Option<(Response, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_RESPONSE_HEADERS];
    let mut parsed = httparse::Response::new(&mut fields);
    let status = parsed.parse(bytes).map_err(|_| protocol_error("malformed response head"))?;
    let httparse::Status::Complete(end) = status else { return Ok(None) };
    let mut response = Response::empty(parsed.code.ok_or_else(|| protocol_error("missing status code"))?);
    for field in parsed.headers.iter() {
        let value = std::str::from_utf8(field.value).map_err(|_| protocol_error("header value is not UTF-8"))?;
        match field.name {
            // The front end writes these headers itself.
            "Server" | "Date" | "Connection" => {}
            "Content-Length" => {
                response.content_length = value.parse().map_err(|_| protocol_error("invalid Content-Length"))?;
            }
            "Transfer-Encoding" => return Err(protocol_error("unexpected Transfer-Encoding")),
            name => response = response.with_header(name, value),
        }
    }
    Ok(Some((response, end)))
}

fn protocol_error(cause: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}
