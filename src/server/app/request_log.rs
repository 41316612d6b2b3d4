//! Data of one request for the access log and the metrics, collected from its first byte until its response is sent.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::App;
use crate::server::access_log::{AccessRecord, Peer};
use crate::server::api::Request;

/// Data of one request for the access log and the metrics.
pub(in crate::server) struct RequestLog {
    pub(in crate::server) id: String,
    /// Name of the token; `None`: anonymous.
    pub(in crate::server) user: Option<String>,
    pub(in crate::server) peer: Peer,
    started_at: Instant,
    method: &'static str,
    route: &'static str,
    path: Option<String>,
    is_logged: bool,
}

impl RequestLog {
    /// Starts the clock of a request whose head is not known yet, and assigns an id to it.
    pub(in crate::server) fn new(app: &App, peer: Peer) -> Self {
        let id = hex::encode(app.next_request_id.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let (started_at, is_logged) = (Instant::now(), app.access_log.is_some());
        Self { id, user: None, peer, started_at, method: "-", route: "-", path: None, is_logged }
    }

    /// Sets method and path from the head. `id` is the request id that the client chose.
    pub(in crate::server) fn set_request(&mut self, request: &Request, id: Option<String>) {
        self.method = request.method.as_str();
        self.route = request.route.name();
        self.path = self.is_logged.then(|| request.route.redacted_path());
        if let Some(id) = id {
            self.id = id;
        }
    }
}

impl App {
    /// Counts a completed request and writes it to the access log. `bytes` is the length of the response body.
    ///
    /// Calls `on_block` before it blocks on a log whose reader is slow.
    pub(in crate::server) fn record(&self, request: &RequestLog, status: u16, bytes: u64, on_block: impl FnOnce()) {
        let &RequestLog { ref id, ref user, peer, started_at, method, route, ref path, .. } = request;
        let duration = started_at.elapsed();
        self.metrics.observe_request(route, method, status, duration);
        if let Some(log) = &self.access_log {
            let (path, user) = (path.as_deref().unwrap_or("-"), user.as_deref());
            log.write(&AccessRecord { peer, user, method, path, status, bytes, duration, id }, on_block);
        }
    }
}
