//! What the engine is asked: one thing, or what many want together; what is long waits for its turn.

use std::sync::Arc;
use std::time::Duration;

use super::{Answer, Open, Service, busy};
use crate::server::api::{self, Reply, Request};
use crate::server::coalescer::{BatchLeader, Completion, Enqueued};
use crate::server::engine;
use crate::server::note;
use crate::server::semaphore::Permit;

/// Reads longer than this go on a few at a time: what a reader takes beside its reply is not in the budget, and may be
/// many times the message.
pub(super) const LONG: u64 = 1 << 20;
pub(super) const LONG_AT_A_TIME: usize = 4;
/// How long to wait for a turn at that.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

impl Service {
    /// The line that `request` is among others, if it is a put that can go together with them.
    pub(in crate::server) fn line(&self, request: &Request) -> Option<Vec<u8>> {
        self.open.get().and_then(|_| api::share::line(request))
    }

    /// Joins those who go together.
    pub(in crate::server) fn join(&self, line: &[u8], then: Completion) -> Enqueued<'_> {
        self.together.enqueue(line, then)
    }

    /// Asks for all who gathered, once it is time, and tells them.
    pub(in crate::server) fn lead(&self, mut lead: BatchLeader<'_>) {
        if let Some(lines) = lead.seal()
            && let Some(open) = self.open.get()
        {
            let answer = self.ask(api::share::request(lines), open);
            lead.complete(api::share::stored(&answer.reply));
        }
    }

    /// The engine's reply to `request`.
    pub(super) fn ask(&self, request: Request, open: &Open) -> Answer {
        let engine = open.engine();
        let asked_for = engine.ask(request, &self.budget);
        if !engine.is_sound() {
            open.replace(&engine);
        }
        match asked_for {
            Ok((reply, held)) => Answer { reply: Arc::new(reply), _reservation: Some(held) },
            Err(engine::Error::Io(error)) => {
                note(format_args!("the engine broke off: {error}"));
                Reply::error(500, "Internal server error").into()
            }
            Err(engine::Error::Busy | engine::Error::NoMemory) => busy().into(),
        }
    }

    /// The turn that `request` takes if it reads something long; an error if none came free.
    pub(super) fn turn(&self, request: &Request, open: &Open) -> Result<Option<Permit<'_>>, ()> {
        let is_long = |digest| open.length(digest) > LONG;
        match api::is_heavy(request) || api::target(request).is_some_and(is_long) {
            true => self.turns.acquire().map(Some).ok_or(()),
            false => Ok(None),
        }
    }
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
