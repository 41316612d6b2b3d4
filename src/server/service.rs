//! What the door asks: probes, the hot cache, then the engine. It answers before the store is open, and never panics.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::api::{self, Health, Method, Own, Reply, Request};
use super::budget::{Budget, Reservation};
use super::cache::Cache;
use super::engine::{self, Engine};
use super::log::{AccessLog, Entry, Peer};
use super::metrics::Metrics;
use super::rights::{Rights, Verdict};
use super::scrub::Scrub;
use super::turns::{self, Turn, Turns};
use super::{Error, note};
use crate::digest::Digest;
use crate::messages::Messages;

/// Everything behind the door.
pub(super) struct Service {
    open: OnceLock<Open>,
    draining: AtomicBool,
    /// How much damage the last verification found.
    damaged: Arc<AtomicU64>,
    cache: Cache,
    budget: Budget,
    rights: Rights,
    metrics: Metrics,
    /// Whether the metrics are shown at an address of their own, thus nowhere else.
    metrics_apart: bool,
    /// Whether there is a page for people.
    has_page: bool,
    log: Option<AccessLog>,
    turns: Turns,
    /// When the certificate expires, in seconds since 1970.
    not_after: AtomicU64,
    /// What ids of requests begin with, and how many there were.
    ids: (u32, AtomicU64),
}

/// What a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Where messages are put and got.
    Public,
    /// Where only the metrics and the probes are.
    Metrics,
    /// Where those come who have the store's files anyway: they may do all that is done.
    Local,
}

/// What is written down of a request.
pub(super) struct Trace {
    pub(super) id: String,
    /// The name of the token on whose word it is carried out.
    pub(super) user: Option<String>,
    began: Instant,
    method: &'static str,
    route: &'static str,
    path: Option<String>,
    is_logged: bool,
}

impl Trace {
    /// A request begins, of which nothing is known yet.
    pub(super) fn new(service: &Service) -> Self {
        let (first, count) = (service.ids.0, service.ids.1.fetch_add(1, Ordering::Relaxed));
        let (began, is_logged) = (Instant::now(), service.log.is_some());
        let id = format!("{first:08x}{count:08x}");
        Self { id, user: None, began, method: "-", route: "-", path: None, is_logged }
    }

    /// Its head is there, and what the client calls it.
    pub(super) fn asks(&mut self, request: &Request, id: Option<String>) {
        self.method = request.method.as_str();
        self.route = api::route_name(&request.path);
        self.path = self.is_logged.then(|| api::logged_path(&request.path));
        if let Some(id) = id {
            self.id = id;
        }
    }
}

struct Open {
    engine: RwLock<Arc<Engine>>,
    messages: Arc<dyn Messages>,
}

impl Open {
    fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a new engine in the place of one that ended: tiny_http's acceptor does when descriptors run out.
    fn replace(&self, ended: &Arc<Engine>) {
        let mut engine = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&engine, ended) {
            return;
        }
        match Engine::start(Arc::clone(&self.messages)) {
            Ok(new) => {
                note("the engine had ended and is started anew");
                *engine = Arc::new(new);
            }
            Err(error) => note(format_args!("the engine has ended and does not start, trying on: {error}")),
        }
    }

    /// How long a message is, 0 if it is absent. What cannot be told counts as long.
    fn length(&self, digest: Digest) -> u64 {
        match catch_unwind(AssertUnwindSafe(|| self.messages.length(digest))) {
            Ok(Ok(length)) => length.unwrap_or(0),
            _ => u64::MAX,
        }
    }
}

/// A reply, and the memory that it takes.
pub(super) struct Answer {
    pub(super) reply: Arc<Reply>,
    _held: Option<Reservation>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply: Arc::new(reply), _held: None }
    }
}

impl Service {
    /// Not open yet, with a hot cache of `cache_size` bytes.
    pub(super) fn new(cache_size: u64, budget: Budget, rights: Rights, log: Option<AccessLog>, apart: bool) -> Self {
        // Random enough to tell one run from another.
        #[allow(clippy::cast_possible_truncation, reason = "some of the bits will do")]
        let first = RandomState::new().build_hasher().finish() as u32;
        Self {
            open: OnceLock::new(),
            draining: AtomicBool::new(false),
            damaged: Arc::default(),
            cache: Cache::new(cache_size),
            budget,
            rights,
            metrics: Metrics::default(),
            metrics_apart: apart,
            has_page: false,
            log,
            turns: Turns::default(),
            not_after: AtomicU64::new(0),
            ids: (first, AtomicU64::new(0)),
        }
    }

    /// The same, with a page for people or without.
    pub(super) fn with_page(self, has_page: bool) -> Self {
        Self { has_page, ..self }
    }

    /// What is counted.
    pub(super) const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// When the certificate expires, in seconds since 1970.
    pub(super) fn expires(&self, not_after: u64) {
        self.not_after.store(not_after, Ordering::Relaxed);
    }

    /// A request is over: it is counted and written down.
    pub(super) fn observe(&self, trace: &Trace, peer: Peer, status: u16, bytes: u64) {
        let &Trace { ref id, ref user, began, method, route, ref path, .. } = trace;
        let time = began.elapsed();
        self.metrics.request(route, method, status, time);
        if let Some(log) = &self.log {
            let (path, user) = (path.as_deref().unwrap_or("-"), user.as_deref());
            log.write(&Entry { peer, user, method, path, status, bytes, time, id });
        }
    }

    /// From now on, `messages` are served.
    pub(super) fn open(&self, messages: Arc<dyn Messages>) -> Result<(), Error> {
        let engine = Engine::start(Arc::clone(&messages));
        let engine = engine.map_err(|error| Error::Io("starting the engine".into(), error))?;
        let engine = RwLock::new(Arc::new(engine));
        // Opened once: a second time would change nothing.
        let _ = self.open.set(Open { engine, messages });
        Ok(())
    }

    /// From now on, the server says that it is not ready.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Verifies the store once an `interval`, until what comes back is dropped; `None` while it is not open.
    pub(super) fn scrub(&self, interval: Duration) -> io::Result<Option<Scrub>> {
        let damaged = Arc::clone(&self.damaged);
        let start = |open: &Open| {
            Scrub::start(Arc::clone(&open.messages), interval, move |found| damaged.store(found, Ordering::Relaxed))
        };
        self.open.get().map(start).transpose()
    }

    /// What bodies may take.
    pub(super) const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Reads the token file again, if it has changed or `always`; then the log file is opened anew, too.
    pub(super) fn refresh(&self, always: bool) {
        if let Some(log) = self.log.as_ref().filter(|_| always) {
            log.reopen();
        }
        if let Some(tokens) = self.rights.tokens() {
            tokens.refresh(always);
        }
    }

    /// Whether `request`, of which only the head is there, may be carried out: for who holds the token of this digest.
    pub(super) fn decide(&self, request: &Request, token: Option<Digest>, side: Side) -> Verdict {
        // It holds nothing, so it is for everyone, and there before the store is open.
        if let Some(page) = Some(request).filter(|_| self.has_page && side != Side::Metrics).and_then(api::page) {
            return Err(page);
        }
        let scope = api::scope(request, self.rights.offered())?;
        let own = api::own(request);
        match (side, own) {
            (Side::Local, _) | (Side::Metrics, Some(_)) => return Ok(None),
            (Side::Public, Some(Own::Metrics)) if !self.metrics_apart => {
                // What the server counts is for everyone where nobody has to show a token.
                if self.rights.tokens().is_none() {
                    return Ok(None);
                }
            }
            (Side::Metrics, None) | (Side::Public, Some(Own::Metrics)) => return Err(Reply::error(404, "Not found")),
            (Side::Public, _) => {}
        }
        match scope {
            Some(scope) => self.rights.decide(scope, token),
            None => Ok(None),
        }
    }

    /// The reply that `request` gets without its body, if it can be told before the body is read. `length` is how long
    /// the client says that it is.
    pub(super) fn settle(&self, request: &Request, length: Option<u64>) -> Option<Reply> {
        if let Some(reply) = api::refusal(request) {
            return Some(reply);
        }
        let Some(open) = self.open.get() else { return api::own(request).is_none().then(api::not_yet) };
        let mut memory = self.budget.nothing();
        if request.method != Method::Put || !memory.grow(turns::LONG) {
            return None;
        }
        let known = || api::known(request, length, turns::LONG, &*open.messages);
        catch_unwind(AssertUnwindSafe(known)).ok().flatten()
    }

    /// The reply to `request`.
    pub(super) fn answer(&self, request: Request) -> Answer {
        // Probes do not wait for an engine that may be busy: that would have a healthy server restarted.
        if let Some(own) = api::own(&request) {
            return api::own_answer(own, || self.health(), || self.metrics_text()).into();
        }
        let Some(open) = self.open.get() else { return api::not_yet().into() };
        // Whoever asks was found entitled to it from the head (`decide`): the cache knows no rights.
        let subject = api::subject(&request);
        let kept = subject.as_ref().and_then(|subject| self.cache.find(subject));
        if subject.is_some() {
            self.metrics.cache(kept.is_some());
        }
        if let Some(reply) = kept {
            return Answer { reply, _held: None };
        }
        let asked = self.cache.now();
        let removals = api::removals(&request);
        let is_get = request.method == Method::Get;
        let Ok(_turn) = self.turn(&request, open) else { return busy().into() };
        let engine = open.engine();
        let asked_for = engine.ask(request, &self.budget);
        // Whatever came of it, and before it is said: who reads from now on reads what the store has.
        for digest in removals {
            self.cache.forget(digest);
        }
        if !engine.is_sound() {
            open.replace(&engine);
        }
        match asked_for {
            Ok((reply, held)) => {
                let reply = Arc::new(reply);
                if let Some(subject) = subject.filter(|_| is_get && reply.is_immutable()) {
                    self.cache.keep(subject, &reply, asked);
                }
                Answer { reply, _held: Some(held) }
            }
            Err(engine::Error::Io(error)) => {
                note(format_args!("the engine broke off: {error}"));
                Reply::error(500, "Internal server error").into()
            }
            Err(engine::Error::Busy | engine::Error::NoMemory) => busy().into(),
        }
    }

    /// The turn that `request` takes if it reads something long; an error if none came free.
    fn turn(&self, request: &Request, open: &Open) -> Result<Option<Turn<'_>>, ()> {
        let is_long = |digest| open.length(digest) > turns::LONG;
        match api::is_heavy(request) || api::target(request).is_some_and(is_long) {
            true => self.turns.take().map(Some).ok_or(()),
            false => Ok(None),
        }
    }

    fn metrics_text(&self) -> String {
        let stats = |open: &Open| catch_unwind(AssertUnwindSafe(|| open.messages.stats().ok())).ok().flatten();
        let not_after = Some(self.not_after.load(Ordering::Relaxed)).filter(|time| *time > 0);
        self.metrics.text(self.open.get().and_then(stats).as_ref(), not_after)
    }

    fn health(&self) -> Health {
        if self.draining.load(Ordering::Relaxed) {
            return Health::Draining;
        }
        let Some(open) = self.open.get() else { return Health::Opening };
        if !open.engine().is_sound() {
            return Health::Failed;
        }
        match catch_unwind(AssertUnwindSafe(|| api::health(&*open.messages))).unwrap_or(Health::Failed) {
            Health::Ready if self.damaged.load(Ordering::Relaxed) > 0 => Health::Damaged,
            health => health,
        }
    }
}

/// What a request gets that there is no room for now.
pub(super) fn busy() -> Reply {
    Reply::error(503, "The server is busy").with("Retry-After", "1")
}

#[cfg(test)]
mod tests {
    use super::super::rights::Scopes;
    use super::super::testing::Memory;
    use super::*;

    #[test]
    fn an_engine_that_ended_is_replaced_by_the_request_that_finds_it() {
        let rights = Rights::new(Scopes::ALL, None);
        let service = Service::new(0, Budget::new(1 << 20), rights, None, false);
        let engine = RwLock::new(Arc::new(engine::tests::ended()));
        assert!(service.open.set(Open { engine, messages: Arc::new(Memory::default()) }).is_ok());
        let ask = || service.answer(Request::new(Method::Get, &format!("/messages/{}", Digest::of(b"")))).reply.status;
        assert_eq!(service.health(), Health::Failed);
        assert_eq!(ask(), 503);
        assert_eq!((ask(), service.health()), (404, Health::Ready));
    }
}
