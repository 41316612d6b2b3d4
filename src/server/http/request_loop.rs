//! Request loop of one connection: reads, executes and answers requests until the connection is idle, must be closed, or
//! its put waits for a batch. Each step has a deadline. After a malformed request, nothing more is parsed.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use super::body::BodyDecoder;
use super::connection_io::ConnectionIo;
use super::deadline::{RateDeadline, deadline_after};
use super::head::{Framing, Head};
use super::registry::ConnectionPermit;
use super::request_reader::{self, RESERVATION_STEP, ReadError};
use super::response::ResponseEncoder;
use crate::digest::Digest;
use crate::server::access_log::Peer;
use crate::server::api::Method;
#[cfg(test)]
use crate::server::api::Request;
use crate::server::app::{self, App, OutgoingResponse};
use crate::server::auth::{Authorized, EndpointKind};
use crate::server::budget::Reservation;
use crate::server::limits::Limits;
use crate::server::observability::RequestLog;

/// Maximum length of a response body that a leader writes, in bytes. A longer one would delay other connections.
const MAX_LEADER_BODY: usize = 256 << 10;

/// The application behind an endpoint, and the limits of the endpoint.
pub(super) struct EndpointContext {
    pub(super) limits: Limits,
    pub(super) app: Arc<App>,
    pub(super) kind: EndpointKind,
}

/// Buffers of a worker, used for each connection that it serves.
#[derive(Default)]
pub(super) struct WorkerBuffers {
    read_buf: Vec<u8>,
    encoder: ResponseEncoder,
}

/// Next state of a connection.
pub(super) enum Outcome {
    /// It waits for its next request.
    Idle,
    /// Its put joins a batch as this line.
    Coalesce(Box<ParsedPut>, Vec<u8>),
    /// It is closed at once: the client is gone or was silent for too long, or the server is draining.
    Abort,
    /// It is closed after a response, although the client may still be sending.
    Linger,
}

/// A put with its complete body, and its context.
pub(super) struct ParsedPut {
    request: Authorized,
    context: RequestContext,
    /// Bytes received after the put.
    unread: Vec<u8>,
}

/// Per-request context needed to write and log the response.
struct RequestContext {
    request_log: RequestLog,
    method: Method,
    /// Another request may follow.
    keep_alive: bool,
    reservation: Option<Reservation>,
}

/// A connection while a worker serves it.
pub(super) struct RequestLoop<'a> {
    pub(super) io: ConnectionIo<'a>,
    pub(super) permit: &'a ConnectionPermit,
    /// Number of requests that the client may still send.
    pub(super) requests_remaining: &'a mut u64,
    pub(super) endpoint: &'a EndpointContext,
    pub(super) buffers: &'a mut WorkerBuffers,
}

impl WorkerBuffers {
    /// Discards received bytes.
    pub(super) fn clear(&mut self) {
        self.read_buf.clear();
    }

    /// Takes the bytes that were received and not parsed.
    fn take_unread(&mut self) -> Vec<u8> {
        if self.read_buf.is_empty() { Vec::new() } else { mem::take(&mut self.read_buf) }
    }

    /// Replaces the received bytes. The allocation is kept if `unread` is empty.
    fn restore_unread(&mut self, unread: Vec<u8>) {
        match unread.is_empty() {
            true => self.read_buf.clear(),
            false => self.read_buf = unread,
        }
    }
}

impl ParsedPut {
    /// Creates a `POST /messages`.
    #[cfg(test)]
    pub(super) fn for_test(app: &App) -> Self {
        let request_log = RequestLog::new(&app.observability, Peer::Local);
        let context = RequestContext { request_log, method: Method::Post, keep_alive: true, reservation: None };
        let request = Authorized::for_test(Request::new(Method::Post, "/messages"));
        Self { request, context, unread: Vec::new() }
    }
}

impl From<io::Error> for Outcome {
    fn from(_: io::Error) -> Self {
        Self::Abort
    }
}

impl RequestLoop<'_> {
    /// Serves one request, then all buffered ones.
    pub(super) fn serve(&mut self) -> Outcome {
        loop {
            if let Err(outcome) = self.serve_one().and_then(|()| self.check_buffered()) {
                return outcome;
            }
        }
    }

    /// Serves all requests whose first bytes are buffered.
    pub(super) fn serve_buffered(&mut self) -> Outcome {
        match self.check_buffered() {
            Ok(()) => self.serve(),
            Err(outcome) => outcome,
        }
    }

    /// Responds to a put with `digest`, or executes it alone if that is `None`. Then serves all buffered requests.
    pub(super) fn resume(&mut self, put: ParsedPut, digest: Option<Digest>) -> Outcome {
        let ParsedPut { request, context, unread } = put;
        self.buffers.restore_unread(unread);
        let response = match digest {
            Some(digest) => app::put_response(digest),
            None => self.execute(request),
        };
        match self.respond(&response, context) {
            Ok(()) => self.serve_buffered(),
            Err(outcome) => outcome,
        }
    }

    /// Returns an error unless the first bytes of another request are buffered.
    fn check_buffered(&mut self) -> Result<(), Outcome> {
        if !self.buffers.read_buf.is_empty() {
            return Ok(());
        }
        if !self.permit.mark_idle() {
            return Err(Outcome::Abort);
        }
        if self.io.has_buffered_plaintext() { Ok(()) } else { Err(Outcome::Idle) }
    }

    /// Serves one request. Returns an error if no other request may follow now.
    fn serve_one(&mut self) -> Result<(), Outcome> {
        if self.buffers.read_buf.is_empty() {
            let deadline = deadline_after(Instant::now(), self.endpoint.limits.idle_timeout);
            self.io.read(&mut self.buffers.read_buf, deadline)?;
        }
        self.permit.mark_busy();
        *self.requests_remaining = self.requests_remaining.saturating_sub(1);
        let app = &self.endpoint.app;
        let mut context = RequestContext {
            request_log: RequestLog::new(&app.observability, self.permit.peer().map_or(Peer::Local, Peer::Address)),
            method: Method::Other,
            keep_alive: false,
            reservation: None,
        };
        let response = match self.read_request(&mut context) {
            Err(ReadError::Io(error)) => return Err(error.into()),
            Err(ReadError::Rejected(response)) => response.into(),
            Ok(request) => {
                if let Some(response) = app.cached_response(&request) {
                    response
                } else if let Some(line) = app.batch_line(&request) {
                    let unread = self.buffers.take_unread();
                    return Err(Outcome::Coalesce(Box::new(ParsedPut { request, context, unread }), line));
                } else {
                    self.execute(request)
                }
            }
        };
        self.respond(&response, context)
    }

    /// Reads and authorises a request.
    fn read_request(&mut self, context: &mut RequestContext) -> Result<Authorized, ReadError> {
        let EndpointContext { limits, app, kind } = self.endpoint;
        let head = request_reader::read_head(&mut self.io, &mut self.buffers.read_buf, limits)?;
        let Head { request, framing, keep_alive, token, id, forwarded, expects_continue } = head;
        context.method = request.method;
        context.request_log.set_request(&request, id);
        if let (Some(peer), Some(forwarded)) = (self.permit.peer(), &forwarded) {
            context.request_log.peer = Peer::Address(limits.trusted_proxies.client_addr(peer, forwarded));
        }
        let mut request = match app.auth.authorize(request, token, *kind) {
            Ok((request, user)) => {
                context.request_log.user = user;
                request
            }
            Err(response) => {
                // Another request may follow if there is no body to skip.
                context.keep_alive = keep_alive && framing == Framing::Length(0);
                return Err(ReadError::Rejected(response));
            }
        };
        let decoder = BodyDecoder::new(framing, limits.max_body)?;
        if !decoder.is_complete() {
            if expects_continue && self.buffers.read_buf.is_empty() {
                self.send_continue(&request, framing)?;
            }
            let mut reservation = app.budget().reserve();
            let body = request.body_mut();
            if let Framing::Length(length) = framing {
                body.reserve_exact(usize::try_from(length.min(RESERVATION_STEP)).unwrap_or_default());
            }
            let read_buf = &mut self.buffers.read_buf;
            request_reader::read_body(&mut self.io, read_buf, limits, decoder, &mut reservation, body)?;
            context.reservation = Some(reservation);
        }
        context.keep_alive = keep_alive;
        Ok(request)
    }

    /// Sends `100 Continue`, unless the request can be answered without its body.
    fn send_continue(&mut self, request: &Authorized, framing: Framing) -> Result<(), ReadError> {
        let length = match framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        };
        self.io.pass_on_leadership();
        match self.endpoint.app.early_response(request, length) {
            Some(response) => Err(ReadError::Rejected(response)),
            None => Ok(self.io.write(b"HTTP/1.1 100 Continue\r\n\r\n", b"", self.write_deadline())?),
        }
    }

    /// Executes the request. That may block, so leadership is passed on first.
    fn execute(&mut self, request: Authorized) -> OutgoingResponse {
        self.io.pass_on_leadership();
        self.endpoint.app.handle(request)
    }

    /// Writes the response and logs the request. Returns an error if no other request may follow.
    fn respond(&mut self, response: &OutgoingResponse, context: RequestContext) -> Result<(), Outcome> {
        let RequestContext { request_log, method, keep_alive, reservation: _reservation } = context;
        let response = &response.response;
        let keep_alive = keep_alive && *self.requests_remaining > 0 && !self.permit.is_draining();
        if response.body.len() > MAX_LEADER_BODY {
            self.io.pass_on_leadership();
        }
        let deadline = self.write_deadline();
        let (head, body) = self.buffers.encoder.encode(response, method != Method::Head, keep_alive, &request_log.id);
        let sent = self.io.write(head, body, deadline);
        let bytes = if method == Method::Head { 0 } else { response.body.len() as u64 };
        let io = &mut self.io;
        self.endpoint.app.observability.record(&request_log, response.status, bytes, || io.pass_on_leadership());
        sent?;
        if keep_alive { Ok(()) } else { Err(Outcome::Linger) }
    }

    fn write_deadline(&self) -> RateDeadline {
        RateDeadline::new(self.endpoint.limits.write_timeout, self.endpoint.limits.min_rate)
    }
}
