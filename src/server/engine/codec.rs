//! What goes over a connection to the engine: requests written anew, replies read whole.
//! The other end is our own, so what does not parse breaks the connection and is nobody's fault but ours.

use std::io::{self, Read};
use std::mem;

use super::{Request, Response};
use crate::server::budget::{Budget, Reservation};

/// The most fields of a reply.
const MAX_RESPONSE_HEADERS: usize = 32;
/// Read at a time while the head is not whole.
const RESPONSE_READ_CHUNK: usize = 8 << 10;

/// The head of `request`, with its exact length.
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

/// A reply on its way in.
pub(super) struct ResponseReader<'a> {
    bodyless: bool,
    budget: &'a Budget,
    state: State,
}

/// How far a reply has come.
pub(super) enum Progress {
    Pending,
    Complete((Response, Reservation)),
    /// All of it was read and thrown away.
    OverBudget,
}

enum State {
    Head(Vec<u8>),
    Body(Response, Reservation),
    Discard(usize),
}

impl<'a> ResponseReader<'a> {
    /// `to_head`: the reply is one to HEAD.
    pub(super) fn new(to_head: bool, budget: &'a Budget) -> Self {
        Self { bodyless: to_head, budget, state: State::Head(Vec::new()) }
    }

    /// Reads once and says what that gave.
    pub(super) fn read_from(&mut self, mut line: impl Read) -> io::Result<Progress> {
        match &mut self.state {
            State::Head(bytes) => {
                let mut step = [0; RESPONSE_READ_CHUNK];
                let count = nonzero_or_eof(line.read(&mut step)?)?;
                bytes.extend_from_slice(&step[..count]);
                self.parse_head()
            }
            State::Body(reply, _) => {
                let left = reply.content_length - reply.body.len();
                // What came before an error is kept in the body, so the next call goes on from there.
                if line.take(left as u64).read_to_end(&mut reply.body)? < left {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(self.progress())
            }
            State::Discard(left) => {
                let mut step = [0; RESPONSE_READ_CHUNK];
                let want = RESPONSE_READ_CHUNK.min(*left);
                *left -= nonzero_or_eof(line.read(&mut step[..want])?)?;
                Ok(self.progress())
            }
        }
    }

    fn parse_head(&mut self) -> io::Result<Progress> {
        let State::Head(bytes) = &mut self.state else { return Ok(Progress::Pending) };
        let Some((mut reply, end)) = parse_response_head(bytes)? else { return Ok(Progress::Pending) };
        let rest = &bytes[end..];
        let expected = if self.bodyless || reply.status == 304 { 0 } else { reply.content_length };
        if rest.len() > expected {
            return Err(protocol_error("more than one reply"));
        }
        let mut reservation = self.budget.reserve();
        if !reservation.try_grow(expected as u64) {
            self.state = State::Discard(expected - rest.len());
            return Ok(self.progress());
        }
        reply.body.reserve_exact(expected);
        reply.body.extend_from_slice(rest);
        if expected == 0 {
            self.bodyless = true;
        }
        self.state = State::Body(reply, reservation);
        Ok(self.progress())
    }

    fn progress(&mut self) -> Progress {
        match &mut self.state {
            State::Body(reply, reservation) if self.bodyless || reply.body.len() == reply.content_length => {
                let reply = mem::replace(reply, Response::empty(0));
                Progress::Complete((reply, mem::replace(reservation, self.budget.reserve())))
            }
            State::Discard(0) => Progress::OverBudget,
            _ => Progress::Pending,
        }
    }
}

fn parse_response_head(bytes: &[u8]) -> io::Result<Option<(Response, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_RESPONSE_HEADERS];
    let mut parsed = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(end) = parsed.parse(bytes).map_err(|_| protocol_error("no reply"))? else {
        return Ok(None);
    };
    let mut reply = Response::empty(parsed.code.ok_or_else(|| protocol_error("no status"))?);
    for field in parsed.headers.iter() {
        let value = std::str::from_utf8(field.value).map_err(|_| protocol_error("a field that is no text"))?;
        match field.name {
            // These are the door's to say.
            "Server" | "Date" | "Connection" => {}
            "Content-Length" => reply.content_length = value.parse().map_err(|_| protocol_error("no length"))?,
            "Transfer-Encoding" => return Err(protocol_error("a reply in chunks")),
            name => reply = reply.with_header(name, value),
        }
    }
    Ok(Some((reply, end)))
}

fn nonzero_or_eof(count: usize) -> io::Result<usize> {
    if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
}

fn protocol_error(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
