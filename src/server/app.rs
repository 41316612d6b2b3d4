//! State and request pipeline of a server: hot cache, put coalescer, engine. It answers probes before the store is open.
//! A request cannot make it panic.

mod open_store;
mod slow_requests;
mod status;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::api::{self, Method, Response, Route};
use super::auth::{Auth, Authorized, Scope};
use super::budget::Budget;
use super::cache::HotCache;
use super::coalescer::{BatchLeader, Completion, Enqueued, PutCoalescer};
use super::error::Error;
use super::observability::Observability;
use super::scrub::Scrub;
use crate::digest::Digest;
use crate::message_store::MessageStore;
use open_store::OpenStore;
pub(super) use open_store::OutgoingResponse;
use slow_requests::SlowRequests;
use status::Status;

/// State that all endpoints share.
pub(super) struct App {
    pub(super) auth: Auth,
    pub(super) observability: Observability,
    pub(super) status: Status,
    store: OnceLock<OpenStore>,
    cache: HotCache,
    budget: Budget,
    slow_requests: SlowRequests,
    put_coalescer: PutCoalescer,
}

impl App {
    /// Creates the state without a store. The hot cache holds up to `cache_size` bytes, and all request and response
    /// bodies together as many as `budget` allows.
    pub(super) fn new(cache_size: u64, budget: Budget, auth: Auth, observability: Observability) -> Self {
        Self {
            auth,
            observability,
            status: Status::default(),
            store: OnceLock::new(),
            cache: HotCache::new(cache_size),
            budget,
            slow_requests: SlowRequests::default(),
            put_coalescer: PutCoalescer::default(),
        }
    }

    /// Starts the engine over `store`. Requests are served from then on.
    pub(super) fn attach_store(&self, store: Arc<dyn MessageStore>) -> Result<(), Error> {
        // The store is attached only once, so `set` cannot fail.
        let _ = self.store.set(OpenStore::start(store)?);
        Ok(())
    }

    /// Starts a thread that verifies the store every `interval`, until the returned value is dropped.
    ///
    /// Returns `None` if the store is not open.
    pub(super) fn start_scrub(&self, interval: Duration) -> io::Result<Option<Scrub>> {
        let Some(open) = self.store.get() else { return Ok(None) };
        let damage_count = Arc::clone(&self.status.damage_count);
        let on_damage_count = move |count| damage_count.store(count, Ordering::Relaxed);
        Scrub::start(Arc::clone(&open.store), interval, on_damage_count).map(Some)
    }

    /// Returns the memory budget of request and response bodies.
    pub(super) const fn budget(&self) -> &Budget {
        &self.budget
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
        if request.method != Method::Put || !reservation.try_grow(slow_requests::LARGE) {
            return None;
        }
        let already_stored = || api::already_stored(request, length, slow_requests::LARGE, &*open.store);
        catch_unwind(AssertUnwindSafe(already_stored)).ok().flatten()
    }

    /// Returns the response to `request` from the hot cache. Never blocks on I/O.
    pub(super) fn cached_response(&self, request: &Authorized) -> Option<OutgoingResponse> {
        self.store.get()?;
        let cached = self.cache.get(&api::cache_key(request.request())?);
        match &cached {
            Some(_) => self.observability.metrics.cache_hit(),
            None => self.observability.metrics.cache_miss(),
        }
        cached.map(OutgoingResponse::from)
    }

    /// Returns the batch line of a put that can be coalesced with others.
    pub(super) fn batch_line(&self, request: &Authorized) -> Option<Vec<u8>> {
        self.store.get()?;
        request.batch_line()
    }

    /// Adds a put to the open batch. `completion` must not block.
    pub(super) fn enqueue_put(&self, line: &[u8], completion: Completion) -> Enqueued<'_> {
        self.put_coalescer.enqueue(line, completion)
    }

    /// Executes the batch of `leader` as one request and completes its members. While another batch is in flight, blocks
    /// until a timeout.
    pub(super) fn run_batch(&self, mut leader: BatchLeader<'_>) {
        if let Some(lines) = leader.seal()
            && let Some(open) = self.store.get()
        {
            let outgoing = open.dispatch(Authorized::batch(lines), &self.budget);
            leader.complete(api::coalesce::parse_batch_response(&outgoing.response));
        }
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
        let Ok(_permit) = self.slow_requests.admit(request, |digest| open.message_size(digest)) else {
            return api::service_unavailable().into();
        };
        let outgoing = open.dispatch(authorized, &self.budget);
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

    fn health(&self) -> api::Health {
        self.status.health(self.store.get(), self.auth.enabled.contains(Scope::Write))
    }

    fn encode_metrics(&self) -> String {
        let stats = |open: &OpenStore| catch_unwind(AssertUnwindSafe(|| open.store.stats().ok())).ok().flatten();
        self.observability.metrics.encode(self.store.get().and_then(stats).as_ref())
    }
}

/// Returns the response to a coalesced put whose message is stored.
pub(super) fn put_response(digest: Digest) -> OutgoingResponse {
    api::coalesce::put_response(digest).into()
}

#[cfg(test)]
#[path = "app/coalescing_tests.rs"]
mod coalescing_tests;

#[cfg(test)]
mod tests {
    use super::super::api::{Health, Request};
    use super::super::engine;
    use super::*;
    use crate::testing::MemoryStore;

    fn app() -> App {
        App::new(0, Budget::new(1 << 20), Auth::for_test(), Observability::new(None))
    }

    #[test]
    fn the_server_is_ready_once_the_store_and_all_endpoints_are_open() {
        let app = app();
        assert_eq!(app.health(), Health::Opening);
        app.attach_store(Arc::new(MemoryStore::default())).unwrap();
        assert_eq!(app.health(), Health::Opening, "the local endpoint is not open yet");
        app.status.mark_ready();
        assert_eq!(app.health(), Health::Ready);
        app.status.mark_draining();
        assert_eq!(app.health(), Health::Draining);
    }

    #[test]
    fn a_dead_engine_is_restarted_by_the_next_request() {
        let app = app();
        let engine = std::sync::RwLock::new(Arc::new(engine::tests::dead_engine()));
        assert!(app.store.set(OpenStore { engine, store: Arc::new(MemoryStore::default()) }).is_ok());
        let get_absent = || {
            let request = Request::new(Method::Get, &format!("/messages/{}", Digest::compute(b"")));
            app.handle(Authorized::for_test(request)).response.status
        };
        app.status.mark_ready();
        assert_eq!(app.health(), Health::Failed);
        assert_eq!(get_absent(), 503);
        assert_eq!((get_absent(), app.health()), (404, Health::Ready));
    }
}
