//! A client, whichever thread it is served by: what is kept of it while it rests, and while its put goes together with
//! others.

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
use crate::server::api::{Method, Request};
use crate::server::app::{self, RequestLog};
use crate::server::budget::Reservation;
use crate::server::metrics::ConnectionGuard;

/// A client at the door: what is kept of it while it rests.
pub(super) struct Connection {
    pub(super) stream: Stream,
    /// Requests that it may still make.
    pub(super) requests_remaining: u64,
    _gauge: ConnectionGuard,
    pub(super) permit: ConnectionPermit,
}

/// What a thread has for whichever client it serves.
#[derive(Default)]
pub(super) struct WorkerBuffers {
    pub(super) read_buf: Vec<u8>,
    pub(super) encoder: ResponseEncoder,
}

/// How a thread leaves a client.
pub(super) enum Outcome {
    Idle(Box<Connection>),
    /// Its put goes together with others, as this line.
    Coalesce(PendingPut, Vec<u8>),
    Closed,
}

/// A client whose put goes together with others.
pub(super) struct PendingPut {
    pub(super) connection: Box<Connection>,
    pub(super) put: Box<ParsedPut>,
    /// What has come behind the put.
    pub(super) unread: Vec<u8>,
}

/// A put that was read.
pub(super) struct ParsedPut {
    pub(super) request: Request,
    pub(super) context: RequestContext,
}

/// What is known of a request beside what it asks.
pub(super) struct RequestContext {
    pub(super) request_log: RequestLog,
    pub(super) method: Method,
    pub(super) keep_alive: bool,
    pub(super) _reservation: Option<Reservation>,
}

impl Connection {
    /// One that was let in as `guest`.
    pub(super) fn new(stream: Stream, guest: ConnectionPermit, house: &Reactor) -> Self {
        Self {
            stream,
            requests_remaining: house.limits.max_requests,
            _gauge: house.service.metrics().track_connection(),
            permit: guest,
        }
    }

    /// What it is called while it is here.
    pub(super) const fn id(&self) -> u64 {
        self.permit.id()
    }

    /// Shakes hands.
    pub(super) fn handshake(mut self: Box<Self>, house: &Reactor, desk: &mut WorkerBuffers) -> Outcome {
        match self.stream.handshake(deadline_after(Instant::now(), house.limits.handshake_timeout)) {
            Ok(()) if self.stream.has_buffered_plaintext() => self.serve(None, house, desk).0,
            Ok(()) => Outcome::Idle(self),
            Err(_) => Outcome::Closed,
        }
    }

    /// Serves what it asks. The duty is back if nothing had to be waited for.
    pub(super) fn serve(
        mut self: Box<Self>,
        duty: Option<LeaderToken>,
        house: &Reactor,
        desk: &mut WorkerBuffers,
    ) -> (Outcome, Option<LeaderToken>) {
        self.stream.set_leader(duty);
        desk.restore_unread(Vec::new());
        let mut request_loop = RequestLoop { connection: self, buffers: desk, reactor: house };
        let next = request_loop.serve();
        request_loop.into_outcome(next)
    }

    /// Ends it, without waiting.
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
    /// What has come and is still to be read.
    pub(super) fn take_unread(&mut self) -> Vec<u8> {
        if self.read_buf.is_empty() { Vec::new() } else { mem::take(&mut self.read_buf) }
    }

    /// Goes on with what was put away, or with nothing.
    fn restore_unread(&mut self, inbox: Vec<u8>) {
        self.read_buf.clear();
        if !inbox.is_empty() {
            self.read_buf = inbox;
        }
    }
}

impl PendingPut {
    /// A client whose put is nothing but told.
    #[cfg(test)]
    pub(super) fn for_test(client: Box<Connection>, service: &app::App) -> Self {
        let asked = RequestContext {
            request_log: RequestLog::new(service, Peer::Local),
            method: Method::Post,
            keep_alive: true,
            _reservation: None,
        };
        let request = Request::new(Method::Post, "/messages");
        Self { connection: client, put: Box::new(ParsedPut { request, context: asked }), unread: Vec::new() }
    }

    /// Answers with what is stored, or asks alone, and goes on.
    pub(super) fn resume(
        self,
        stored: Option<Digest>,
        duty: LeaderToken,
        house: &Reactor,
        desk: &mut WorkerBuffers,
    ) -> (Outcome, Option<LeaderToken>) {
        let Self { mut connection, put, unread: inbox } = self;
        let ParsedPut { request, context: asked } = *put;
        connection.stream.set_leader(Some(duty));
        desk.restore_unread(inbox);
        let mut request_loop = RequestLoop { connection, buffers: desk, reactor: house };
        let answer = stored.map_or_else(|| request_loop.execute(request), app::put_response);
        let next = request_loop.respond_and_log(&answer, &asked).and_then(|()| request_loop.serve_buffered());
        request_loop.into_outcome(next)
    }
}
