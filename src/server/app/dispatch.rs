//! What the engine is asked: one thing, or what many want together; what is long waits for its turn.

use std::sync::Arc;
use std::time::Duration;

use super::{App, OpenStore, OutgoingResponse, service_unavailable};
use crate::server::api::{self, Request, Response};
use crate::server::coalescer::{BatchLeader, Completion, Enqueued};
use crate::server::engine;
use crate::server::semaphore::Permit;
use crate::server::warn;

/// Reads longer than this go on a few at a time: what a reader takes beside its reply is not in the budget, and may be
/// many times the message.
pub(super) const LARGE_MESSAGE: u64 = 1 << 20;
pub(super) const MAX_LARGE_READS: usize = 4;
/// How long to wait for a turn at that.
pub(super) const PERMIT_TIMEOUT: Duration = Duration::from_secs(10);

impl App {
    /// The line that `request` is among others, if it is a put that can go together with them.
    pub(in crate::server) fn batch_line(&self, request: &Request) -> Option<Vec<u8>> {
        self.store.get().and_then(|_| api::coalesce::to_batch_line(request))
    }

    /// Joins those who go together.
    pub(in crate::server) fn enqueue_put(&self, line: &[u8], then: Completion) -> Enqueued<'_> {
        self.put_coalescer.enqueue(line, then)
    }

    /// Asks for all who gathered, once it is time, and tells them.
    pub(in crate::server) fn run_batch(&self, mut lead: BatchLeader<'_>) {
        if let Some(lines) = lead.seal()
            && let Some(open) = self.store.get()
        {
            let answer = self.dispatch(api::coalesce::batch_request(lines), open);
            lead.complete(api::coalesce::parse_batch_response(&answer.response));
        }
    }

    /// The engine's reply to `request`.
    pub(super) fn dispatch(&self, request: Request, open: &OpenStore) -> OutgoingResponse {
        let engine = open.engine();
        let asked_for = engine.call(request, &self.budget);
        if !engine.is_alive() {
            open.restart_engine(&engine);
        }
        match asked_for {
            Ok((reply, held)) => OutgoingResponse { response: Arc::new(reply), _reservation: Some(held) },
            Err(engine::Error::Io(error)) => {
                warn(format_args!("the engine broke off: {error}"));
                Response::error(500, "Internal server error").into()
            }
            Err(engine::Error::Busy | engine::Error::OverBudget) => service_unavailable().into(),
        }
    }

    /// The turn that `request` takes if it reads something long; an error if none came free.
    pub(super) fn acquire_read_permit(&self, request: &Request, open: &OpenStore) -> Result<Option<Permit<'_>>, ()> {
        let is_long = |digest| open.length(digest) > LARGE_MESSAGE;
        match api::needs_read_permit(request) || api::message_digest(request).is_some_and(is_long) {
            true => self.large_read_permits.acquire().map(Some).ok_or(()),
            false => Ok(None),
        }
    }
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
