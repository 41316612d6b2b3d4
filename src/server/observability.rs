//! Records of requests for the operator: metrics, access log, request ids.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::access_log::{AccessLog, AccessRecord, Peer};
use super::api::Request;
use super::metrics::Metrics;

/// Metrics, access log and request ids of a server.
pub(super) struct Observability {
    pub(super) metrics: Arc<Metrics>,
    access_log: Option<AccessLog>,
    next_request_id: AtomicU64,
}

/// Data of one request for the access log and the metrics, collected from its first byte until its response is sent.
pub(super) struct RequestLog {
    pub(super) id: String,
    /// Name of the token; `None`: anonymous.
    pub(super) user: Option<String>,
    pub(super) peer: Peer,
    started_at: Instant,
    method: &'static str,
    route: &'static str,
    path: Option<String>,
    is_logged: bool,
}

impl Observability {
    pub(super) fn new(access_log: Option<AccessLog>) -> Self {
        // The upper half is random, so that the request ids of two runs differ.
        let first_request_id = RandomState::new().build_hasher().finish() << 32;
        Self { metrics: Arc::default(), access_log, next_request_id: AtomicU64::new(first_request_id) }
    }

    /// Opens the access log again, after it was moved by a log rotation.
    pub(super) fn reopen_access_log(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
    }

    /// Counts a completed request and writes it to the access log. `bytes` is the length of the response body.
    ///
    /// Calls `on_block` before it blocks on a log whose reader is slow.
    pub(super) fn record(&self, request: &RequestLog, status: u16, bytes: u64, on_block: impl FnOnce()) {
        let &RequestLog { ref id, ref user, peer, started_at, method, route, ref path, .. } = request;
        let duration = started_at.elapsed();
        self.metrics.observe_request(route, method, status, duration);
        if let Some(log) = &self.access_log {
            let (path, user) = (path.as_deref().unwrap_or("-"), user.as_deref());
            log.write(&AccessRecord { peer, user, method, path, status, bytes, duration, id }, on_block);
        }
    }
}

impl RequestLog {
    /// Starts the clock of a request whose head is not known yet, and assigns an id to it.
    pub(super) fn new(observability: &Observability, peer: Peer) -> Self {
        let id = hex::encode(observability.next_request_id.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let (started_at, is_logged) = (Instant::now(), observability.access_log.is_some());
        Self { id, user: None, peer, started_at, method: "-", route: "-", path: None, is_logged }
    }

    /// Sets method and path from the head. `id` is the request id that the client chose.
    pub(super) fn set_request(&mut self, request: &Request, id: Option<String>) {
        self.method = request.method.as_str();
        self.route = request.route.name();
        self.path = self.is_logged.then(|| request.route.redacted_path());
        if let Some(id) = id {
            self.id = id;
        }
    }
}
