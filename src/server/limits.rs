//! Limits of requests and connections, and the memory and file descriptors that the process needs for them.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::error::Error;
use super::proxies::TrustedProxies;

/// Limits of requests and connections at one endpoint.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Maximum length of a request body in bytes.
    pub max_body: u64,
    /// Maximum number of connections.
    pub max_connections: usize,
    /// Maximum number of connections per client address.
    pub max_connections_per_address: usize,
    /// Trusted reverse proxies: exempt from the limit per address, and their `X-Forwarded-For` is used.
    pub trusted_proxies: TrustedProxies,
    /// Maximum number of requests per connection.
    pub max_requests: u64,
    /// Maximum duration of the TLS handshake.
    pub handshake_timeout: Duration,
    /// Maximum time for a request head, from its first byte.
    pub head_timeout: Duration,
    /// Maximum time for a request body, plus one second for every `min_rate` bytes received.
    pub body_timeout: Duration,
    /// Maximum time for sending a response, plus one second for every `min_rate` bytes sent.
    pub write_timeout: Duration,
    /// Minimum transfer rate in bytes per second.
    pub min_rate: u64,
    /// Maximum time between two requests of a connection.
    pub idle_timeout: Duration,
}

/// Maximum number of connections at the local endpoint. Further connections wait.
const MAX_LOCAL_CONNECTIONS: usize = 256;
/// Maximum number of rejected connections that are kept open for a moment, so that the clients can read the response.
pub(super) const MAX_REJECTED: usize = 64;
/// Bytes that a body at the local endpoint may have in addition to twice the maximum message.
const LOCAL_BODY_OVERHEAD: u64 = 1 << 20;
/// File descriptors for the store and everything else besides connections.
const RESERVED_FDS: usize = 256;
/// Minimum memory budget of bodies in bytes.
const MIN_MEMORY_BUDGET: u64 = 256 << 20;

impl Limits {
    /// Returns the limits of the local endpoint, where a body must hold a message of `max_message` bytes as JSON.
    pub(super) fn for_local_socket(&self, max_message: u64) -> Self {
        let max_body = max_message.saturating_mul(2).saturating_add(LOCAL_BODY_OVERHEAD).max(self.max_body);
        Self { max_body, max_connections: MAX_LOCAL_CONNECTIONS, ..self.clone() }
    }

    /// Returns the bytes that all request and response bodies may take together, at this and the `local` endpoint.
    pub(super) fn memory_budget(&self, local: &Self) -> u64 {
        MIN_MEMORY_BUDGET.max(self.max_body.saturating_mul(8)).max(local.max_body.saturating_mul(2))
    }
}

/// Raises the soft limit of open files to the number that `connections` and `others` need, or returns an error if the
/// hard limit is lower.
pub(super) fn raise_fd_limit(connections: usize, others: usize) -> Result<(), Error> {
    let needed = connections.saturating_add(others).saturating_add(MAX_LOCAL_CONNECTIONS + RESERVED_FDS);
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if maximum.is_some_and(|maximum| maximum < needed)
        || setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).is_err()
    {
        return Err(Error::FdLimitTooLow { connections, needed, allowed: maximum.or(current).unwrap_or(0) });
    }
    Ok(())
}
