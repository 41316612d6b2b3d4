//! The HTTP API: turns a parsed request into a response, using only a [`MessageStore`] and no sockets or threads.
//! Every error body is `{"err_msg": "…"}`. The cause of a store failure is logged and never sent to the client.

mod batch;
mod builtin;
pub(super) mod coalesce;
mod content_digest;
mod http_types;
mod json;
mod listing;
mod maintenance;
mod message;
mod range;
mod representation;
mod routes;
mod ui;

pub(super) use builtin::{BuiltinRoute, Health, builtin_response, builtin_route, health, store_not_open};
pub(super) use http_types::{Method, Request, Response};
pub(super) use message::already_stored;
pub(super) use representation::Representation;
use routes::digest_from_path;
pub(super) use routes::{redacted_path, required_scope, route_name};
pub(super) use ui::ui_response;

use crate::digest::Digest;
use crate::message_store::{self, Damage, MessageStore};
use crate::server::auth::Scopes;

/// The operation that a valid request selects, with its parsed parameters.
#[derive(Debug)]
enum Operation {
    Builtin(BuiltinRoute),
    Put,
    Upload(Digest),
    Get(Digest, Representation),
    Remove(Digest),
    List(listing::ListParameters),
    PutBatch,
    ListMissing,
    GetBatch,
    RemoveBatch,
    Stats,
    Verify,
    Repair,
}

/// Carries out `request` and returns the response. The request must be authorised.
pub(super) fn handle(mut request: Request, store: &dyn MessageStore) -> Response {
    let routed = route(&request).and_then(|operation| content_digest::verify_body(&request).map(|()| operation));
    let operation = match routed {
        Ok(operation) => operation,
        Err(response) => return response,
    };
    let body = std::mem::take(&mut request.body);
    let for_digests = |handler: fn(&[Digest], &dyn MessageStore) -> Result<Response, message_store::Error>| {
        match batch::parse_all_digests(&body) {
            Ok(digests) => handler(&digests, store),
            Err(response) => Ok(response),
        }
    };
    let response = match operation {
        Operation::Builtin(route) => Ok(builtin_response(route, || health(store, true), String::new)),
        Operation::Put => message::put(&body, store),
        Operation::Upload(digest) => message::upload(digest, body, store),
        Operation::Get(digest, representation) => message::get(digest, representation, &request, store),
        Operation::Remove(digest) => message::remove(digest, store),
        Operation::List(parameters) => listing::list(&parameters, store),
        Operation::PutBatch => batch::put(&body, store),
        Operation::ListMissing => for_digests(batch::list_missing),
        Operation::GetBatch => for_digests(batch::get),
        Operation::RemoveBatch => for_digests(batch::remove),
        Operation::Stats => maintenance::stats(store),
        Operation::Verify => maintenance::verify(&body, store),
        Operation::Repair => maintenance::repair(&body, store),
    };
    response.unwrap_or_else(|error| error_response(&error))
}

/// Returns the error response that follows from the head of `request`, whatever its body and the store contain.
pub(super) fn early_error(request: &Request) -> Option<Response> {
    route(request).err()
}

/// Returns the digest of the message that `request` reads, or `None` if `request` is not a GET or HEAD of one message.
pub(super) fn message_digest(request: &Request) -> Option<Digest> {
    digest_from_path(&request.path).filter(|_| matches!(request.method, Method::Get | Method::Head))
}

/// Returns whether `request` may read many messages and therefore always needs a read permit.
pub(super) fn needs_read_permit(request: &Request) -> bool {
    request.method == Method::Post && ["/messages/get", "/verify"].contains(&request.path.as_str())
}

/// Returns the hot cache key of `request`, or `None` if the response depends on more than digest and representation.
pub(super) fn cache_key(request: &Request) -> Option<(Digest, Representation)> {
    let is_part = request.range.is_some() && request.method == Method::Get;
    let digest = message_digest(request).filter(|_| !is_part && request.if_none_match.is_none())?;
    Some((digest, Representation::negotiate(request.accept.as_deref())))
}

/// Returns the digests of the messages that `request` may remove.
pub(super) fn invalidated_digests(request: &Request) -> Vec<Digest> {
    match (request.method, request.path.as_str()) {
        (Method::Delete, path) => digest_from_path(path).into_iter().collect(),
        (Method::Post, "/messages/remove") => batch::parse_all_digests(&request.body).unwrap_or_default(),
        (Method::Post, "/repair") => {
            maintenance::parse_damage(&request.body).unwrap_or_default().iter().filter_map(damaged_digest).collect()
        }
        _ => Vec::new(),
    }
}

fn damaged_digest(damage: &Damage) -> Option<Digest> {
    match *damage {
        Damage::Corrupt { digest } | Damage::Lost { digest } | Damage::Unindexed { digest } => Some(digest),
        Damage::LostUnknown { .. } | Damage::Gap { .. } => None,
    }
}

fn route(request: &Request) -> Result<Operation, Response> {
    required_scope(request, Scopes::ALL)?;
    if let Some(route) = builtin_route(request) {
        return Ok(Operation::Builtin(route));
    }
    content_digest::validate_syntax(request)?;
    let has_type = |media_type| json::is_media_type(media_type, request.content_type.as_deref());
    let require_type = |media_type, name: &str, operation| match has_type(media_type) {
        true => Ok(operation),
        false => Err(Response::error(400, &format!("Invalid content type, expected {name}"))),
    };
    let require_ndjson = |operation| require_type(batch::CONTENT_TYPE, batch::CONTENT_TYPE, operation);
    let require_json = |operation| require_type(json::CONTENT_TYPE, "JSON", operation);
    match (request.method, request.path.as_str()) {
        (Method::Post, "/messages") if has_type(batch::CONTENT_TYPE) => Ok(Operation::PutBatch),
        (Method::Post, "/messages") => require_json(Operation::Put),
        (_, "/messages") => listing::parse_query(request.query.as_deref()).map(Operation::List),
        (_, "/messages/missing") => require_ndjson(Operation::ListMissing),
        (_, "/messages/get") => require_ndjson(Operation::GetBatch),
        (_, "/messages/remove") => require_ndjson(Operation::RemoveBatch),
        (_, "/stats") => Ok(Operation::Stats),
        (_, "/verify") => require_json(Operation::Verify),
        (_, "/repair") => require_json(Operation::Repair),
        (method, path) => match (method, digest_from_path(path)) {
            (Method::Put, Some(digest)) => Ok(Operation::Upload(digest)),
            (Method::Put, None) => Err(Response::error(400, "Not a digest, expected 64 hex digits")),
            (Method::Delete, Some(digest)) => Ok(Operation::Remove(digest)),
            (_, Some(digest)) => Ok(Operation::Get(digest, Representation::negotiate(request.accept.as_deref()))),
            (_, None) => Err(message::not_found()),
        },
    }
}

fn error_response(error: &message_store::Error) -> Response {
    match error {
        // A digest grants access to its message, so the log does not contain it. `sha-api verify` reports it.
        message_store::Error::Corrupt(_) => {
            Response::error(500, "Message is corrupt").with_cause("a stored message is corrupt; run sha-api verify")
        }
        message_store::Error::Lost(_) => {
            Response::error(500, "Message is lost").with_cause("a stored message is lost; run sha-api verify")
        }
        message_store::Error::TooLarge { .. } => Response::error(413, "Message is too large"),
        message_store::Error::NoSpace(_) => Response::error(507, "No space left").with_cause(error),
        message_store::Error::Unavailable { .. } | message_store::Error::Server { .. } => {
            Response::error(503, "The store cannot be reached").with_header("Retry-After", "1").with_cause(error)
        }
        message_store::Error::ReadOnly(_) => Response::error(503, "The store is read-only").with_cause(error),
        message_store::Error::WriteFailed(_) => Response::error(503, "Writing has stopped").with_cause(error),
        _ => Response::error(500, "Internal server error").with_cause(error),
    }
}

#[cfg(test)]
#[path = "api/tests.rs"]
mod tests;
