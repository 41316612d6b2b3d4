//! A client that is served: its requests, one after the other, each within its time, until it rests. After a request
//! that was not understood nothing more is read as one.

use std::io::{self, ErrorKind};
use std::time::Instant;

use super::body::Body;
use super::client::{Asked, Client, Desk, Joint, Left, Put};
use super::house::{Duty, House};
use super::pace::{Pace, after};
use super::request::{Framing, Head, Refusal, Scan};
use crate::server::api::{Method, Reply, Request};
use crate::server::budget::Reservation;
use crate::server::log::Peer;
use crate::server::service::{Answer, Trace, busy};

/// How finely the memory for a body is accounted for.
const GRAIN: u64 = 64 << 10;
/// The longest body, in bytes, that a thread on duty sends: others want to be served as well.
const LONG: usize = 256 << 10;

/// A client that is served.
pub(super) struct Connection<'a> {
    pub(super) client: Box<Client>,
    pub(super) desk: &'a mut Desk,
    pub(super) house: &'a House,
}

/// How a connection ends.
pub(super) enum End {
    /// The client went away, or was silent for too long: nobody reads what would be said.
    Silent,
    /// Something was said last; the client may still be sending.
    Said,
}

/// What came of reading a request.
enum Received {
    Request {
        request: Request,
        keep_alive: bool,
        held: Option<Reservation>,
    },
    /// `keep`: the body, if there is one, does not stand in the way of another request.
    Refused {
        reply: Reply,
        method: Method,
        keep: bool,
    },
}

/// What a client does next.
pub(super) enum Next {
    Rest,
    Join(Box<Put>, Vec<u8>),
}

impl Received {
    const fn refused(reply: Reply, method: Method) -> Self {
        Self::Refused { reply, method, keep: false }
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Silent
    }
}

impl Connection<'_> {
    /// How the client is left, and the duty if nothing had to be waited for.
    pub(super) fn leave(mut self, next: Result<Next, End>) -> (Left, Option<Duty>) {
        match next {
            Err(End::Silent) => self.client.stream.leave(),
            Err(End::Said) => self.client.stream.part(),
            Ok(_) => {}
        }
        let duty = self.client.stream.take_duty();
        let left = match next {
            Ok(Next::Rest) => Left::Resting(self.client),
            Ok(Next::Join(put, line)) => {
                Left::Joining(Joint { client: self.client, put, inbox: self.desk.put_away() }, line)
            }
            Err(_) => Left::Over,
        };
        (left, duty)
    }

    /// Serves one request and all that follow without a rest.
    pub(super) fn requests(&mut self) -> Result<Next, End> {
        match self.request()? {
            None => self.more_requests(),
            Some(join) => Ok(join),
        }
    }

    /// Serves what has come already.
    pub(super) fn more_requests(&mut self) -> Result<Next, End> {
        loop {
            if self.desk.inbox.is_empty() {
                if !self.client.guest.rests() {
                    return Err(End::Silent);
                }
                if !self.client.stream.has_more() {
                    return Ok(Next::Rest);
                }
            }
            if let Some(join) = self.request()? {
                return Ok(join);
            }
        }
    }

    /// Reads one request. It is served, and there may be another; or it goes together with others.
    fn request(&mut self) -> Result<Option<Next>, End> {
        if self.desk.inbox.is_empty() {
            self.more(after(Instant::now(), self.house.limits.idle))?;
        }
        self.client.guest.works();
        self.client.left = self.client.left.saturating_sub(1);
        let service = &self.house.service;
        let mut trace = Trace::new(service, self.client.guest.peer().map_or(Peer::Local, Peer::Address));
        let (answer, asked) = match self.receive(&mut trace)? {
            Received::Refused { reply, method, keep } => {
                (reply.into(), Asked { trace, method, keep_alive: keep, _held: None })
            }
            Received::Request { request, keep_alive, held } => {
                let asked = Asked { trace, method: request.method, keep_alive, _held: held };
                if let Some(answer) = service.at_hand(&request) {
                    (answer, asked)
                } else if let Some(line) = service.line(&request) {
                    return Ok(Some(Next::Join(Box::new(Put { request, asked }), line)));
                } else {
                    (self.answer(request), asked)
                }
            }
        };
        self.conclude(&answer, &asked).map(|()| None)
    }

    /// The service's answer, which has to be waited for.
    pub(super) fn answer(&mut self, request: Request) -> Answer {
        self.client.stream.may_wait();
        self.house.service.answer(request)
    }

    /// Sends the reply, after which there may be another request.
    pub(super) fn conclude(&mut self, answer: &Answer, asked: &Asked) -> Result<(), End> {
        let Asked { trace, method, .. } = asked;
        let keep = asked.keep_alive && self.client.left > 0 && !self.client.guest.is_last_call();
        let sent = self.reply(answer, *method, keep, &trace.id);
        let bytes = if *method == Method::Head { 0 } else { answer.reply.body.len() as u64 };
        self.house.service.observe(trace, answer.reply.status, bytes, || self.client.stream.may_wait());
        sent?;
        if keep { Ok(()) } else { Err(End::Said) }
    }

    fn receive(&mut self, trace: &mut Trace) -> Result<Received, End> {
        let mut head = match self.head() {
            Ok(Ok(head)) => head,
            Ok(Err(refusal)) => return Ok(Received::refused(refusal.into(), Method::Other)),
            Err(error) => return timed_out(error, "Request head took too long"),
        };
        let method = head.request.method;
        trace.asks(&head.request, head.id.take());
        if let (Some(peer), Some(forwarded)) = (self.client.guest.peer(), &head.forwarded) {
            trace.peer = Peer::Address(self.house.limits.trusted_proxies.client(peer, forwarded));
        }
        match self.house.service.decide(&head.request, head.token, self.house.side) {
            Ok(user) => trace.user = user,
            Err(reply) => {
                let keep = head.keep_alive && head.framing == Framing::Length(0);
                return Ok(Received::Refused { reply, method, keep });
            }
        }
        let refused = |reply| Ok(Received::refused(reply, method));
        let mut body = match Body::new(head.framing, self.house.limits.body) {
            Ok(body) => body,
            Err(refusal) => return refused(refusal.into()),
        };
        if head.expects_continue && !body.is_whole() && self.desk.inbox.is_empty() {
            let length = match head.framing {
                Framing::Length(length) => Some(length),
                Framing::Chunked => None,
            };
            self.client.stream.may_wait();
            if let Some(reply) = self.house.service.settle(&head.request, length) {
                return refused(reply);
            }
            self.client.stream.write(b"HTTP/1.1 100 Continue\r\n\r\n", b"", self.write_pace())?;
        }
        self.body(head, &mut body)
    }

    /// Reads a head off the stream, within its time.
    fn head(&mut self) -> io::Result<Result<Head, Refusal>> {
        let deadline = after(Instant::now(), self.house.limits.head);
        let mut scan = Scan::default();
        loop {
            match scan.head(&self.desk.inbox) {
                Ok(Some((head, end))) => {
                    self.desk.inbox.drain(..end);
                    return Ok(Ok(head));
                }
                Ok(None) => {}
                Err(refusal) => return Ok(Err(refusal)),
            }
            self.more(deadline)?;
        }
    }

    /// Reads a body off the stream, within its time and the memory that there is.
    fn body(&mut self, head: Head, body: &mut Body) -> Result<Received, End> {
        let mut request = head.request;
        if body.is_whole() {
            return Ok(Received::Request { request, keep_alive: head.keep_alive, held: None });
        }
        let refused = |reply| Ok(Received::refused(reply, request.method));
        let mut memory = self.house.service.budget().nothing();
        let mut accounted = 0;
        if let Framing::Length(length) = head.framing {
            request.body.reserve_exact(usize::try_from(length.min(GRAIN)).unwrap_or_default());
        }
        let mut pace = Pace::new(self.house.limits.body_time, self.house.limits.min_rate);
        loop {
            let expected = body.received() + self.desk.inbox.len() as u64;
            if expected > accounted {
                let more = (expected - accounted).next_multiple_of(GRAIN);
                if !memory.grow(more) {
                    return refused(busy());
                }
                accounted += more;
            }
            match body.push(&self.desk.inbox, &mut request.body) {
                Ok(count) => drop(self.desk.inbox.drain(..count)),
                Err(refusal) => return refused(refusal.into()),
            }
            if body.is_whole() {
                return Ok(Received::Request { request, keep_alive: head.keep_alive, held: Some(memory) });
            }
            if let Err(error) = self.more(pace.deadline()) {
                return timed_out(error, "Request body took too long");
            }
            pace.moved(self.desk.inbox.len());
        }
    }

    fn reply(&mut self, answer: &Answer, method: Method, keep: bool, id: &str) -> io::Result<()> {
        if answer.reply.body.len() > LONG {
            self.client.stream.may_wait();
        }
        let pace = self.write_pace();
        let (head, body) = self.desk.writer.bytes(&answer.reply, method != Method::Head, keep, id);
        self.client.stream.write(head, body, pace)
    }

    /// Reads on; an error if nothing more comes.
    fn more(&mut self, deadline: Instant) -> io::Result<()> {
        match self.client.stream.read(&mut self.desk.inbox, deadline)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn write_pace(&self) -> Pace {
        Pace::new(self.house.limits.write, self.house.limits.min_rate)
    }
}

/// Who is too slow is told so; who went away is not.
fn timed_out(error: io::Error, message: &'static str) -> Result<Received, End> {
    match error.kind() {
        ErrorKind::TimedOut => Ok(Received::refused(Reply::error(408, message), Method::Other)),
        _ => Err(error.into()),
    }
}
