//! The life of a server: listen, open the store, answer, drain, stop. It knows only `Messages`, not the store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::messages::{self, Messages};

/// How to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// `ADDRESS:PORT`, at least one.
    pub listen: Vec<String>,
    /// What connections speak.
    pub tls: Tls,
    /// What is allowed, and how long it may take.
    pub limits: Limits,
    /// Bytes for replies that can be sent again as they are; 0 is none.
    pub cache_size: u64,
    /// How long requests in flight may take to finish at the end.
    pub drain_timeout: Duration,
}

/// What connections speak.
#[derive(Debug, Clone)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// HTTPS with the user's pair, PEM. The key may stand in the certificate's file.
    Pair {
        /// The chain.
        cert: PathBuf,
        /// The key; `None`: in the chain's file.
        key: Option<PathBuf>,
    },
    /// HTTPS with a pair made once in this directory.
    SelfSigned(PathBuf),
}

/// The bounds of what a client may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of a request's body, in bytes.
    pub body: u64,
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time from one address.
    pub connections_per_address: usize,
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

/// Why the server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store would not open.
    #[error(transparent)]
    Store(#[from] messages::Error),
    /// What was tried, and why it failed.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
}

/// Serves until SIGTERM or SIGINT, then drains and returns.
///
/// `open` opens the store; it runs while the door already answers `/livez` and `/readyz`.
pub fn run(
    _options: Options,
    _open: impl FnOnce() -> Result<Arc<dyn Messages>, messages::Error> + Send + 'static,
) -> Result<(), Error> {
    unreachable!("comes with the server wing")
}
