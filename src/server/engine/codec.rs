//! HTTP/1.1 codec of the connections to the engine. Requests are encoded from their parsed form; responses are read
//! completely. The peer is part of this program, so a malformed response is a bug and fails the connection.

use std::io::{self, Read};
use std::mem;

use super::{Request, Response};
use crate::server::budget::{Budget, Reservation};

/// Maximum number of header fields of a response.
const MAX_RESPONSE_HEADERS: usize = 32;
/// Bytes per read while a head is incomplete or a body is discarded.
const RESPONSE_READ_CHUNK: usize = 8 << 10;

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

/// Incremental reader of one response.
pub(super) struct ResponseReader<'a> {
    bodyless: bool,
    budget: &'a Budget,
    state: State,
}

/// State of a response after a read.
pub(super) enum Progress {
    Pending,
    Complete((Response, Reservation)),
    /// The body exceeds the budget. It was read and discarded, so that the connection can be used again.
    OverBudget,
}

enum State {
    Head(Vec<u8>),
    Body(Response, Reservation),
    /// Number of bytes still to be discarded.
    Discard(usize),
}

impl<'a> ResponseReader<'a> {
    /// Creates a reader. `is_head`: the request method is HEAD, so the response has no body.
    pub(super) fn new(is_head: bool, budget: &'a Budget) -> Self {
        Self { bodyless: is_head, budget, state: State::Head(Vec::new()) }
    }

    /// Reads once from `stream`. After `WouldBlock` or `Interrupted`, the caller tries again.
    pub(super) fn read_from(&mut self, mut stream: impl Read) -> io::Result<Progress> {
        match &mut self.state {
            State::Head(bytes) => {
                let mut chunk = [0; RESPONSE_READ_CHUNK];
                let count = nonzero_or_eof(stream.read(&mut chunk)?)?;
                bytes.extend_from_slice(&chunk[..count]);
                self.parse_head()
            }
            State::Body(response, _) => {
                let missing = response.content_length - response.body.len();
                // Bytes read before an error stay in the body, so the next call continues from there.
                if stream.take(missing as u64).read_to_end(&mut response.body)? < missing {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(self.progress())
            }
            State::Discard(remaining) => {
                let mut chunk = [0; RESPONSE_READ_CHUNK];
                let length = RESPONSE_READ_CHUNK.min(*remaining);
                *remaining -= nonzero_or_eof(stream.read(&mut chunk[..length])?)?;
                Ok(self.progress())
            }
        }
    }

    fn parse_head(&mut self) -> io::Result<Progress> {
        let State::Head(bytes) = &mut self.state else { return Ok(Progress::Pending) };
        let Some((mut response, end)) = parse_response_head(bytes)? else { return Ok(Progress::Pending) };
        let body_start = &bytes[end..];
        let expected = if self.bodyless || response.status == 304 { 0 } else { response.content_length };
        if body_start.len() > expected {
            return Err(protocol_error("data after the response"));
        }
        let mut reservation = self.budget.reserve();
        if !reservation.try_grow(expected as u64) {
            self.state = State::Discard(expected - body_start.len());
            return Ok(self.progress());
        }
        response.body.reserve_exact(expected);
        response.body.extend_from_slice(body_start);
        if expected == 0 {
            self.bodyless = true;
        }
        self.state = State::Body(response, reservation);
        Ok(self.progress())
    }

    fn progress(&mut self) -> Progress {
        match &mut self.state {
            State::Body(response, reservation) if self.bodyless || response.body.len() == response.content_length => {
                let response = mem::replace(response, Response::empty(0));
                Progress::Complete((response, mem::replace(reservation, self.budget.reserve())))
            }
            State::Discard(0) => Progress::OverBudget,
            _ => Progress::Pending,
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

fn nonzero_or_eof(count: usize) -> io::Result<usize> {
    if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
}

fn protocol_error(cause: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}
