//! What the server answers by itself, whether or not the store is open: probes, metrics, the description.

use super::{Method, Request, Response, json};
use crate::message_store::{Error, MessageStore};

/// The contract, for programs.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

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
pub(in crate::server) enum BuiltinRoute {
    Live,
    Ready,
    Metrics,
    OpenApi,
}

/// What `request` asks of the server itself; `None`: it asks for the store, or for nothing that there is.
pub(in crate::server) fn builtin_route(request: &Request) -> Option<BuiltinRoute> {
    match (request.method, request.path.as_str()) {
        (Method::Get | Method::Head, "/livez") => Some(BuiltinRoute::Live),
        (Method::Get | Method::Head, "/readyz") => Some(BuiltinRoute::Ready),
        (Method::Get | Method::Head, "/metrics") => Some(BuiltinRoute::Metrics),
        (Method::Get | Method::Head, "/openapi.json") => Some(BuiltinRoute::OpenApi),
        _ => None,
    }
}

/// The reply that needs no store.
pub(in crate::server) fn builtin_response(
    own: BuiltinRoute,
    health: impl FnOnce() -> Health,
    metrics: impl FnOnce() -> String,
) -> Response {
    match own {
        BuiltinRoute::Live => status_response("live"),
        BuiltinRoute::Ready => readiness_response(health()),
        BuiltinRoute::Metrics => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            Response::new(200, kind, metrics().into_bytes()).with_header("Cache-Control", "no-store")
        }
        BuiltinRoute::OpenApi => Response::json(200, OPENAPI.as_bytes().to_vec()),
    }
}

/// What a request gets while the store is not open.
pub(in crate::server) fn store_not_open() -> Response {
    Response::error(503, "The store is not open yet").with_header("Retry-After", "1")
}

/// Whether the store can still do all it is for; `is_written`: that is more than to be read.
pub(in crate::server) fn health(messages: &dyn MessageStore, writable: bool) -> Health {
    match messages.health() {
        Ok(()) => Health::Ready,
        Err(Error::ReadOnly(_)) if !writable => Health::Ready,
        Err(_) => Health::Failed,
    }
}

fn status_response(word: &str) -> Response {
    Response::json(200, json::single_field_object("status", word)).with_header("Cache-Control", "no-store")
}

fn readiness_response(health: Health) -> Response {
    match health {
        Health::Ready => status_response("ready"),
        Health::Damaged => status_response("damaged"),
        Health::Opening => store_not_open(),
        Health::Failed => Response::error(503, "The store has failed"),
        Health::Draining => Response::error(503, "The server is stopping"),
    }
}
