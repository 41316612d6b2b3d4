//! One client connection, independent of the thread that serves it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::connection_io::{ConnectionIo, Leadership};
use super::deadline::deadline_after;
use super::registry::ConnectionPermit;
use super::request_loop::{EndpointContext, Outcome, ParsedPut, RequestLoop, WorkerBuffers};
use super::stream::Stream;
use crate::digest::Digest;
use crate::server::metrics::ConnectionGuard;

/// A client connection.
pub(super) struct Connection {
    stream: Stream,
    /// Number of requests that the client may still send.
    requests_remaining: u64,
    _gauge: ConnectionGuard,
    permit: ConnectionPermit,
}

impl Connection {
    pub(super) fn new(stream: Stream, permit: ConnectionPermit, endpoint: &EndpointContext) -> Self {
        Self {
            stream,
            requests_remaining: endpoint.limits.max_requests,
            _gauge: endpoint.app.metrics().track_connection(),
            permit,
        }
    }

    /// Returns the id of the connection, which is unique in its endpoint.
    pub(super) const fn id(&self) -> u64 {
        self.permit.id()
    }

    /// Performs the TLS handshake, and serves requests that arrived with it.
    pub(super) fn handshake(
        &mut self,
        endpoint: &EndpointContext,
        leadership: &mut dyn Leadership,
        buffers: &mut WorkerBuffers,
    ) -> Outcome {
        let deadline = deadline_after(Instant::now(), endpoint.limits.handshake_timeout);
        let mut request_loop = self.request_loop(endpoint, leadership, buffers);
        match request_loop.io.handshake(deadline) {
            Ok(()) => request_loop.serve_buffered(),
            Err(error) => error.into(),
        }
    }

    /// Serves a request of which the first bytes were received, then all buffered requests.
    pub(super) fn serve(
        &mut self,
        endpoint: &EndpointContext,
        leadership: &mut dyn Leadership,
        buffers: &mut WorkerBuffers,
    ) -> Outcome {
        self.request_loop(endpoint, leadership, buffers).serve()
    }

    /// Responds to a put with `digest`, or executes it alone if that is `None`. Then serves all buffered requests.
    pub(super) fn resume(
        &mut self,
        put: ParsedPut,
        digest: Option<Digest>,
        endpoint: &EndpointContext,
        leadership: &mut dyn Leadership,
        buffers: &mut WorkerBuffers,
    ) -> Outcome {
        self.request_loop(endpoint, leadership, buffers).resume(put, digest)
    }

    /// Sends a TLS `close_notify` if that does not block. Dropping the connection then closes the socket.
    pub(super) fn abort(&mut self) {
        self.stream.queue_close_notify();
        self.stream.flush_nonblocking();
    }

    /// Waits until the client has read the response, or a limit is reached.
    pub(super) fn lingering_close(&mut self, leadership: &mut dyn Leadership) {
        ConnectionIo::new(&mut self.stream, leadership).lingering_close();
    }

    fn request_loop<'a>(
        &'a mut self,
        endpoint: &'a EndpointContext,
        leadership: &'a mut dyn Leadership,
        buffers: &'a mut WorkerBuffers,
    ) -> RequestLoop<'a> {
        buffers.clear();
        let io = ConnectionIo::new(&mut self.stream, leadership);
        RequestLoop { io, permit: &self.permit, requests_remaining: &mut self.requests_remaining, endpoint, buffers }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
