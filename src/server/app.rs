//! State and request pipeline of a server: authorisation, probes, hot cache, engine. It answers probes before the store
//! is open. A request cannot make it panic.

mod dispatch;
mod health;
mod open_store;
mod request_log;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock, RwLock};

use super::Error;
use super::access_log::AccessLog;
use super::api::{self, Method, Response, Route};
use super::auth::{Auth, Authorized};
use super::budget::{Budget, Reservation};
use super::cache::HotCache;
use super::coalescer::PutCoalescer;
use super::engine::Engine;
use super::metrics::Metrics;
use super::semaphore::Semaphore;
use crate::digest::Digest;
use crate::message_store::MessageStore;
use open_store::OpenStore;
pub(super) use request_log::RequestLog;

/// State that all endpoints share.
pub(super) struct App {
    store: OnceLock<OpenStore>,
    /// All endpoints accept connections.
    ready: AtomicBool,
    draining: AtomicBool,
    /// Number of damaged places that the last background verification found.
    damage_count: Arc<AtomicU64>,
    cache: HotCache,
    budget: Budget,
    pub(super) auth: Auth,
    metrics: Arc<Metrics>,
    access_log: Option<AccessLog>,
    large_read_permits: Semaphore,
    large_body_permits: Semaphore,
    put_coalescer: PutCoalescer,
    /// Expiry of the certificate as Unix time in seconds; 0: unknown.
    not_after: AtomicU64,
    next_request_id: AtomicU64,
}

/// A response and the memory reserved for it.
pub(super) struct OutgoingResponse {
    pub(super) response: Arc<Response>,
    _reservation: Option<Reservation>,
}

impl From<Response> for OutgoingResponse {
    fn from(response: Response) -> Self {
        Self { response: Arc::new(response), _reservation: None }
    }
}

impl App {
    /// Creates the state without a store. The hot cache holds up to `cache_size` bytes.
    pub(super) fn new(cache_size: u64, budget: Budget, auth: Auth, access_log: Option<AccessLog>) -> Self {
        // The upper half is random, so that the request ids of two runs differ.
        let first_request_id = RandomState::new().build_hasher().finish() << 32;
        Self {
            store: OnceLock::new(),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            damage_count: Arc::default(),
            cache: HotCache::new(cache_size),
            budget,
            auth,
            metrics: Arc::default(),
            access_log,
            large_read_permits: Semaphore::new(dispatch::MAX_LARGE_READS, dispatch::PERMIT_TIMEOUT),
            large_body_permits: Semaphore::new(dispatch::MAX_LARGE_BODIES, dispatch::PERMIT_TIMEOUT),
            put_coalescer: PutCoalescer::default(),
            not_after: AtomicU64::new(0),
            next_request_id: AtomicU64::new(first_request_id),
        }
    }

    pub(super) const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Starts the engine over `store`. Requests are served from then on.
    pub(super) fn attach_store(&self, store: Arc<dyn MessageStore>) -> Result<(), Error> {
        let engine = Engine::start(Arc::clone(&store));
        let engine = engine.map_err(|error| Error::Io("cannot start the engine".into(), error))?;
        let engine = RwLock::new(Arc::new(engine));
        // The store is attached only once, so `set` cannot fail.
        let _ = self.store.set(OpenStore { engine, store });
        Ok(())
    }

    /// Returns the memory budget of request and response bodies.
    pub(super) const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Reopens the access log and reloads the token file.
    pub(super) fn reload(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
        if let Some(tokens) = &self.auth.token_file {
            tokens.reload();
        }
    }

    /// Reloads the token file if it changed. The access log stays open.
    pub(super) fn reload_if_changed(&self) {
        if let Some(tokens) = &self.auth.token_file {
            tokens.reload_if_changed();
        }
    }

    /// Returns a response that can be decided before the body is read: an error, or that the message is already stored.
    /// `length` is the announced length of the body in bytes.
    pub(super) fn early_response(&self, request: &Authorized, length: Option<u64>) -> Option<Response> {
        let request = request.request();
        if let Some(response) = api::early_error(request) {
            return Some(response);
        }
        let Some(open) = self.store.get() else {
            return (!matches!(request.route, Route::Builtin(_))).then(api::store_not_open);
        };
        let mut reservation = self.budget.reserve();
        if request.method != Method::Put || !reservation.try_grow(dispatch::LARGE_MESSAGE) {
            return None;
        }
        let already_stored = || api::already_stored(request, length, dispatch::LARGE_MESSAGE, &*open.store);
        catch_unwind(AssertUnwindSafe(already_stored)).ok().flatten()
    }

    /// Returns the response to `request` from the hot cache. Never blocks on I/O.
    pub(super) fn cached_response(&self, request: &Authorized) -> Option<OutgoingResponse> {
        self.store.get()?;
        let cached = self.cache.get(&api::cache_key(request.request())?);
        match &cached {
            Some(_) => self.metrics.cache_hit(),
            None => self.metrics.cache_miss(),
        }
        cached.map(|response| OutgoingResponse { response, _reservation: None })
    }

    /// Executes `request` without looking in the [hot cache](Self::cached_response).
    pub(super) fn handle(&self, authorized: Authorized) -> OutgoingResponse {
        let request = authorized.request();
        // Probes bypass the engine: a busy engine must not make a supervisor restart a healthy server.
        if let Route::Builtin(route) = request.route {
            return api::builtin_response(route, || self.health(), || self.encode_metrics()).into();
        }
        let Some(open) = self.store.get() else { return api::store_not_open().into() };
        let cache_key = api::cache_key(request);
        let generation = self.cache.generation();
        let invalidated = api::invalidated_digests(request);
        let is_get = request.method == Method::Get;
        let Ok(_permit) = self.acquire_permit(request, open) else { return service_unavailable().into() };
        let outgoing = self.dispatch(authorized, open);
        // Even if the removal failed, and before the client knows: later reads must see the store's state.
        for digest in invalidated {
            self.cache.invalidate(digest);
        }
        if let Some(key) = cache_key
            && is_get
            && outgoing.response.is_immutable()
        {
            self.cache.insert_if_current(key, &outgoing.response, generation);
        }
        outgoing
    }
}

/// Returns the response to a coalesced put whose message is stored.
pub(super) fn put_response(digest: Digest) -> OutgoingResponse {
    api::coalesce::put_response(digest).into()
}

/// Returns the 503 for a request that finds no memory, permit or connection.
pub(super) fn service_unavailable() -> Response {
    Response::error(503, "The server is busy").with_header("Retry-After", "1")
}

#[cfg(test)]
mod tests {
    use super::super::api::{Health, Request};
    use super::super::engine;
    use super::*;
    use crate::testing::MemoryStore;

    fn app() -> App {
        App::new(0, Budget::new(1 << 20), Auth::for_test(), None)
    }

    #[test]
    fn the_server_is_ready_once_the_store_and_all_endpoints_are_open() {
        let app = app();
        assert_eq!(app.health(), Health::Opening);
        app.attach_store(Arc::new(MemoryStore::default())).unwrap();
        assert_eq!(app.health(), Health::Opening, "the local endpoint is not open yet");
        app.mark_ready();
        assert_eq!(app.health(), Health::Ready);
        app.mark_draining();
        assert_eq!(app.health(), Health::Draining);
    }

    #[test]
    fn a_dead_engine_is_restarted_by_the_next_request() {
        let app = app();
        let engine = RwLock::new(Arc::new(engine::tests::dead_engine()));
        assert!(app.store.set(OpenStore { engine, store: Arc::new(MemoryStore::default()) }).is_ok());
        let get_absent = || {
            let request = Request::new(Method::Get, &format!("/messages/{}", Digest::compute(b"")));
            app.handle(Authorized::for_test(request)).response.status
        };
        app.mark_ready();
        assert_eq!(app.health(), Health::Failed);
        assert_eq!(get_absent(), 503);
        assert_eq!((get_absent(), app.health()), (404, Health::Ready));
    }
}
