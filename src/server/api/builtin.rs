//! Routes that work before the store is open: probes, metrics and the OpenAPI document.

use super::route::BuiltinRoute;
use super::{Response, json};
use crate::message_store::{Error, MessageStore};

/// The OpenAPI document.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// Readiness of the server, as `/readyz` reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Health {
    /// The store or an endpoint is not open yet.
    Opening,
    /// The server can serve all requests.
    Ready,
    /// The server is ready, but verification found damage in the store, or a loss is recorded.
    Damaged,
    /// Writing has failed, the store cannot be reached, or it is read-only without `--read-only`.
    Failed,
    /// The server is shutting down.
    Draining,
}

/// Returns the response of a built-in route. Calls `health` or `metrics` only if the route needs it.
pub(in crate::server) fn builtin_response(
    route: BuiltinRoute,
    health: impl FnOnce() -> Health,
    metrics: impl FnOnce() -> String,
) -> Response {
    match route {
        BuiltinRoute::Live => status_response("live"),
        BuiltinRoute::Ready => readiness_response(health()),
        BuiltinRoute::Metrics => {
            let content_type = "text/plain; version=0.0.4; charset=utf-8";
            Response::new(200, content_type, metrics().into_bytes()).with_header("Cache-Control", "no-store")
        }
        BuiltinRoute::OpenApi => Response::json(200, OPENAPI.as_bytes().to_vec()),
    }
}

/// Returns the 503 response for requests that arrive before the store is open.
pub(in crate::server) fn store_not_open() -> Response {
    Response::error(503, "The store is not open yet").with_header("Retry-After", "1")
}

/// Returns the 503 response for a request that finds no memory, permit or connection.
pub(in crate::server) fn service_unavailable() -> Response {
    Response::error(503, "The server is busy").with_header("Retry-After", "1")
}

/// Returns the health of the store. A read-only store is healthy only if `writable` is `false`.
pub(in crate::server) fn health(store: &dyn MessageStore, writable: bool) -> Health {
    match store.health() {
        Ok(()) => Health::Ready,
        Err(Error::DataLoss(_)) => Health::Damaged,
        Err(Error::ReadOnly(_)) if !writable => Health::Ready,
        Err(_) => Health::Failed,
    }
}

fn status_response(status: &str) -> Response {
    Response::json(200, json::single_field_object("status", status)).with_header("Cache-Control", "no-store")
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
