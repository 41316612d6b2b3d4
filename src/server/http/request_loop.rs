//! A client that is served: its requests, one after the other, each within its time, until it rests. After a request
//! that was not understood nothing more is read as one.

use std::io::{self, ErrorKind};
use std::time::Instant;

use super::body::BodyDecoder;
use super::connection::{Connection, Outcome, ParsedPut, PendingPut, RequestContext, WorkerBuffers};
use super::deadline::{RateDeadline, deadline_after};
use super::reactor::{LeaderToken, Reactor};
use super::request::{Framing, Head, HeadParser, RequestError};
use crate::server::access_log::Peer;
use crate::server::api::{Method, Request, Response};
use crate::server::app::{OutgoingResponse, RequestLog, service_unavailable};
use crate::server::budget::Reservation;

/// How finely the memory for a body is accounted for.
const RESERVATION_STEP: u64 = 64 << 10;
/// The longest body, in bytes, that a thread on duty sends: others want to be served as well.
const MAX_LEADER_BODY: usize = 256 << 10;

/// A client that is served.
pub(super) struct RequestLoop<'a> {
    pub(super) connection: Box<Connection>,
    pub(super) buffers: &'a mut WorkerBuffers,
    pub(super) reactor: &'a Reactor,
}

/// How a connection ends.
pub(super) enum Close {
    /// The client went away, or was silent for too long: nobody reads what would be said.
    Abrupt,
    /// Something was said last; the client may still be sending.
    Lingering,
}

/// What came of reading a request.
enum ReadOutcome {
    Request {
        request: Request,
        keep_alive: bool,
        reservation: Option<Reservation>,
    },
    /// `keep`: the body, if there is one, does not stand in the way of another request.
    Refused {
        reply: Response,
        method: Method,
        keep_alive: bool,
    },
}

/// What a client does next.
pub(super) enum Step {
    AwaitNext,
    Coalesce(Box<ParsedPut>, Vec<u8>),
}

impl ReadOutcome {
    const fn refused(reply: Response, method: Method) -> Self {
        Self::Refused { reply, method, keep_alive: false }
    }
}

impl From<io::Error> for Close {
    fn from(_: io::Error) -> Self {
        Self::Abrupt
    }
}

impl RequestLoop<'_> {
    /// How the client is left, and the duty if nothing had to be waited for.
    pub(super) fn into_outcome(mut self, next: Result<Step, Close>) -> (Outcome, Option<LeaderToken>) {
        match next {
            Err(Close::Abrupt) => self.connection.stream.send_close_notify(),
            Err(Close::Lingering) => self.connection.stream.lingering_close(),
            Ok(_) => {}
        }
        let duty = self.connection.stream.take_leader();
        let left = match next {
            Ok(Step::AwaitNext) => Outcome::Idle(self.connection),
            Ok(Step::Coalesce(put, line)) => Outcome::Coalesce(
                PendingPut { connection: self.connection, put, unread: self.buffers.take_unread() },
                line,
            ),
            Err(_) => Outcome::Closed,
        };
        (left, duty)
    }

    /// Serves one request and all that follow without a rest.
    pub(super) fn serve(&mut self) -> Result<Step, Close> {
        match self.serve_one()? {
            None => self.serve_buffered(),
            Some(join) => Ok(join),
        }
    }

    /// Serves what has come already.
    pub(super) fn serve_buffered(&mut self) -> Result<Step, Close> {
        loop {
            if self.buffers.read_buf.is_empty() {
                if !self.connection.permit.mark_idle() {
                    return Err(Close::Abrupt);
                }
                if !self.connection.stream.has_buffered_plaintext() {
                    return Ok(Step::AwaitNext);
                }
            }
            if let Some(join) = self.serve_one()? {
                return Ok(join);
            }
        }
    }

    /// Reads one request. It is served, and there may be another; or it goes together with others.
    fn serve_one(&mut self) -> Result<Option<Step>, Close> {
        if self.buffers.read_buf.is_empty() {
            self.fill_read_buf(deadline_after(Instant::now(), self.reactor.limits.idle_timeout))?;
        }
        self.connection.permit.mark_busy();
        self.connection.requests_remaining = self.connection.requests_remaining.saturating_sub(1);
        let service = &self.reactor.service;
        let mut trace = RequestLog::new(service, self.connection.permit.peer().map_or(Peer::Local, Peer::Address));
        let (answer, asked) = match self.read_request(&mut trace)? {
            ReadOutcome::Refused { reply, method, keep_alive: keep } => {
                (reply.into(), RequestContext { request_log: trace, method, keep_alive: keep, _reservation: None })
            }
            ReadOutcome::Request { request, keep_alive, reservation: held } => {
                let asked =
                    RequestContext { request_log: trace, method: request.method, keep_alive, _reservation: held };
                if let Some(answer) = service.cached_response(&request) {
                    (answer, asked)
                } else if let Some(line) = service.batch_line(&request) {
                    return Ok(Some(Step::Coalesce(Box::new(ParsedPut { request, context: asked }), line)));
                } else {
                    (self.execute(request), asked)
                }
            }
        };
        self.respond_and_log(&answer, &asked).map(|()| None)
    }

    /// The service's answer, which has to be waited for.
    pub(super) fn execute(&mut self, request: Request) -> OutgoingResponse {
        self.connection.stream.release_leadership();
        self.reactor.service.handle(request)
    }

    /// Sends the reply, after which there may be another request.
    pub(super) fn respond_and_log(&mut self, answer: &OutgoingResponse, asked: &RequestContext) -> Result<(), Close> {
        let RequestContext { request_log: trace, method, .. } = asked;
        let keep = asked.keep_alive && self.connection.requests_remaining > 0 && !self.connection.permit.is_draining();
        let sent = self.write_response(answer, *method, keep, &trace.id);
        let bytes = if *method == Method::Head { 0 } else { answer.response.body.len() as u64 };
        self.reactor
            .service
            .record(trace, answer.response.status, bytes, || self.connection.stream.release_leadership());
        sent?;
        if keep { Ok(()) } else { Err(Close::Lingering) }
    }

    fn read_request(&mut self, trace: &mut RequestLog) -> Result<ReadOutcome, Close> {
        let mut head = match self.read_head() {
            Ok(Ok(head)) => head,
            Ok(Err(refusal)) => return Ok(ReadOutcome::refused(refusal.into(), Method::Other)),
            Err(error) => return map_timeout(error, "Request head took too long"),
        };
        let method = head.request.method;
        trace.set_request(&head.request, head.id.take());
        if let (Some(peer), Some(forwarded)) = (self.connection.permit.peer(), &head.forwarded) {
            trace.peer = Peer::Address(self.reactor.limits.trusted_proxies.client_addr(peer, forwarded));
        }
        match self.reactor.service.authorize(&head.request, head.token, self.reactor.side) {
            Ok(user) => trace.user = user,
            Err(reply) => {
                let keep = head.keep_alive && head.framing == Framing::Length(0);
                return Ok(ReadOutcome::Refused { reply, method, keep_alive: keep });
            }
        }
        let refused = |reply| Ok(ReadOutcome::refused(reply, method));
        let mut body = match BodyDecoder::new(head.framing, self.reactor.limits.max_body) {
            Ok(body) => body,
            Err(refusal) => return refused(refusal.into()),
        };
        if head.expects_continue && !body.is_complete() && self.buffers.read_buf.is_empty() {
            let length = match head.framing {
                Framing::Length(length) => Some(length),
                Framing::Chunked => None,
            };
            self.connection.stream.release_leadership();
            if let Some(reply) = self.reactor.service.early_response(&head.request, length) {
                return refused(reply);
            }
            self.connection.stream.write(b"HTTP/1.1 100 Continue\r\n\r\n", b"", self.write_deadline())?;
        }
        self.read_body(head, &mut body)
    }

    /// Reads a head off the stream, within its time.
    fn read_head(&mut self) -> io::Result<Result<Head, RequestError>> {
        let deadline = deadline_after(Instant::now(), self.reactor.limits.head_timeout);
        let mut scan = HeadParser::default();
        loop {
            match scan.parse(&self.buffers.read_buf) {
                Ok(Some((head, end))) => {
                    self.buffers.read_buf.drain(..end);
                    return Ok(Ok(head));
                }
                Ok(None) => {}
                Err(refusal) => return Ok(Err(refusal)),
            }
            self.fill_read_buf(deadline)?;
        }
    }

    /// Reads a body off the stream, within its time and the memory that there is.
    fn read_body(&mut self, head: Head, body: &mut BodyDecoder) -> Result<ReadOutcome, Close> {
        let mut request = head.request;
        if body.is_complete() {
            return Ok(ReadOutcome::Request { request, keep_alive: head.keep_alive, reservation: None });
        }
        let refused = |reply| Ok(ReadOutcome::refused(reply, request.method));
        let mut memory = self.reactor.service.budget().reserve();
        let mut accounted = 0;
        if let Framing::Length(length) = head.framing {
            request.body.reserve_exact(usize::try_from(length.min(RESERVATION_STEP)).unwrap_or_default());
        }
        let mut pace = RateDeadline::new(self.reactor.limits.body_timeout, self.reactor.limits.min_rate);
        loop {
            let expected = body.received() + self.buffers.read_buf.len() as u64;
            if expected > accounted {
                let more = (expected - accounted).next_multiple_of(RESERVATION_STEP);
                if !memory.try_grow(more) {
                    return refused(service_unavailable());
                }
                accounted += more;
            }
            match body.decode(&self.buffers.read_buf, &mut request.body) {
                Ok(count) => drop(self.buffers.read_buf.drain(..count)),
                Err(refusal) => return refused(refusal.into()),
            }
            if body.is_complete() {
                return Ok(ReadOutcome::Request { request, keep_alive: head.keep_alive, reservation: Some(memory) });
            }
            if let Err(error) = self.fill_read_buf(pace.deadline()) {
                return map_timeout(error, "Request body took too long");
            }
            pace.record_progress(self.buffers.read_buf.len());
        }
    }

    fn write_response(&mut self, answer: &OutgoingResponse, method: Method, keep: bool, id: &str) -> io::Result<()> {
        if answer.response.body.len() > MAX_LEADER_BODY {
            self.connection.stream.release_leadership();
        }
        let pace = self.write_deadline();
        let (head, body) = self.buffers.encoder.encode(&answer.response, method != Method::Head, keep, id);
        self.connection.stream.write(head, body, pace)
    }

    /// Reads on; an error if nothing more comes.
    fn fill_read_buf(&mut self, deadline: Instant) -> io::Result<()> {
        match self.connection.stream.read(&mut self.buffers.read_buf, deadline)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn write_deadline(&self) -> RateDeadline {
        RateDeadline::new(self.reactor.limits.write_timeout, self.reactor.limits.min_rate)
    }
}

/// Who is too slow is told so; who went away is not.
fn map_timeout(error: io::Error, message: &'static str) -> Result<ReadOutcome, Close> {
    match error.kind() {
        ErrorKind::TimedOut => Ok(ReadOutcome::refused(Response::error(408, message), Method::Other)),
        _ => Err(error.into()),
    }
}
