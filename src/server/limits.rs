//! The bounds of what a client may ask for, and what they mean for the process: memory and open files.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Error, Proxies, engine, http};

/// The bounds of what a client may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of a request's body, in bytes.
    pub body: u64,
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time from one address.
    pub connections_per_address: usize,
    /// Who may come more often than that, since it comes for others, and is believed about whom.
    pub trusted_proxies: Proxies,
    /// Requests on a connection.
    pub requests: u64,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For a head, from its first byte.
    pub head: Duration,
    /// For a body, and a second more for every `min_rate` bytes that came.
    pub body_time: Duration,
    /// For taking a reply, and a second more for every `min_rate` bytes that went.
    pub write: Duration,
    /// Bytes a second.
    pub min_rate: u64,
    /// Between two requests.
    pub idle: Duration,
}

/// Connections at the local door at a time; more wait.
const LOCAL_CONNECTIONS: usize = 256;
/// What a local body may take beside twice the longest message.
const LOCAL_ROOM: u64 = 1 << 20;
/// For the store's files and what else a process has open.
const OTHER_FILES: usize = 256;
/// Memory for bodies, unless a few of the longest need more.
const MEMORY: u64 = 256 << 20;

impl Limits {
    /// What holds at the local door, for a store that takes messages of up to `max_message` bytes.
    pub(super) fn local(&self, max_message: u64) -> Self {
        let body = max_message.saturating_mul(2).saturating_add(LOCAL_ROOM).max(self.body);
        Self { body, connections: LOCAL_CONNECTIONS, ..self.clone() }
    }

    /// The bytes that all bodies may take at a time, requests and replies together, at this door and the `other`.
    pub(super) fn memory(&self, other: &Self) -> u64 {
        MEMORY.max(self.body.saturating_mul(8)).max(other.body.saturating_mul(2))
    }
}

/// Sees to it that `connections` can be open at a time, raising the soft limit if the hard one allows it.
pub(super) fn raise_descriptors(connections: usize, listeners: usize) -> Result<(), Error> {
    let needed = connections
        .saturating_add(listeners)
        .saturating_add(LOCAL_CONNECTIONS + engine::DESCRIPTORS + http::MAX_REJECTED + OTHER_FILES);
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if maximum.is_some_and(|maximum| maximum < needed)
        || setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).is_err()
    {
        return Err(Error::Descriptors { connections, needed, allowed: maximum.or(current).unwrap_or(0) });
    }
    Ok(())
}
