//! The open store and the engine in front of it. An engine that stopped is replaced.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};

use crate::digest::Digest;
use crate::message_store::MessageStore;
use crate::server::engine::Engine;
use crate::server::warn;

/// An open store with a running engine.
pub(super) struct OpenStore {
    pub(super) engine: RwLock<Arc<Engine>>,
    pub(super) store: Arc<dyn MessageStore>,
}

impl OpenStore {
    /// Returns the current engine.
    pub(super) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the engine, unless another thread has already replaced `stopped`.
    pub(super) fn restart_engine(&self, stopped: &Arc<Engine>) {
        let mut engine = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&engine, stopped) {
            return;
        }
        match Engine::start(Arc::clone(&self.store)) {
            Ok(new) => {
                warn("the engine stopped and was restarted");
                *engine = Arc::new(new);
            }
            Err(error) => {
                warn(format_args!("the engine stopped and cannot be restarted: {error}; the next request tries again"))
            }
        }
    }

    /// Returns the size of a message in bytes: 0 if it is absent, `u64::MAX` if the store fails.
    pub(super) fn message_size(&self, digest: Digest) -> u64 {
        match catch_unwind(AssertUnwindSafe(|| self.store.size(digest))) {
            Ok(Ok(size)) => size.unwrap_or(0),
            _ => u64::MAX,
        }
    }
}
