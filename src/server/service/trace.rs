//! What is written down of a request: begun with its first byte, observed once its reply is sent.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Service;
use crate::server::api::{self, Request};
use crate::server::log::{Entry, Peer};

/// What is written down of a request.
pub(in crate::server) struct Trace {
    pub(in crate::server) id: String,
    /// The name of the token on whose word it is carried out.
    pub(in crate::server) user: Option<String>,
    /// Whose it is.
    pub(in crate::server) peer: Peer,
    began: Instant,
    method: &'static str,
    route: &'static str,
    path: Option<String>,
    is_logged: bool,
}

impl Trace {
    /// A request begins, of which nothing is known yet.
    pub(in crate::server) fn new(service: &Service, peer: Peer) -> Self {
        let id = hex::encode(service.ids.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let (began, is_logged) = (Instant::now(), service.log.is_some());
        Self { id, user: None, peer, began, method: "-", route: "-", path: None, is_logged }
    }

    /// Its head is there, and what the client calls it.
    pub(in crate::server) fn asks(&mut self, request: &Request, id: Option<String>) {
        self.method = request.method.as_str();
        self.route = api::route_name(&request.path);
        self.path = self.is_logged.then(|| api::logged_path(&request.path));
        if let Some(id) = id {
            self.id = id;
        }
    }
}

impl Service {
    /// A request is over: it is counted and written down. If the log has to be waited for, `before_wait` comes first.
    pub(in crate::server) fn observe(&self, trace: &Trace, status: u16, bytes: u64, before_wait: impl FnOnce()) {
        let &Trace { ref id, ref user, peer, began, method, route, ref path, .. } = trace;
        let time = began.elapsed();
        self.metrics.request(route, method, status, time);
        if let Some(log) = &self.log {
            let (path, user) = (path.as_deref().unwrap_or("-"), user.as_deref());
            log.write(&Entry { peer, user, method, path, status, bytes, time, id }, before_wait);
        }
    }
}
