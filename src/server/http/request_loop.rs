//! Request loop of one connection: reads, executes and answers requests until the connection is idle. Each step has a
//! deadline. After a malformed request, nothing more is parsed.

use std::io::{self, ErrorKind};
use std::time::Instant;

use super::body::BodyDecoder;
use super::connection::{Connection, Outcome, ParsedPut, PendingPut, RequestContext, WorkerBuffers};
use super::deadline::{RateDeadline, deadline_after};
use super::reactor::{LeaderToken, Reactor};
use super::request::{Framing, Head, HeadParser, RequestError};
use crate::server::access_log::Peer;
use crate::server::api::{Method, Response, service_unavailable};
use crate::server::app::OutgoingResponse;
use crate::server::auth::Authorized;
use crate::server::budget::Reservation;
use crate::server::observability::RequestLog;

/// Granularity of memory reservations for a body, in bytes.
const RESERVATION_STEP: u64 = 64 << 10;
/// Maximum length of a response body that a leader writes, in bytes. A longer one would delay other connections.
const MAX_LEADER_BODY: usize = 256 << 10;

/// A connection while a worker serves it.
pub(super) struct RequestLoop<'a> {
    pub(super) connection: Box<Connection>,
    pub(super) buffers: &'a mut WorkerBuffers,
    pub(super) reactor: &'a Reactor,
}

/// Manner of closing a connection.
pub(super) enum Close {
    /// Nothing more is sent: the client is gone or was silent for too long, or the server is draining.
    Abrupt,
    /// A response was sent, but the client may still be sending.
    Lingering,
}

/// Result of reading a request.
enum ReadOutcome {
    Request {
        request: Authorized,
        keep_alive: bool,
        reservation: Option<Reservation>,
    },
    /// `keep_alive`: another request may follow, because there is no body to skip.
    Rejected {
        response: Response,
        method: Method,
        keep_alive: bool,
    },
}

/// Next step of a connection.
pub(super) enum Step {
    AwaitNext,
    Coalesce(Box<ParsedPut>, Vec<u8>),
}

impl ReadOutcome {
    const fn rejected(response: Response, method: Method) -> Self {
        Self::Rejected { response, method, keep_alive: false }
    }
}

impl From<io::Error> for Close {
    fn from(_: io::Error) -> Self {
        Self::Abrupt
    }
}

impl RequestLoop<'_> {
    /// Closes the connection if serving failed. Returns its state, and the leader token if serving never blocked.
    pub(super) fn into_outcome(mut self, step: Result<Step, Close>) -> (Outcome, Option<LeaderToken>) {
        match step {
            Err(Close::Abrupt) => self.connection.stream.send_close_notify(),
            Err(Close::Lingering) => self.connection.stream.lingering_close(),
            Ok(_) => {}
        }
        let leader = self.connection.stream.take_leader();
        let outcome = match step {
            Ok(Step::AwaitNext) => Outcome::Idle(self.connection),
            Ok(Step::Coalesce(put, line)) => Outcome::Coalesce(
                PendingPut { connection: self.connection, put, unread: self.buffers.take_unread() },
                line,
            ),
            Err(_) => Outcome::Closed,
        };
        (outcome, leader)
    }

    /// Serves one request, then all buffered ones.
    pub(super) fn serve(&mut self) -> Result<Step, Close> {
        match self.serve_one()? {
            None => self.serve_buffered(),
            Some(step) => Ok(step),
        }
    }

    /// Serves all requests whose first bytes are buffered.
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
            if let Some(step) = self.serve_one()? {
                return Ok(step);
            }
        }
    }

    /// Serves one request. Returns [`Step::Coalesce`] without a response if its put joins a batch.
    fn serve_one(&mut self) -> Result<Option<Step>, Close> {
        if self.buffers.read_buf.is_empty() {
            self.fill_read_buf(deadline_after(Instant::now(), self.reactor.limits.idle_timeout))?;
        }
        self.connection.permit.mark_busy();
        self.connection.requests_remaining = self.connection.requests_remaining.saturating_sub(1);
        let app = &self.reactor.app;
        let mut request_log =
            RequestLog::new(&app.observability, self.connection.permit.peer().map_or(Peer::Local, Peer::Address));
        let (response, context) = match self.read_request(&mut request_log)? {
            ReadOutcome::Rejected { response, method, keep_alive } => {
                (response.into(), RequestContext { request_log, method, keep_alive, _reservation: None })
            }
            ReadOutcome::Request { request, keep_alive, reservation } => {
                let context = RequestContext {
                    request_log,
                    method: request.request().method,
                    keep_alive,
                    _reservation: reservation,
                };
                if let Some(response) = app.cached_response(&request) {
                    (response, context)
                } else if let Some(line) = app.batch_line(&request) {
                    return Ok(Some(Step::Coalesce(Box::new(ParsedPut { request, context }), line)));
                } else {
                    (self.execute(request), context)
                }
            }
        };
        self.respond_and_log(&response, &context).map(|()| None)
    }

    /// Executes the request. It may block, so leadership is given up.
    pub(super) fn execute(&mut self, request: Authorized) -> OutgoingResponse {
        self.connection.stream.release_leadership();
        self.reactor.app.handle(request)
    }

    /// Writes the response and logs the request. On success, another request may follow.
    pub(super) fn respond_and_log(
        &mut self,
        response: &OutgoingResponse,
        context: &RequestContext,
    ) -> Result<(), Close> {
        let RequestContext { request_log, method, .. } = context;
        let keep_alive =
            context.keep_alive && self.connection.requests_remaining > 0 && !self.connection.permit.is_draining();
        let sent = self.write_response(response, *method, keep_alive, &request_log.id);
        let bytes = if *method == Method::Head { 0 } else { response.response.body.len() as u64 };
        self.reactor
            .app
            .observability
            .record(request_log, response.response.status, bytes, || self.connection.stream.release_leadership());
        sent?;
        if keep_alive { Ok(()) } else { Err(Close::Lingering) }
    }

    fn read_request(&mut self, request_log: &mut RequestLog) -> Result<ReadOutcome, Close> {
        let head = match self.read_head() {
            Ok(Ok(head)) => head,
            Ok(Err(error)) => return Ok(ReadOutcome::rejected(error.into(), Method::Other)),
            Err(error) => return map_timeout(error, "Request head took too long"),
        };
        let Head { request, framing, keep_alive, token, id, forwarded, expects_continue } = head;
        let method = request.method;
        request_log.set_request(&request, id);
        if let (Some(peer), Some(forwarded)) = (self.connection.permit.peer(), &forwarded) {
            request_log.peer = Peer::Address(self.reactor.limits.trusted_proxies.client_addr(peer, forwarded));
        }
        let request = match self.reactor.app.auth.authorize(request, token, self.reactor.kind) {
            Ok((request, user)) => {
                request_log.user = user;
                request
            }
            Err(response) => {
                let keep_alive = keep_alive && framing == Framing::Length(0);
                return Ok(ReadOutcome::Rejected { response, method, keep_alive });
            }
        };
        let rejected = |response| Ok(ReadOutcome::rejected(response, method));
        let mut body = match BodyDecoder::new(framing, self.reactor.limits.max_body) {
            Ok(body) => body,
            Err(error) => return rejected(error.into()),
        };
        if expects_continue && !body.is_complete() && self.buffers.read_buf.is_empty() {
            let length = match framing {
                Framing::Length(length) => Some(length),
                Framing::Chunked => None,
            };
            self.connection.stream.release_leadership();
            if let Some(response) = self.reactor.app.early_response(&request, length) {
                return rejected(response);
            }
            self.connection.stream.write(b"HTTP/1.1 100 Continue\r\n\r\n", b"", self.write_deadline())?;
        }
        self.read_body(request, framing, keep_alive, &mut body)
    }

    /// Reads a head within its timeout.
    fn read_head(&mut self) -> io::Result<Result<Head, RequestError>> {
        let deadline = deadline_after(Instant::now(), self.reactor.limits.head_timeout);
        let mut parser = HeadParser::default();
        loop {
            match parser.parse(&self.buffers.read_buf) {
                Ok(Some((head, end))) => {
                    self.buffers.read_buf.drain(..end);
                    return Ok(Ok(head));
                }
                Ok(None) => {}
                Err(error) => return Ok(Err(error)),
            }
            self.fill_read_buf(deadline)?;
        }
    }

    /// Reads a body within its deadline and the memory budget.
    fn read_body(
        &mut self,
        mut request: Authorized,
        framing: Framing,
        keep_alive: bool,
        body: &mut BodyDecoder,
    ) -> Result<ReadOutcome, Close> {
        if body.is_complete() {
            return Ok(ReadOutcome::Request { request, keep_alive, reservation: None });
        }
        let method = request.request().method;
        let rejected = |response| Ok(ReadOutcome::rejected(response, method));
        let mut reservation = self.reactor.app.budget().reserve();
        let mut reserved = 0;
        if let Framing::Length(length) = framing {
            request.body_mut().reserve_exact(usize::try_from(length.min(RESERVATION_STEP)).unwrap_or_default());
        }
        let mut rate_deadline = RateDeadline::new(self.reactor.limits.body_timeout, self.reactor.limits.min_rate);
        loop {
            let expected = body.received() + self.buffers.read_buf.len() as u64;
            if expected > reserved {
                let more = (expected - reserved).next_multiple_of(RESERVATION_STEP);
                if !reservation.try_grow(more) {
                    return rejected(service_unavailable());
                }
                reserved += more;
            }
            match body.decode(&self.buffers.read_buf, request.body_mut()) {
                Ok(count) => drop(self.buffers.read_buf.drain(..count)),
                Err(error) => return rejected(error.into()),
            }
            if body.is_complete() {
                return Ok(ReadOutcome::Request { request, keep_alive, reservation: Some(reservation) });
            }
            if let Err(error) = self.fill_read_buf(rate_deadline.deadline()) {
                return map_timeout(error, "Request body took too long");
            }
            rate_deadline.record_progress(self.buffers.read_buf.len());
        }
    }

    fn write_response(
        &mut self,
        response: &OutgoingResponse,
        method: Method,
        keep_alive: bool,
        id: &str,
    ) -> io::Result<()> {
        if response.response.body.len() > MAX_LEADER_BODY {
            self.connection.stream.release_leadership();
        }
        let rate_deadline = self.write_deadline();
        let (head, body) = self.buffers.encoder.encode(&response.response, method != Method::Head, keep_alive, id);
        self.connection.stream.write(head, body, rate_deadline)
    }

    /// Adds received bytes to the read buffer. End of file is an error.
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

/// Turns a timeout into a 408 response. After other errors, there is no response.
fn map_timeout(error: io::Error, message: &'static str) -> Result<ReadOutcome, Close> {
    match error.kind() {
        ErrorKind::TimedOut => Ok(ReadOutcome::rejected(Response::error(408, message), Method::Other)),
        _ => Err(error.into()),
    }
}
