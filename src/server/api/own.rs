//! What the server answers by itself, whether or not the store is open: probes, metrics, the description.

use super::{Method, Reply, Request, json};
use crate::messages::{Error, Messages};

/// The contract, for programs.
pub(super) const DESCRIPTION: &str = include_str!("openapi.json");

/// What the server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Health {
    /// The store or a door is being opened.
    Opening,
    /// Everything works.
    Ready,
    /// It works, but something that was stored is damaged.
    Damaged,
    /// Writing has stopped, or the store cannot be asked.
    Failed,
    /// The server is about to end.
    Draining,
}

/// What can be asked of the server itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Own {
    Live,
    Ready,
    Metrics,
    Description,
}

/// What `request` asks of the server itself; `None`: it asks for the store, or for nothing that there is.
pub(in crate::server) fn own(request: &Request) -> Option<Own> {
    match (request.method, request.path.as_str()) {
        (Method::Get | Method::Head, "/livez") => Some(Own::Live),
        (Method::Get | Method::Head, "/readyz") => Some(Own::Ready),
        (Method::Get | Method::Head, "/metrics") => Some(Own::Metrics),
        (Method::Get | Method::Head, "/openapi.json") => Some(Own::Description),
        _ => None,
    }
}

/// The reply that needs no store.
pub(in crate::server) fn own_answer(
    own: Own,
    health: impl FnOnce() -> Health,
    metrics: impl FnOnce() -> String,
) -> Reply {
    match own {
        Own::Live => status("live"),
        Own::Ready => ready(health()),
        Own::Metrics => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            Reply::new(200, kind, metrics().into_bytes()).with("Cache-Control", "no-store")
        }
        Own::Description => Reply::json(200, DESCRIPTION.as_bytes().to_vec()),
    }
}

/// What a request gets while the store is not open.
pub(in crate::server) fn not_yet() -> Reply {
    Reply::error(503, "The store is not open yet").with("Retry-After", "1")
}

/// Whether the store can still do all it is for; `is_written`: that is more than to be read.
pub(in crate::server) fn health(messages: &dyn Messages, is_written: bool) -> Health {
    match messages.health() {
        Ok(()) => Health::Ready,
        Err(Error::ReadOnly(_)) if !is_written => Health::Ready,
        Err(_) => Health::Failed,
    }
}

fn status(word: &str) -> Reply {
    Reply::json(200, json::object("status", word)).with("Cache-Control", "no-store")
}

fn ready(health: Health) -> Reply {
    match health {
        Health::Ready => status("ready"),
        Health::Damaged => status("damaged"),
        Health::Opening => not_yet(),
        Health::Failed => Reply::error(503, "The store has failed"),
        Health::Draining => Reply::error(503, "The server is stopping"),
    }
}
