//! What the door asks: probes, the hot cache, then the engine. It answers before the store is open, and never panics.

mod ask;
mod health;
mod open;
mod trace;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock, RwLock};

use super::Error;
use super::api::{self, Method, Own, Reply, Request};
use super::budget::{Budget, Reservation};
use super::cache::Cache;
use super::coalescer::PutCoalescer;
use super::engine::Engine;
use super::log::AccessLog;
use super::metrics::Metrics;
use super::rights::{Rights, Verdict};
use super::semaphore::Semaphore;
use crate::digest::Digest;
use crate::messages::Messages;
use open::Open;
pub(super) use trace::Trace;

/// Everything behind the door.
pub(super) struct Service {
    open: OnceLock<Open>,
    /// Whether every door is open, too.
    complete: AtomicBool,
    draining: AtomicBool,
    /// How much damage the last verification found.
    damaged: Arc<AtomicU64>,
    cache: Cache,
    budget: Budget,
    rights: Rights,
    metrics: Arc<Metrics>,
    /// Whether the metrics are shown at an address of their own, thus nowhere else.
    metrics_apart: bool,
    /// Whether there is a page for people.
    has_page: bool,
    log: Option<AccessLog>,
    turns: Semaphore,
    together: PutCoalescer,
    /// When the certificate expires, in seconds since 1970.
    not_after: AtomicU64,
    /// What the next request is called.
    ids: AtomicU64,
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

/// A reply, and the memory that it takes.
pub(super) struct Answer {
    pub(super) reply: Arc<Reply>,
    _reservation: Option<Reservation>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply: Arc::new(reply), _reservation: None }
    }
}

impl Service {
    /// Not open yet, with a hot cache of `cache_size` bytes.
    pub(super) fn new(cache_size: u64, budget: Budget, rights: Rights, log: Option<AccessLog>, apart: bool) -> Self {
        // Its first half is random enough to tell one run from another.
        let first = RandomState::new().build_hasher().finish() << 32;
        Self {
            open: OnceLock::new(),
            complete: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            damaged: Arc::default(),
            cache: Cache::new(cache_size),
            budget,
            rights,
            metrics: Arc::default(),
            metrics_apart: apart,
            has_page: false,
            log,
            turns: Semaphore::new(ask::LONG_AT_A_TIME, ask::PATIENCE),
            together: PutCoalescer::default(),
            not_after: AtomicU64::new(0),
            ids: AtomicU64::new(first),
        }
    }

    /// The same, with a page for people or without.
    pub(super) fn with_page(self, has_page: bool) -> Self {
        Self { has_page, ..self }
    }

    /// What is counted.
    pub(super) const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
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
        if request.method != Method::Put || !memory.grow(ask::LONG) {
            return None;
        }
        let known = || api::known(request, length, ask::LONG, &*open.messages);
        catch_unwind(AssertUnwindSafe(known)).ok().flatten()
    }

    /// The reply to `request` if it is in the hot cache: nothing is waited for.
    pub(super) fn at_hand(&self, request: &Request) -> Option<Answer> {
        self.open.get()?;
        // Whoever asks was found entitled to it from the head (`decide`): the cache knows no rights.
        let kept = self.cache.find(&api::subject(request)?);
        self.metrics.cache(kept.is_some());
        kept.map(|reply| Answer { reply, _reservation: None })
    }

    /// The reply to `request`, if it is not [at hand](Self::at_hand).
    pub(super) fn answer(&self, request: Request) -> Answer {
        // Probes do not wait for an engine that may be busy: that would have a healthy server restarted.
        if let Some(own) = api::own(&request) {
            return api::own_answer(own, || self.health(), || self.metrics_text()).into();
        }
        let Some(open) = self.open.get() else { return api::not_yet().into() };
        let subject = api::subject(&request);
        let asked = self.cache.now();
        let removals = api::removals(&request);
        let is_get = request.method == Method::Get;
        let Ok(_turn) = self.turn(&request, open) else { return busy().into() };
        let answer = self.ask(request, open);
        // Whatever came of it, and before it is said: who reads from now on reads what the store has.
        for digest in removals {
            self.cache.forget(digest);
        }
        if let Some(subject) = subject.filter(|_| is_get && answer.reply.is_immutable()) {
            self.cache.keep(subject, &answer.reply, asked);
        }
        answer
    }
}

/// The reply to a put that went together with others, and is stored.
pub(super) fn stored(digest: Digest) -> Answer {
    api::share::reply(digest).into()
}

/// What a request gets that there is no room for now.
pub(super) fn busy() -> Reply {
    Reply::error(503, "The server is busy").with("Retry-After", "1")
}

#[cfg(test)]
mod tests {
    use super::super::api::Health;
    use super::super::engine;
    use super::super::rights::Scopes;
    use super::*;
    use crate::testing::Memory;

    #[test]
    fn it_is_ready_once_the_store_and_all_doors_are_open() {
        let service = Service::new(0, Budget::new(1 << 20), Rights::new(Scopes::ALL, None), None, false);
        assert_eq!(service.health(), Health::Opening);
        service.open(Arc::new(Memory::default())).unwrap();
        assert_eq!(service.health(), Health::Opening, "there is the local door still");
        service.complete();
        assert_eq!(service.health(), Health::Ready);
        service.drain();
        assert_eq!(service.health(), Health::Draining);
    }

    #[test]
    fn an_engine_that_ended_is_replaced_by_the_request_that_finds_it() {
        let rights = Rights::new(Scopes::ALL, None);
        let service = Service::new(0, Budget::new(1 << 20), rights, None, false);
        let engine = RwLock::new(Arc::new(engine::tests::ended()));
        assert!(service.open.set(Open { engine, messages: Arc::new(Memory::default()) }).is_ok());
        let ask = || service.answer(Request::new(Method::Get, &format!("/messages/{}", Digest::of(b"")))).reply.status;
        service.complete();
        assert_eq!(service.health(), Health::Failed);
        assert_eq!(ask(), 503);
        assert_eq!((ask(), service.health()), (404, Health::Ready));
    }
}
