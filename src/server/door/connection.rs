//! One connection: its requests, one after the other, each within its time. After a request that was not understood
//! nothing more is read as one.

use std::io::{self, ErrorKind};
use std::time::Instant;

use super::body::Body;
use super::pace::{Pace, after};
use super::reply::Writer;
use super::request::{Framing, Head, Refusal, Scan};
use super::roster::Guest;
use super::stream::Stream;
use crate::server::Limits;
use crate::server::api::{Method, Reply, Request};
use crate::server::budget::Reservation;
use crate::server::log::Peer;
use crate::server::service::{Answer, Service, Side, Trace, busy};

/// How finely the memory for a body is accounted for.
const GRAIN: u64 = 64 << 10;

/// A client at the door.
pub(super) struct Connection<'a> {
    stream: Stream,
    inbox: Vec<u8>,
    writer: Writer,
    guest: &'a Guest,
    limits: &'a Limits,
    service: &'a Service,
    side: Side,
}

/// How a connection ends.
enum End {
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
        _held: Reservation,
    },
    /// `keep`: the body, if there is one, does not stand in the way of another request.
    Refused {
        reply: Reply,
        method: Method,
        keep: bool,
    },
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

impl<'a> Connection<'a> {
    pub(super) fn new(stream: Stream, guest: &'a Guest, limits: &'a Limits, service: &'a Service, side: Side) -> Self {
        Self { stream, inbox: Vec::new(), writer: Writer::default(), guest, limits, service, side }
    }

    /// Serves until either side has enough.
    pub(super) fn serve(mut self) {
        if self.stream.shake_hands(after(Instant::now(), self.limits.handshake)).is_err() {
            return;
        }
        match self.requests() {
            End::Silent => self.stream.leave(),
            End::Said => self.stream.part(),
        }
    }

    fn requests(&mut self) -> End {
        for left in (0..self.limits.requests).rev() {
            match self.request(left > 0) {
                Ok(true) => {}
                Ok(false) => return End::Said,
                Err(end) => return end,
            }
        }
        End::Said
    }

    /// Serves one request and tells whether there may be another.
    fn request(&mut self, may_keep: bool) -> Result<bool, End> {
        self.wait()?;
        let mut trace = Trace::new(self.service, self.guest.peer().map_or(Peer::Local, Peer::Address));
        let (answer, method, keep) = match self.receive(&mut trace)? {
            Received::Request { request, keep_alive, _held } => {
                let method = request.method;
                (self.service.answer(request), method, keep_alive)
            }
            Received::Refused { reply, method, keep } => (reply.into(), method, keep),
        };
        let keep = keep && may_keep && !self.guest.is_last_call();
        let sent = self.reply(&answer, method, keep, &trace.id);
        let bytes = if method == Method::Head { 0 } else { answer.reply.body.len() as u64 };
        self.service.observe(&trace, answer.reply.status, bytes);
        sent?;
        Ok(keep)
    }

    /// Waits for the first byte of a request.
    fn wait(&mut self) -> Result<(), End> {
        if self.inbox.is_empty() {
            if !self.guest.rests() {
                return Err(End::Silent);
            }
            self.more(after(Instant::now(), self.limits.idle))?;
        }
        self.guest.works();
        Ok(())
    }

    fn receive(&mut self, trace: &mut Trace) -> Result<Received, End> {
        let mut head = match self.head() {
            Ok(Ok(head)) => head,
            Ok(Err(refusal)) => return Ok(Received::refused(refusal.into(), Method::Other)),
            Err(error) => return timed_out(error, "Request head took too long"),
        };
        let method = head.request.method;
        trace.asks(&head.request, head.id.take());
        if let (Some(peer), Some(forwarded)) = (self.guest.peer(), &head.forwarded) {
            trace.peer = Peer::Address(self.limits.trusted_proxies.client(peer, forwarded));
        }
        match self.service.decide(&head.request, head.token, self.side) {
            Ok(user) => trace.user = user,
            Err(reply) => {
                let keep = head.keep_alive && head.framing == Framing::Length(0);
                return Ok(Received::Refused { reply, method, keep });
            }
        }
        let refused = |reply| Ok(Received::refused(reply, method));
        let mut body = match Body::new(head.framing, self.limits.body) {
            Ok(body) => body,
            Err(refusal) => return refused(refusal.into()),
        };
        if head.expects_continue && !body.is_whole() && self.inbox.is_empty() {
            let length = match head.framing {
                Framing::Length(length) => Some(length),
                Framing::Chunked => None,
            };
            if let Some(reply) = self.service.settle(&head.request, length) {
                return refused(reply);
            }
            self.stream.write(b"HTTP/1.1 100 Continue\r\n\r\n", b"", self.write_pace())?;
        }
        self.body(head, &mut body)
    }

    /// Reads a head off the stream, within its time.
    fn head(&mut self) -> io::Result<Result<Head, Refusal>> {
        let deadline = after(Instant::now(), self.limits.head);
        let mut scan = Scan::default();
        loop {
            match scan.head(&self.inbox) {
                Ok(Some((head, end))) => {
                    self.inbox.drain(..end);
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
        let refused = |reply| Ok(Received::refused(reply, request.method));
        let mut memory = self.service.budget().nothing();
        let mut accounted = 0;
        if let Framing::Length(length) = head.framing {
            request.body.reserve_exact(usize::try_from(length.min(GRAIN)).unwrap_or_default());
        }
        let mut pace = Pace::new(self.limits.body_time, self.limits.min_rate);
        loop {
            let expected = body.received() + self.inbox.len() as u64;
            if expected > accounted {
                let more = (expected - accounted).next_multiple_of(GRAIN);
                if !memory.grow(more) {
                    return refused(busy());
                }
                accounted += more;
            }
            match body.push(&self.inbox, &mut request.body) {
                Ok(count) => drop(self.inbox.drain(..count)),
                Err(refusal) => return refused(refusal.into()),
            }
            if body.is_whole() {
                return Ok(Received::Request { request, keep_alive: head.keep_alive, _held: memory });
            }
            if let Err(error) = self.more(pace.deadline()) {
                return timed_out(error, "Request body took too long");
            }
            pace.moved(self.inbox.len());
        }
    }

    fn reply(&mut self, answer: &Answer, method: Method, keep: bool, id: &str) -> io::Result<()> {
        let pace = self.write_pace();
        let (head, body) = self.writer.bytes(&answer.reply, method != Method::Head, keep, id);
        self.stream.write(head, body, pace)
    }

    /// Reads on; an error if nothing more comes.
    fn more(&mut self, deadline: Instant) -> io::Result<()> {
        match self.stream.read(&mut self.inbox, deadline)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn write_pace(&self) -> Pace {
        Pace::new(self.limits.write, self.limits.min_rate)
    }
}

/// Who is too slow is told so; who went away is not.
fn timed_out(error: io::Error, message: &'static str) -> Result<Received, End> {
    match error.kind() {
        ErrorKind::TimedOut => Ok(Received::refused(Reply::error(408, message), Method::Other)),
        _ => Err(error.into()),
    }
}
