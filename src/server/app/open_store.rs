//! The open store and the engine in front of it. An engine that stopped is replaced.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};

use tracing::{error, warn};

use crate::digest::Digest;
use crate::message_store::MessageStore;
use crate::server::api::{self, Response};
use crate::server::auth::Authorized;
use crate::server::budget::{Budget, Reservation};
use crate::server::engine::{self, Engine};
use crate::server::error::Error;

/// An open store with a running engine.
pub(super) struct OpenStore {
    pub(super) engine: RwLock<Arc<Engine>>,
    pub(super) store: Arc<dyn MessageStore>,
}

/// A response and the memory reserved for it.
pub(in crate::server) struct OutgoingResponse {
    pub(in crate::server) response: Arc<Response>,
    _reservation: Option<Reservation>,
}

impl From<Response> for OutgoingResponse {
    fn from(response: Response) -> Self {
        Self::from(Arc::new(response))
    }
}

impl From<Arc<Response>> for OutgoingResponse {
    fn from(response: Arc<Response>) -> Self {
        Self { response, _reservation: None }
    }
}

impl OpenStore {
    /// Starts an engine over `store`.
    pub(super) fn start(store: Arc<dyn MessageStore>) -> Result<Self, Error> {
        let engine = Engine::start(&store);
        let engine = engine.map_err(|error| Error::Io("cannot start the engine".into(), error))?;
        Ok(Self { engine: RwLock::new(Arc::new(engine)), store })
    }

    /// Returns the current engine.
    pub(super) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends `request` to the engine and returns its response. Restarts the engine if it stopped.
    pub(super) fn dispatch(&self, request: Authorized, budget: &Budget) -> OutgoingResponse {
        let engine = self.engine();
        let outcome = engine.call(request, budget);
        if !engine.is_alive() {
            self.restart_engine(&engine);
        }
        match outcome {
            Ok((response, reservation)) => {
                OutgoingResponse { response: Arc::new(response), _reservation: Some(reservation) }
            }
            Err(engine::Error::Io(error)) => {
                warn!("engine request failed: {error}");
                Response::error(500, "Internal server error").into()
            }
            Err(engine::Error::Busy | engine::Error::OverBudget) => api::service_unavailable().into(),
        }
    }

    /// Replaces the engine, unless another thread has already replaced `stopped`.
    fn restart_engine(&self, stopped: &Arc<Engine>) {
        let mut engine = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&engine, stopped) {
            return;
        }
        match Engine::start(&self.store) {
            Ok(new) => {
                warn!("the engine stopped and was restarted");
                *engine = Arc::new(new);
            }
            Err(error) => {
                error!("the engine stopped and cannot be restarted: {error}; the next request tries again");
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
