//! State that the probes report, metrics, and the background verification.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{App, OpenStore};
use crate::server::api::{self, Health};
use crate::server::auth::Scope;
use crate::server::scrub::Scrub;

impl App {
    /// Sets the certificate's expiry, as Unix time in seconds; 0: unknown.
    pub(in crate::server) fn set_certificate_expiry(&self, not_after: u64) {
        self.not_after.store(not_after, Ordering::Relaxed);
    }

    /// Makes `/readyz` report that the server is ready. Must be called after all endpoints were started.
    pub(in crate::server) fn mark_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Makes `/readyz` report that the server is shutting down.
    pub(in crate::server) fn mark_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Starts a thread that verifies the store every `interval`, until the returned value is dropped.
    ///
    /// Returns `None` if the store is not open.
    pub(in crate::server) fn start_scrub(&self, interval: Duration) -> io::Result<Option<Scrub>> {
        let damage_count = Arc::clone(&self.damage_count);
        let start = |open: &OpenStore| {
            Scrub::start(Arc::clone(&open.store), interval, move |count| damage_count.store(count, Ordering::Relaxed))
        };
        self.store.get().map(start).transpose()
    }

    /// Returns the metrics as text.
    pub(super) fn encode_metrics(&self) -> String {
        let stats = |open: &OpenStore| catch_unwind(AssertUnwindSafe(|| open.store.stats().ok())).ok().flatten();
        let not_after = self.not_after.load(Ordering::Relaxed);
        self.metrics.encode(self.store.get().and_then(stats).as_ref(), (not_after > 0).then_some(not_after))
    }

    /// Returns the state that `/readyz` reports.
    pub(super) fn health(&self) -> Health {
        if self.draining.load(Ordering::Relaxed) {
            return Health::Draining;
        }
        if !self.ready.load(Ordering::Relaxed) {
            return Health::Opening;
        }
        let Some(open) = self.store.get() else { return Health::Opening };
        if !open.engine().is_alive() {
            return Health::Failed;
        }
        let is_writable = self.auth.enabled.contains(Scope::Write);
        let health = catch_unwind(AssertUnwindSafe(|| api::health(&*open.store, is_writable)));
        match health.unwrap_or(Health::Failed) {
            Health::Ready if self.damage_count.load(Ordering::Relaxed) > 0 => Health::Damaged,
            health => health,
        }
    }
}
