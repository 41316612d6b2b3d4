//! What goes over a connection to the engine: requests written anew, replies read whole.
//! The other end is our own, so what does not parse breaks the connection and is nobody's fault but ours.

use std::io::{self, Read};
use std::mem;

use super::{Reply, Request};
use crate::server::budget::{Budget, Reservation};

/// The most fields of a reply.
const MAX_FIELDS: usize = 32;
/// Read at a time while the head is not whole.
const STEP: usize = 8 << 10;

/// The head of `request`, with its exact length.
pub(super) fn head(request: &mut Request) -> Vec<u8> {
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
    for (name, value) in request.fields_mut() {
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
pub(super) struct Incoming<'a> {
    bodyless: bool,
    budget: &'a Budget,
    state: State,
}

/// How far a reply has come.
pub(super) enum Progress {
    More,
    Whole((Reply, Reservation)),
    /// All of it was read and thrown away.
    NoMemory,
}

enum State {
    Head(Vec<u8>),
    Body(Reply, Reservation),
    Discard(usize),
}

impl<'a> Incoming<'a> {
    /// `to_head`: the reply is one to HEAD.
    pub(super) fn new(to_head: bool, budget: &'a Budget) -> Self {
        Self { bodyless: to_head, budget, state: State::Head(Vec::new()) }
    }

    /// Reads once and says what that gave.
    pub(super) fn read_from(&mut self, mut line: impl Read) -> io::Result<Progress> {
        match &mut self.state {
            State::Head(bytes) => {
                let mut step = [0; STEP];
                let count = some(line.read(&mut step)?)?;
                bytes.extend_from_slice(&step[..count]);
                self.take_head()
            }
            State::Body(reply, _) => {
                let left = reply.length - reply.body.len();
                // What came before an error is kept in the body, so the next call goes on from there.
                if line.take(left as u64).read_to_end(&mut reply.body)? < left {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(self.done())
            }
            State::Discard(left) => {
                let mut step = [0; STEP];
                let want = STEP.min(*left);
                *left -= some(line.read(&mut step[..want])?)?;
                Ok(self.done())
            }
        }
    }

    fn take_head(&mut self) -> io::Result<Progress> {
        let State::Head(bytes) = &mut self.state else { return Ok(Progress::More) };
        let Some((mut reply, end)) = parse(bytes)? else { return Ok(Progress::More) };
        let rest = &bytes[end..];
        let expected = if self.bodyless || reply.status == 304 { 0 } else { reply.length };
        if rest.len() > expected {
            return Err(broken("more than one reply"));
        }
        let mut reservation = self.budget.nothing();
        if !reservation.grow(expected as u64) {
            self.state = State::Discard(expected - rest.len());
            return Ok(self.done());
        }
        reply.body.reserve_exact(expected);
        reply.body.extend_from_slice(rest);
        if expected == 0 {
            self.bodyless = true;
        }
        self.state = State::Body(reply, reservation);
        Ok(self.done())
    }

    fn done(&mut self) -> Progress {
        match &mut self.state {
            State::Body(reply, reservation) if self.bodyless || reply.body.len() == reply.length => {
                let reply = mem::replace(reply, Reply::empty(0));
                Progress::Whole((reply, mem::replace(reservation, self.budget.nothing())))
            }
            State::Discard(0) => Progress::NoMemory,
            _ => Progress::More,
        }
    }
}

fn parse(bytes: &[u8]) -> io::Result<Option<(Reply, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(end) = parsed.parse(bytes).map_err(|_| broken("no reply"))? else {
        return Ok(None);
    };
    let mut reply = Reply::empty(parsed.code.ok_or_else(|| broken("no status"))?);
    for field in parsed.headers.iter() {
        let value = std::str::from_utf8(field.value).map_err(|_| broken("a field that is no text"))?;
        match field.name {
            // These are the door's to say.
            "Server" | "Date" | "Connection" => {}
            "Content-Length" => reply.length = value.parse().map_err(|_| broken("no length"))?,
            "Transfer-Encoding" => return Err(broken("a reply in chunks")),
            name => reply = reply.with(name, value),
        }
    }
    Ok(Some((reply, end)))
}

fn some(count: usize) -> io::Result<usize> {
    if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
}

fn broken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
