//! What is written down of a request: begun with its first byte, observed once its reply is sent.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::App;
use crate::server::access_log::{AccessRecord, Peer};
use crate::server::api::{self, Request};

/// What is written down of a request.
pub(in crate::server) struct RequestLog {
    pub(in crate::server) id: String,
    /// The name of the token on whose word it is carried out.
    pub(in crate::server) user: Option<String>,
    /// Whose it is.
    pub(in crate::server) peer: Peer,
    started_at: Instant,
    method: &'static str,
    route: &'static str,
    path: Option<String>,
    is_logged: bool,
}

impl RequestLog {
    /// A request begins, of which nothing is known yet.
    pub(in crate::server) fn new(service: &App, peer: Peer) -> Self {
        let id = hex::encode(service.next_request_id.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let (began, is_logged) = (Instant::now(), service.access_log.is_some());
        Self { id, user: None, peer, started_at: began, method: "-", route: "-", path: None, is_logged }
    }

    /// Its head is there, and what the client calls it.
    pub(in crate::server) fn set_request(&mut self, request: &Request, id: Option<String>) {
        self.method = request.method.as_str();
        self.route = api::route_name(&request.path);
        self.path = self.is_logged.then(|| api::redacted_path(&request.path));
        if let Some(id) = id {
            self.id = id;
        }
    }
}

impl App {
    /// A request is over: it is counted and written down. If the log has to be waited for, `before_wait` comes first.
    pub(in crate::server) fn record(&self, trace: &RequestLog, status: u16, bytes: u64, on_block: impl FnOnce()) {
        let &RequestLog { ref id, ref user, peer, started_at: began, method, route, ref path, .. } = trace;
        let time = began.elapsed();
        self.metrics.observe_request(route, method, status, time);
        if let Some(log) = &self.access_log {
            let (path, user) = (path.as_deref().unwrap_or("-"), user.as_deref());
            log.write(&AccessRecord { peer, user, method, path, status, bytes, duration: time, id }, on_block);
        }
    }
}
