//! One client connection, independent of the thread that serves it: its state while it is idle, and while its put waits
//! in a batch.

use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::deadline::deadline_after;
use super::reactor::{LeaderToken, Reactor};
use super::registry::ConnectionPermit;
use super::request_loop::RequestLoop;
use super::response::ResponseEncoder;
use super::stream::Stream;
use crate::digest::Digest;
#[cfg(test)]
use crate::server::access_log::Peer;
use crate::server::api::Method;
#[cfg(test)]
use crate::server::api::Request;
use crate::server::app;
use crate::server::auth::Authorized;
use crate::server::budget::Reservation;
use crate::server::metrics::ConnectionGuard;
use crate::server::observability::RequestLog;

/// A client connection.
pub(super) struct Connection {
    pub(super) stream: Stream,
    /// Number of requests that the client may still send.
    pub(super) requests_remaining: u64,
    _gauge: ConnectionGuard,
    pub(super) permit: ConnectionPermit,
}

/// Buffers of a worker, used for each connection that it serves.
#[derive(Default)]
pub(super) struct WorkerBuffers {
    pub(super) read_buf: Vec<u8>,
    pub(super) encoder: ResponseEncoder,
}

/// State of a connection after a worker has served it.
pub(super) enum Outcome {
    Idle(Box<Connection>),
    /// The put joins a batch as this line.
    Coalesce(PendingPut, Vec<u8>),
    Closed,
}

/// A connection whose put waits for its batch.
pub(super) struct PendingPut {
    pub(super) connection: Box<Connection>,
    pub(super) put: Box<ParsedPut>,
    /// Bytes received after the put.
    pub(super) unread: Vec<u8>,
}

/// A put with its complete body, and its context.
pub(super) struct ParsedPut {
    pub(super) request: Authorized,
    pub(super) context: RequestContext,
}

/// Per-request context needed to write and log the response.
pub(super) struct RequestContext {
    pub(super) request_log: RequestLog,
    pub(super) method: Method,
    pub(super) keep_alive: bool,
    pub(super) _reservation: Option<Reservation>,
}

impl Connection {
    pub(super) fn new(stream: Stream, permit: ConnectionPermit, reactor: &Reactor) -> Self {
        Self {
            stream,
            requests_remaining: reactor.limits.max_requests,
            _gauge: reactor.app.observability.metrics.track_connection(),
            permit,
        }
    }

    /// Returns the id of the connection, which is unique in its endpoint.
    pub(super) const fn id(&self) -> u64 {
        self.permit.id()
    }

    /// Performs the TLS handshake, and serves requests that arrived with it. Blocks.
    pub(super) fn handshake(mut self: Box<Self>, reactor: &Reactor, buffers: &mut WorkerBuffers) -> Outcome {
        match self.stream.handshake(deadline_after(Instant::now(), reactor.limits.handshake_timeout)) {
            Ok(()) if self.stream.has_buffered_plaintext() => self.serve(None, reactor, buffers).0,
            Ok(()) => Outcome::Idle(self),
            Err(_) => Outcome::Closed,
        }
    }

    /// Serves all buffered requests. Returns the leader token if serving never blocked.
    pub(super) fn serve(
        mut self: Box<Self>,
        leader: Option<LeaderToken>,
        reactor: &Reactor,
        buffers: &mut WorkerBuffers,
    ) -> (Outcome, Option<LeaderToken>) {
        self.stream.set_leader(leader);
        buffers.restore_unread(Vec::new());
        let mut request_loop = RequestLoop { connection: self, buffers, reactor };
        let step = request_loop.serve();
        request_loop.into_outcome(step)
    }

    /// Sends a TLS close_notify without blocking. Dropping the connection then closes the socket.
    pub(super) fn close_now(&mut self) {
        self.stream.send_close_notify();
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl WorkerBuffers {
    /// Takes the bytes that were received and not parsed.
    pub(super) fn take_unread(&mut self) -> Vec<u8> {
        if self.read_buf.is_empty() { Vec::new() } else { mem::take(&mut self.read_buf) }
    }

    /// Replaces the content of the read buffer. The allocation is kept if `unread` is empty.
    fn restore_unread(&mut self, unread: Vec<u8>) {
        self.read_buf.clear();
        if !unread.is_empty() {
            self.read_buf = unread;
        }
    }
}

impl PendingPut {
    /// Creates a pending `POST /messages` on `connection`.
    #[cfg(test)]
    pub(super) fn for_test(connection: Box<Connection>, app: &app::App) -> Self {
        let context = RequestContext {
            request_log: RequestLog::new(&app.observability, Peer::Local),
            method: Method::Post,
            keep_alive: true,
            _reservation: None,
        };
        let request = Authorized::for_test(Request::new(Method::Post, "/messages"));
        Self { connection, put: Box::new(ParsedPut { request, context }), unread: Vec::new() }
    }

    /// Responds with `digest`, or executes the request alone if it is `None`. Then serves all buffered requests.
    pub(super) fn resume(
        self,
        digest: Option<Digest>,
        leader: LeaderToken,
        reactor: &Reactor,
        buffers: &mut WorkerBuffers,
    ) -> (Outcome, Option<LeaderToken>) {
        let Self { mut connection, put, unread } = self;
        let ParsedPut { request, context } = *put;
        connection.stream.set_leader(Some(leader));
        buffers.restore_unread(unread);
        let mut request_loop = RequestLoop { connection, buffers, reactor };
        let response = digest.map_or_else(|| request_loop.execute(request), app::put_response);
        let step = request_loop.respond_and_log(&response, &context).and_then(|()| request_loop.serve_buffered());
        request_loop.into_outcome(step)
    }
}
