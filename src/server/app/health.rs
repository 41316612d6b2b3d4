//! How the server is: whether it is ready, what is counted, and the verification that goes on beside it.

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
    /// When the certificate expires, in seconds since 1970.
    pub(in crate::server) fn set_certificate_expiry(&self, not_after: u64) {
        self.not_after.store(not_after, Ordering::Relaxed);
    }

    /// From now on, the server says that it is ready: every door is open, and whoever waited for that finds them all.
    pub(in crate::server) fn mark_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// From now on, the server says that it is not ready.
    pub(in crate::server) fn mark_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Verifies the store once an `interval`, until what comes back is dropped; `None` while it is not open.
    pub(in crate::server) fn start_scrub(&self, interval: Duration) -> io::Result<Option<Scrub>> {
        let damaged = Arc::clone(&self.damage_count);
        let start = |open: &OpenStore| {
            Scrub::start(Arc::clone(&open.messages), interval, move |found| damaged.store(found, Ordering::Relaxed))
        };
        self.store.get().map(start).transpose()
    }

    /// What `/metrics` says.
    pub(super) fn encode_metrics(&self) -> String {
        let stats = |open: &OpenStore| catch_unwind(AssertUnwindSafe(|| open.messages.stats().ok())).ok().flatten();
        let not_after = Some(self.not_after.load(Ordering::Relaxed)).filter(|time| *time > 0);
        self.metrics.encode(self.store.get().and_then(stats).as_ref(), not_after)
    }

    /// What `/readyz` says.
    pub(super) fn health(&self) -> Health {
        if self.draining.load(Ordering::Relaxed) {
            return Health::Draining;
        }
        let is_complete = self.ready.load(Ordering::Relaxed);
        let Some(open) = self.store.get().filter(|_| is_complete) else { return Health::Opening };
        if !open.engine().is_alive() {
            return Health::Failed;
        }
        let is_written = self.authorizer.enabled().contains(Scope::Write);
        let health = catch_unwind(AssertUnwindSafe(|| api::health(&*open.messages, is_written)));
        match health.unwrap_or(Health::Failed) {
            Health::Ready if self.damage_count.load(Ordering::Relaxed) > 0 => Health::Damaged,
            health => health,
        }
    }
}
