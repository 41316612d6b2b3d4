//! The phase of a server's life and the damage found in its store, as the probes report them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::open_store::OpenStore;
use crate::server::api::{self, Health};

/// State that the probes report.
#[derive(Default)]
pub(in crate::server) struct Status {
    /// All endpoints accept connections.
    ready: AtomicBool,
    draining: AtomicBool,
    /// Number of damaged places that the last background verification found.
    pub(super) damage_count: Arc<AtomicU64>,
}

impl Status {
    /// Makes `/readyz` report that the server is ready. Must be called after all endpoints were started.
    pub(in crate::server) fn mark_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Makes `/readyz` report that the server is shutting down.
    pub(in crate::server) fn mark_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Returns the state that `/readyz` reports. A read-only store is healthy only if `writable` is `false`.
    pub(super) fn health(&self, store: Option<&OpenStore>, writable: bool) -> Health {
        if self.draining.load(Ordering::Relaxed) {
            return Health::Draining;
        }
        if !self.ready.load(Ordering::Relaxed) {
            return Health::Opening;
        }
        let Some(open) = store else { return Health::Opening };
        if !open.engine().is_alive() {
            return Health::Failed;
        }
        let health = catch_unwind(AssertUnwindSafe(|| api::health(&*open.store, writable)));
        match health.unwrap_or(Health::Failed) {
            Health::Ready if self.damage_count.load(Ordering::Relaxed) > 0 => Health::Damaged,
            health => health,
        }
    }
}
