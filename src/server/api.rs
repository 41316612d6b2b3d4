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
mod method;
mod range;
mod representation;
mod route;
mod ui;

pub(super) use builtin::{Health, builtin_response, health, service_unavailable, store_not_open};
pub(super) use http_types::{Request, Response};
pub(super) use message::already_stored;
pub(super) use method::Method;
pub(super) use representation::Representation;
use route::RouteError;
pub(super) use route::{BuiltinRoute, Route};
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
    let routed =
        select_operation(&request).and_then(|operation| content_digest::verify_body(&request).map(|()| operation));
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
    select_operation(request).err()
}

/// Returns the digest of the message that `request` reads, or `None` if `request` is not a GET or HEAD of one message.
pub(super) const fn message_digest(request: &Request) -> Option<Digest> {
    match (request.route, request.method) {
        (Route::Message(digest), Method::Get | Method::Head) => Some(digest),
        _ => None,
    }
}

/// Returns whether `request` may read many messages.
pub(super) const fn reads_many_messages(request: &Request) -> bool {
    matches!(request.route, Route::GetBatch | Route::Verify | Route::Repair)
}

/// Returns the hot cache key of `request`, or `None` if the response depends on more than digest and representation.
pub(super) fn cache_key(request: &Request) -> Option<(Digest, Representation)> {
    let digest = message_digest(request)?;
    let is_part = request.range.is_some() && request.method == Method::Get;
    if is_part || request.if_none_match.is_some() {
        return None;
    }
    Some((digest, Representation::negotiate(request.accept.as_deref())))
}

/// Returns the digests of the messages that `request` may remove.
pub(super) fn invalidated_digests(request: &Request) -> Vec<Digest> {
    match request.route {
        Route::Message(digest) if request.method == Method::Delete => vec![digest],
        Route::RemoveBatch => batch::parse_all_digests(&request.body).unwrap_or_default(),
        Route::Repair => {
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

fn select_operation(request: &Request) -> Result<Operation, Response> {
    request.route.required_scope(request.method, Scopes::ALL)?;
    content_digest::validate_syntax(request)?;
    let has_type = |media_type| json::is_media_type(media_type, request.content_type.as_deref());
    let require_type = |media_type, name: &str, operation| match has_type(media_type) {
        true => Ok(operation),
        false => Err(Response::error(400, &format!("Invalid content type, expected {name}"))),
    };
    let require_ndjson = |operation| require_type(batch::CONTENT_TYPE, batch::CONTENT_TYPE, operation);
    let require_json = |operation| require_type(json::CONTENT_TYPE, "JSON", operation);
    match (request.route, request.method) {
        (Route::Builtin(route), _) => Ok(Operation::Builtin(route)),
        (Route::Messages, Method::Post) if has_type(batch::CONTENT_TYPE) => Ok(Operation::PutBatch),
        (Route::Messages, Method::Post) => require_json(Operation::Put),
        (Route::Messages, _) => listing::parse_query(request.query.as_deref()).map(Operation::List),
        (Route::Missing, _) => require_ndjson(Operation::ListMissing),
        (Route::GetBatch, _) => require_ndjson(Operation::GetBatch),
        (Route::RemoveBatch, _) => require_ndjson(Operation::RemoveBatch),
        (Route::Stats, _) => Ok(Operation::Stats),
        (Route::Verify, _) => require_json(Operation::Verify),
        (Route::Repair, _) => require_json(Operation::Repair),
        (Route::Message(digest), Method::Put) => Ok(Operation::Upload(digest)),
        (Route::Message(digest), Method::Delete) => Ok(Operation::Remove(digest)),
        (Route::Message(digest), _) => Ok(Operation::Get(digest, Representation::negotiate(request.accept.as_deref()))),
        (Route::InvalidDigest, Method::Put) => Err(Response::error(400, "Not a digest, expected 64 hex digits")),
        (Route::InvalidDigest, _) => Err(message::not_found()),
        (Route::Page | Route::Unknown, _) => Err(RouteError::NotFound.into()),
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
