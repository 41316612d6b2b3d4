//! The bounds of what a client may ask for, and what they mean for the process: memory and open files.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Error, TrustedProxies, engine, http};

/// The bounds of what a client may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of a request's body, in bytes.
    pub max_body: u64,
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections at a time from one address.
    pub max_connections_per_address: usize,
    /// Who may come more often than that, since it comes for others, and is believed about whom.
    pub trusted_proxies: TrustedProxies,
    /// Requests on a connection.
    pub max_requests: u64,
    /// For the TLS handshake.
    pub handshake_timeout: Duration,
    /// For a head, from its first byte.
    pub head_timeout: Duration,
    /// For a body, and a second more for every `min_rate` bytes that came.
    pub body_timeout: Duration,
    /// For taking a reply, and a second more for every `min_rate` bytes that went.
    pub write_timeout: Duration,
    /// Bytes a second.
    pub min_rate: u64,
    /// Between two requests.
    pub idle_timeout: Duration,
}

/// Connections at the local door at a time; more wait.
const MAX_LOCAL_CONNECTIONS: usize = 256;
/// What a local body may take beside twice the longest message.
const LOCAL_BODY_OVERHEAD: u64 = 1 << 20;
/// For the store's files and what else a process has open.
const RESERVED_FDS: usize = 256;
/// Memory for bodies, unless a few of the longest need more.
const MIN_MEMORY_BUDGET: u64 = 256 << 20;

impl Limits {
    /// What holds at the local door, for a store that takes messages of up to `max_message` bytes.
    pub(super) fn for_local_socket(&self, max_message: u64) -> Self {
        let body = max_message.saturating_mul(2).saturating_add(LOCAL_BODY_OVERHEAD).max(self.max_body);
        Self { max_body: body, max_connections: MAX_LOCAL_CONNECTIONS, ..self.clone() }
    }

    /// The bytes that all bodies may take at a time, requests and replies together, at this door and the `other`.
    pub(super) fn memory_budget(&self, other: &Self) -> u64 {
        MIN_MEMORY_BUDGET.max(self.max_body.saturating_mul(8)).max(other.max_body.saturating_mul(2))
    }
}

/// Sees to it that `connections` can be open at a time, raising the soft limit if the hard one allows it.
pub(super) fn raise_fd_limit(connections: usize, listeners: usize) -> Result<(), Error> {
    let needed = connections
        .saturating_add(listeners)
        .saturating_add(MAX_LOCAL_CONNECTIONS + engine::FD_COST + http::MAX_REJECTED + RESERVED_FDS);
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
