//! How the server is: whether it is ready, what is counted, and the verification that goes on beside it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Open, Service};
use crate::server::api::{self, Health};
use crate::server::rights::Scope;
use crate::server::scrub::Scrub;

impl Service {
    /// When the certificate expires, in seconds since 1970.
    pub(in crate::server) fn expires(&self, not_after: u64) {
        self.not_after.store(not_after, Ordering::Relaxed);
    }

    /// From now on, the server says that it is ready: every door is open, and whoever waited for that finds them all.
    pub(in crate::server) fn complete(&self) {
        self.complete.store(true, Ordering::Relaxed);
    }

    /// From now on, the server says that it is not ready.
    pub(in crate::server) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Verifies the store once an `interval`, until what comes back is dropped; `None` while it is not open.
    pub(in crate::server) fn scrub(&self, interval: Duration) -> io::Result<Option<Scrub>> {
        let damaged = Arc::clone(&self.damaged);
        let start = |open: &Open| {
            Scrub::start(Arc::clone(&open.messages), interval, move |found| damaged.store(found, Ordering::Relaxed))
        };
        self.open.get().map(start).transpose()
    }

    /// What `/metrics` says.
    pub(super) fn metrics_text(&self) -> String {
        let stats = |open: &Open| catch_unwind(AssertUnwindSafe(|| open.messages.stats().ok())).ok().flatten();
        let not_after = Some(self.not_after.load(Ordering::Relaxed)).filter(|time| *time > 0);
        self.metrics.text(self.open.get().and_then(stats).as_ref(), not_after)
    }

    /// What `/readyz` says.
    pub(super) fn health(&self) -> Health {
        if self.draining.load(Ordering::Relaxed) {
            return Health::Draining;
        }
        let is_complete = self.complete.load(Ordering::Relaxed);
        let Some(open) = self.open.get().filter(|_| is_complete) else { return Health::Opening };
        if !open.engine().is_sound() {
            return Health::Failed;
        }
        let is_written = self.rights.offered().hold(Scope::Write);
        let health = catch_unwind(AssertUnwindSafe(|| api::health(&*open.messages, is_written)));
        match health.unwrap_or(Health::Failed) {
            Health::Ready if self.damaged.load(Ordering::Relaxed) > 0 => Health::Damaged,
            health => health,
        }
    }
}
