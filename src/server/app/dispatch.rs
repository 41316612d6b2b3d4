//! Calls of the engine: single requests, and batches of coalesced puts. A slow request needs a permit, so that slow
//! requests never hold all connections of the engine.

use std::sync::Arc;
use std::time::Duration;

use super::{App, OpenStore, OutgoingResponse, service_unavailable};
use crate::server::api::{self, Request, Response};
use crate::server::auth::Authorized;
use crate::server::coalescer::{BatchLeader, Completion, Enqueued};
use crate::server::engine;
use crate::server::semaphore::Permit;
use crate::server::warn;

/// Size in bytes above which reading a message, or processing a request body, needs a permit.
pub(super) const LARGE_MESSAGE: u64 = 1 << 20;
/// Maximum number of large reads at a time. Reading may take many times the size of a message, which the memory budget
/// does not cover.
pub(super) const MAX_LARGE_READS: usize = 4;
/// Maximum number of requests with a large body at a time.
pub(super) const MAX_LARGE_BODIES: usize = 16;
/// Maximum time to wait for a permit.
pub(super) const PERMIT_TIMEOUT: Duration = Duration::from_secs(10);

impl App {
    /// Returns the batch line of a put that can be coalesced with others.
    pub(in crate::server) fn batch_line(&self, request: &Authorized) -> Option<Vec<u8>> {
        self.store.get()?;
        request.batch_line()
    }

    /// Adds a put to the open batch. `completion` must not block.
    pub(in crate::server) fn enqueue_put(&self, line: &[u8], completion: Completion) -> Enqueued<'_> {
        self.put_coalescer.enqueue(line, completion)
    }

    /// Executes the batch of `leader` as one request and completes its members. While another batch is in flight, blocks
    /// until a timeout.
    pub(in crate::server) fn run_batch(&self, mut leader: BatchLeader<'_>) {
        if let Some(lines) = leader.seal()
            && let Some(open) = self.store.get()
        {
            let outgoing = self.dispatch(Authorized::batch(lines), open);
            leader.complete(api::coalesce::parse_batch_response(&outgoing.response));
        }
    }

    /// Sends `request` to the engine and returns its response. Restarts the engine if it stopped.
    pub(super) fn dispatch(&self, request: Authorized, open: &OpenStore) -> OutgoingResponse {
        let engine = open.engine();
        let outcome = engine.call(request, &self.budget);
        if !engine.is_alive() {
            open.restart_engine(&engine);
        }
        match outcome {
            Ok((response, reservation)) => {
                OutgoingResponse { response: Arc::new(response), _reservation: Some(reservation) }
            }
            Err(engine::Error::Io(error)) => {
                warn(format_args!("engine request failed: {error}"));
                Response::error(500, "Internal server error").into()
            }
            Err(engine::Error::Busy | engine::Error::OverBudget) => service_unavailable().into(),
        }
    }

    /// Acquires a permit if `request` is slow. Returns an error if no permit became free in time.
    pub(super) fn acquire_permit(&self, request: &Request, open: &OpenStore) -> Result<Option<Permit<'_>>, ()> {
        let is_large = |digest| open.message_size(digest) > LARGE_MESSAGE;
        let permits = if api::needs_read_permit(request) || api::message_digest(request).is_some_and(is_large) {
            &self.large_read_permits
        } else if request.body.len() as u64 > LARGE_MESSAGE {
            &self.large_body_permits
        } else {
            return Ok(None);
        };
        permits.acquire().map(Some).ok_or(())
    }
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
