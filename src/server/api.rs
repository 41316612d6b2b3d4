//! The contract over HTTP: a request becomes a reply, over `Messages` alone. No socket and no thread is known here.
//! Every error is `{"err_msg": "…"}`; why a store failed is for the operator, never for the client.

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

/// What a request asks for, once it is known to be one that can be answered.
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

/// The reply to `request`.
pub(super) fn handle(mut request: Request, messages: &dyn MessageStore) -> Response {
    let action = match route(&request).and_then(|action| content_digest::verify_body(&request).map(|()| action)) {
        Ok(action) => action,
        Err(reply) => return reply,
    };
    let body = std::mem::take(&mut request.body);
    let digests = |each: fn(&[Digest], &dyn MessageStore) -> Result<Response, message_store::Error>| {
        match batch::parse_all_digests(&body) {
            Ok(digests) => each(&digests, messages),
            Err(reply) => Ok(reply),
        }
    };
    let reply = match action {
        Operation::Builtin(own) => Ok(builtin_response(own, || health(messages, true), String::new)),
        Operation::Put => message::put(&body, messages),
        Operation::Upload(digest) => message::upload(digest, body, messages),
        Operation::Get(digest, form) => message::get(digest, form, &request, messages),
        Operation::Remove(digest) => message::remove(digest, messages),
        Operation::List(wanted) => listing::list(&wanted, messages),
        Operation::PutBatch => batch::put(&body, messages),
        Operation::ListMissing => digests(batch::list_missing),
        Operation::GetBatch => digests(batch::get),
        Operation::RemoveBatch => digests(batch::remove),
        Operation::Stats => maintenance::stats(messages),
        Operation::Verify => maintenance::verify(&body, messages),
        Operation::Repair => maintenance::repair(&body, messages),
    };
    reply.unwrap_or_else(|error| error_response(&error))
}

/// The reply that `request` gets whatever its body and the store hold, if there is one.
pub(super) fn early_error(request: &Request) -> Option<Response> {
    route(request).err()
}

/// The message that `request` may have to read.
pub(super) fn message_digest(request: &Request) -> Option<Digest> {
    digest_from_path(&request.path).filter(|_| matches!(request.method, Method::Get | Method::Head))
}

/// Whether `request` may read much, whatever it names.
pub(super) fn needs_read_permit(request: &Request) -> bool {
    request.method == Method::Post && ["/messages/get", "/verify"].contains(&request.path.as_str())
}

/// What a reply to `request` depends on and nothing else, if it is a plain read of one message.
pub(super) fn cache_key(request: &Request) -> Option<(Digest, Representation)> {
    let is_part = request.range.is_some() && request.method == Method::Get;
    let digest = message_digest(request).filter(|_| !is_part && request.if_none_match.is_none())?;
    Some((digest, Representation::negotiate(request.accept.as_deref())))
}

/// The messages that may be gone once `request` was carried out.
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
        Damage::Gap { .. } => None,
    }
}

fn route(request: &Request) -> Result<Operation, Response> {
    required_scope(request, Scopes::ALL)?;
    if let Some(own) = builtin_route(request) {
        return Ok(Operation::Builtin(own));
    }
    content_digest::validate_syntax(request)?;
    let is = |kind| json::is_media_type(kind, request.content_type.as_deref());
    let expect = |kind, name: &str, action| match is(kind) {
        true => Ok(action),
        false => Err(Response::error(400, &format!("Invalid content type, expected {name}"))),
    };
    let lines = |action| expect(batch::CONTENT_TYPE, batch::CONTENT_TYPE, action);
    let object = |action| expect(json::CONTENT_TYPE, "JSON", action);
    match (request.method, request.path.as_str()) {
        (Method::Post, "/messages") if is(batch::CONTENT_TYPE) => Ok(Operation::PutBatch),
        (Method::Post, "/messages") => object(Operation::Put),
        (_, "/messages") => listing::parse_query(request.query.as_deref()).map(Operation::List),
        (_, "/messages/missing") => lines(Operation::ListMissing),
        (_, "/messages/get") => lines(Operation::GetBatch),
        (_, "/messages/remove") => lines(Operation::RemoveBatch),
        (_, "/stats") => Ok(Operation::Stats),
        (_, "/verify") => object(Operation::Verify),
        (_, "/repair") => object(Operation::Repair),
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
        // A digest is a capability, so the operator's line does not name it either: `verify` does.
        message_store::Error::Corrupt(_) => {
            Response::error(500, "Message is corrupt").with_cause("a stored message is corrupt")
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
