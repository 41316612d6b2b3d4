//! What the door asks: probes, the hot cache, then the engine. It answers before the store is open, and never panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::api::{self, Health, Method, Reply, Request};
use super::budget::{Budget, Reservation};
use super::cache::Cache;
use super::engine::{self, Engine};
use super::rights::{Rights, Verdict};
use super::{Error, note};
use crate::digest::Digest;
use crate::messages::Messages;

/// Everything behind the door.
pub(super) struct Service {
    open: OnceLock<Open>,
    draining: AtomicBool,
    cache: Cache,
    budget: Budget,
    rights: Rights,
}

struct Open {
    engine: Engine,
    messages: Arc<dyn Messages>,
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
    pub(super) fn new(cache_size: u64, budget: Budget, rights: Rights) -> Self {
        let (open, draining, cache) = (OnceLock::new(), AtomicBool::new(false), Cache::new(cache_size));
        Self { open, draining, cache, budget, rights }
    }

    /// From now on, `messages` are served.
    pub(super) fn open(&self, messages: Arc<dyn Messages>) -> Result<(), Error> {
        let engine =
            Engine::start(Arc::clone(&messages)).map_err(|error| Error::Io("starting the engine".into(), error))?;
        // Opened once: a second time would change nothing.
        let _ = self.open.set(Open { engine, messages });
        Ok(())
    }

    /// From now on, the server says that it is not ready.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// What bodies may take.
    pub(super) const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Reads the token file again, if it has changed or `always`.
    pub(super) fn refresh(&self, always: bool) {
        if let Some(tokens) = self.rights.tokens() {
            tokens.refresh(always);
        }
    }

    /// Whether `request`, of which only the head is there, may be carried out: for who holds the token of this digest.
    pub(super) fn decide(&self, request: &Request, token: Option<Digest>) -> Verdict {
        match api::scope(request, self.rights.offered())? {
            Some(scope) => self.rights.decide(scope, token),
            None => Ok(None),
        }
    }

    /// The reply that `request` gets whatever its body, if that can be told before the body is read.
    pub(super) fn refusal(&self, request: &Request) -> Option<Reply> {
        api::refusal(request).or_else(|| {
            let is_probe = api::probe(request, || Health::Ready).is_some();
            (self.open.get().is_none() && !is_probe).then(api::not_yet)
        })
    }

    /// The reply to `request`.
    pub(super) fn answer(&self, request: Request) -> Answer {
        // Probes do not wait for an engine that may be busy: that would have a healthy server restarted.
        if let Some(reply) = api::probe(&request, || self.health()) {
            return reply.into();
        }
        let Some(open) = self.open.get() else { return api::not_yet().into() };
        // Whoever asks was found entitled to it from the head (`decide`): the cache knows no rights.
        let subject = api::subject(&request);
        if let Some(reply) = subject.as_ref().and_then(|subject| self.cache.find(subject)) {
            return Answer { reply, _held: None };
        }
        let asked = self.cache.now();
        let is_get = request.method == Method::Get;
        match open.engine.ask(request, &self.budget) {
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

    /// No reply is given from memory for `digest` any more. Call it when the message is gone from the store.
    #[allow(dead_code, reason = "comes into use with DELETE")]
    pub(super) fn forget(&self, digest: Digest) {
        self.cache.forget(digest);
    }

    fn health(&self) -> Health {
        if self.draining.load(Ordering::Relaxed) {
            return Health::Draining;
        }
        let Some(open) = self.open.get() else { return Health::Opening };
        if !open.engine.is_sound() {
            return Health::Failed;
        }
        catch_unwind(AssertUnwindSafe(|| api::health(&*open.messages))).unwrap_or(Health::Failed)
    }
}

/// What a request gets that there is no room for now.
pub(super) fn busy() -> Reply {
    Reply::error(503, "The server is busy").with("Retry-After", "1")
}
