//! Permits of slow requests, so that they never hold all connections of the engine.

use std::time::Duration;

use crate::digest::Digest;
use crate::server::api::{self, Request};
use crate::server::semaphore::{Permit, Semaphore};

/// Size in bytes above which reading a message, or processing a request body, needs a permit.
pub(super) const LARGE: u64 = 1 << 20;
/// Maximum number of large reads at a time. Reading may take many times the size of a message, which the memory budget
/// does not cover.
const MAX_LARGE_READS: usize = 4;
/// Maximum number of requests with a large body at a time.
const MAX_LARGE_BODIES: usize = 16;
/// Maximum time to wait for a permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The permits of a server.
pub(super) struct SlowRequests {
    reads: Semaphore,
    bodies: Semaphore,
}

/// The error of a request that found no free permit in time.
pub(super) struct Busy;

impl Default for SlowRequests {
    fn default() -> Self {
        Self {
            reads: Semaphore::new(MAX_LARGE_READS, PERMIT_TIMEOUT),
            bodies: Semaphore::new(MAX_LARGE_BODIES, PERMIT_TIMEOUT),
        }
    }
}

impl SlowRequests {
    /// Blocks until there is a permit, if `request` is slow. `message_size` returns the size of a stored message.
    pub(super) fn admit(
        &self,
        request: &Request,
        message_size: impl FnOnce(Digest) -> u64,
    ) -> Result<Option<Permit<'_>>, Busy> {
        let is_large_read = api::reads_many_messages(request)
            || api::message_digest(request).is_some_and(|digest| message_size(digest) > LARGE);
        let permits = if is_large_read {
            &self.reads
        } else if request.body.len() as u64 > LARGE {
            &self.bodies
        } else {
            return Ok(None);
        };
        permits.acquire().map(Some).ok_or(Busy)
    }
}
