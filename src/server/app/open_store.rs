//! The open store, and the engine in front of it: one that ended is replaced.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};

use crate::digest::Digest;
use crate::message_store::MessageStore;
use crate::server::engine::Engine;
use crate::server::warn;

/// What is there once the store is open.
pub(super) struct OpenStore {
    pub(super) engine: RwLock<Arc<Engine>>,
    pub(super) messages: Arc<dyn MessageStore>,
}

impl OpenStore {
    /// The engine that answers now.
    pub(super) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a new engine in the place of one that ended: tiny_http's acceptor does when descriptors run out.
    pub(super) fn restart_engine(&self, ended: &Arc<Engine>) {
        let mut engine = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&engine, ended) {
            return;
        }
        match Engine::start(Arc::clone(&self.messages)) {
            Ok(new) => {
                warn("the engine had ended and is started anew");
                *engine = Arc::new(new);
            }
            Err(error) => warn(format_args!("the engine has ended and does not start, trying on: {error}")),
        }
    }

    /// How long a message is, 0 if it is absent. What cannot be told counts as long.
    pub(super) fn length(&self, digest: Digest) -> u64 {
        match catch_unwind(AssertUnwindSafe(|| self.messages.size(digest))) {
            Ok(Ok(length)) => length.unwrap_or(0),
            _ => u64::MAX,
        }
    }
}
