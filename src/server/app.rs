//! What the door asks: probes, the hot cache, then the engine. It answers before the store is open, and never panics.

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
use super::api::{self, BuiltinRoute, Method, Request, Response};
use super::auth::{AuthorizationResult, Authorizer};
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

/// Everything behind the door.
pub(super) struct App {
    store: OnceLock<OpenStore>,
    /// Whether every door is open, too.
    ready: AtomicBool,
    draining: AtomicBool,
    /// How much damage the last verification found.
    damage_count: Arc<AtomicU64>,
    cache: HotCache,
    budget: Budget,
    authorizer: Authorizer,
    metrics: Arc<Metrics>,
    /// Whether the metrics are shown at an address of their own, thus nowhere else.
    metrics_separate: bool,
    /// Whether there is a page for people.
    ui_enabled: bool,
    access_log: Option<AccessLog>,
    large_read_permits: Semaphore,
    put_coalescer: PutCoalescer,
    /// When the certificate expires, in seconds since 1970.
    not_after: AtomicU64,
    /// What the next request is called.
    next_request_id: AtomicU64,
}

/// What a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndpointKind {
    /// Where messages are put and got.
    Public,
    /// Where only the metrics and the probes are.
    Metrics,
    /// Where those come who have the store's files anyway: they may do all that is done.
    Local,
}

/// A reply, and the memory that it takes.
pub(super) struct OutgoingResponse {
    pub(super) response: Arc<Response>,
    _reservation: Option<Reservation>,
}

impl From<Response> for OutgoingResponse {
    fn from(reply: Response) -> Self {
        Self { response: Arc::new(reply), _reservation: None }
    }
}

impl App {
    /// Not open yet, with a hot cache of `cache_size` bytes.
    pub(super) fn new(
        cache_size: u64,
        budget: Budget,
        rights: Authorizer,
        log: Option<AccessLog>,
        metrics_separate: bool,
    ) -> Self {
        // Its first half is random enough to tell one run from another.
        let first = RandomState::new().build_hasher().finish() << 32;
        Self {
            store: OnceLock::new(),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            damage_count: Arc::default(),
            cache: HotCache::new(cache_size),
            budget,
            authorizer: rights,
            metrics: Arc::default(),
            metrics_separate,
            ui_enabled: false,
            access_log: log,
            large_read_permits: Semaphore::new(dispatch::MAX_LARGE_READS, dispatch::PERMIT_TIMEOUT),
            put_coalescer: PutCoalescer::default(),
            not_after: AtomicU64::new(0),
            next_request_id: AtomicU64::new(first),
        }
    }

    /// The same, with a page for people or without.
    pub(super) fn with_ui_enabled(self, has_page: bool) -> Self {
        Self { ui_enabled: has_page, ..self }
    }

    /// What is counted.
    pub(super) const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// From now on, `messages` are served.
    pub(super) fn attach_store(&self, messages: Arc<dyn MessageStore>) -> Result<(), Error> {
        let engine = Engine::start(Arc::clone(&messages));
        let engine = engine.map_err(|error| Error::Io("starting the engine".into(), error))?;
        let engine = RwLock::new(Arc::new(engine));
        // Opened once: a second time would change nothing.
        let _ = self.store.set(OpenStore { engine, messages });
        Ok(())
    }

    /// What bodies may take.
    pub(super) const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Reads the token file again, if it has changed or `always`; then the log file is opened anew, too.
    pub(super) fn reload(&self, always: bool) {
        if let Some(log) = self.access_log.as_ref().filter(|_| always) {
            log.reopen();
        }
        if let Some(tokens) = self.authorizer.token_file() {
            tokens.reload(always);
        }
    }

    /// Whether `request`, of which only the head is there, may be carried out: for who holds the token of this digest.
    pub(super) fn authorize(
        &self,
        request: &Request,
        token: Option<Digest>,
        side: EndpointKind,
    ) -> AuthorizationResult {
        // It holds nothing, so it is for everyone, and there before the store is open.
        if let Some(page) =
            Some(request).filter(|_| self.ui_enabled && side != EndpointKind::Metrics).and_then(api::ui_response)
        {
            return Err(page);
        }
        let scope = api::required_scope(request, self.authorizer.enabled())?;
        let own = api::builtin_route(request);
        match (side, own) {
            (EndpointKind::Local, _) | (EndpointKind::Metrics, Some(_)) => return Ok(None),
            (EndpointKind::Public, Some(BuiltinRoute::Metrics)) if !self.metrics_separate => {
                // What the server counts is for everyone where nobody has to show a token.
                if self.authorizer.token_file().is_none() {
                    return Ok(None);
                }
            }
            (EndpointKind::Metrics, None) | (EndpointKind::Public, Some(BuiltinRoute::Metrics)) => {
                return Err(Response::error(404, "Not found"));
            }
            (EndpointKind::Public, _) => {}
        }
        match scope {
            Some(scope) => self.authorizer.authorize(scope, token),
            None => Ok(None),
        }
    }

    /// The reply that `request` gets without its body, if it can be told before the body is read. `length` is how long
    /// the client says that it is.
    pub(super) fn early_response(&self, request: &Request, length: Option<u64>) -> Option<Response> {
        if let Some(reply) = api::early_error(request) {
            return Some(reply);
        }
        let Some(open) = self.store.get() else {
            return api::builtin_route(request).is_none().then(api::store_not_open);
        };
        let mut memory = self.budget.reserve();
        if request.method != Method::Put || !memory.try_grow(dispatch::LARGE_MESSAGE) {
            return None;
        }
        let known = || api::already_stored(request, length, dispatch::LARGE_MESSAGE, &*open.messages);
        catch_unwind(AssertUnwindSafe(known)).ok().flatten()
    }

    /// The reply to `request` if it is in the hot cache: nothing is waited for.
    pub(super) fn cached_response(&self, request: &Request) -> Option<OutgoingResponse> {
        self.store.get()?;
        // Whoever asks was found entitled to it from the head (`decide`): the cache knows no rights.
        let kept = self.cache.get(&api::cache_key(request)?);
        self.metrics.observe_cache_lookup(kept.is_some());
        kept.map(|reply| OutgoingResponse { response: reply, _reservation: None })
    }

    /// The reply to `request`, if it is not in the [hot cache](Self::cached_response).
    pub(super) fn handle(&self, request: Request) -> OutgoingResponse {
        // Probes do not wait for an engine that may be busy: that would have a healthy server restarted.
        if let Some(own) = api::builtin_route(&request) {
            return api::builtin_response(own, || self.health(), || self.encode_metrics()).into();
        }
        let Some(open) = self.store.get() else { return api::store_not_open().into() };
        let subject = api::cache_key(&request);
        let asked = self.cache.generation();
        let removals = api::invalidated_digests(&request);
        let is_get = request.method == Method::Get;
        let Ok(_turn) = self.acquire_read_permit(&request, open) else { return service_unavailable().into() };
        let answer = self.dispatch(request, open);
        // Whatever came of it, and before it is said: who reads from now on reads what the store has.
        for digest in removals {
            self.cache.invalidate(digest);
        }
        if let Some(subject) = subject.filter(|_| is_get && answer.response.is_immutable()) {
            self.cache.insert_if_current(subject, &answer.response, asked);
        }
        answer
    }
}

/// The reply to a put that went together with others, and is stored.
pub(super) fn put_response(digest: Digest) -> OutgoingResponse {
    api::coalesce::put_response(digest).into()
}

/// What a request gets that there is no room for now.
pub(super) fn service_unavailable() -> Response {
    Response::error(503, "The server is busy").with_header("Retry-After", "1")
}

#[cfg(test)]
mod tests {
    use super::super::api::Health;
    use super::super::auth::Scopes;
    use super::super::engine;
    use super::*;
    use crate::testing::MemoryStore;

    #[test]
    fn the_server_is_ready_once_the_store_and_all_endpoints_are_open() {
        let service = App::new(0, Budget::new(1 << 20), Authorizer::new(Scopes::ALL, None), None, false);
        assert_eq!(service.health(), Health::Opening);
        service.attach_store(Arc::new(MemoryStore::default())).unwrap();
        assert_eq!(service.health(), Health::Opening, "there is the local door still");
        service.mark_ready();
        assert_eq!(service.health(), Health::Ready);
        service.mark_draining();
        assert_eq!(service.health(), Health::Draining);
    }

    #[test]
    fn a_dead_engine_is_restarted_by_the_next_request() {
        let rights = Authorizer::new(Scopes::ALL, None);
        let service = App::new(0, Budget::new(1 << 20), rights, None, false);
        let engine = RwLock::new(Arc::new(engine::tests::dead_engine()));
        assert!(service.store.set(OpenStore { engine, messages: Arc::new(MemoryStore::default()) }).is_ok());
        let ask = || {
            service.handle(Request::new(Method::Get, &format!("/messages/{}", Digest::compute(b"")))).response.status
        };
        service.mark_ready();
        assert_eq!(service.health(), Health::Failed);
        assert_eq!(ask(), 503);
        assert_eq!((ask(), service.health()), (404, Health::Ready));
    }
}
