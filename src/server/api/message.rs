//! One message: put as JSON or as bytes, get, removed.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::representation::{self, Representation};
use super::{Method, Request, Response, content_digest, json, range};
use crate::digest::Digest;
use crate::message_store::{Error, MessageStore};

/// Stores the message of `{"message": "…"}`.
pub(super) fn put(body: &[u8], messages: &dyn MessageStore) -> Result<Response, Error> {
    let Some(message) = json::parse_put_body(body) else {
        return Ok(Response::error(400, "Invalid JSON request, no message key found"));
    };
    let receipts = messages.put(vec![message.into_bytes()])?;
    let digest = receipts.first().expect("one receipt for one message").digest;
    Ok(stored_response(200, digest))
}

/// Stores `message`, if it is the one of `digest`.
pub(super) fn upload(digest: Digest, message: Vec<u8>, messages: &dyn MessageStore) -> Result<Response, Error> {
    if !digest.matches(&message) {
        return Ok(Response::error(409, "The bytes do not hash to the digest"));
    }
    let receipts = messages.put(vec![message])?;
    let new = receipts.first().expect("one receipt for one message").new;
    Ok(stored_response(if new { 201 } else { 200 }, digest))
}

/// The reply to an upload of what is stored already and whole, if that can be told at little cost.
///
/// `length` is what the client says that it would send, `longest` what counts as little.
pub(in crate::server) fn already_stored(
    request: &Request,
    length: Option<u64>,
    longest: u64,
    messages: &dyn MessageStore,
) -> Option<Response> {
    let digest = super::digest_from_path(&request.path).filter(|_| request.method == Method::Put)?;
    let stored_length = messages.size(digest).ok()??;
    let is_other = length.is_some_and(|length| length != stored_length) || !content_digest::matches(request, digest);
    if is_other || stored_length > longest {
        return None;
    }
    matches!(messages.get_one(digest), Ok(Some(_))).then(|| stored_response(200, digest))
}

/// Gets a message in the form that is asked for.
pub(super) fn get(
    digest: Digest,
    form: Representation,
    request: &Request,
    messages: &dyn MessageStore,
) -> Result<Response, Error> {
    let tag = form.etag(digest);
    if request.if_none_match.as_deref().is_some_and(|known| representation::etag_matches(known, &tag)) {
        return match messages.has(&[digest])?.as_slice() {
            [true] => Ok(with_immutable_headers(Response::empty(304), &tag)),
            _ => Ok(not_found()),
        };
    }
    let Some(message) = messages.get_one(digest)? else { return Ok(not_found()) };
    Ok(match form {
        Representation::Bytes => {
            let part = range::range_response(request, &tag, message).with_header("Accept-Ranges", "bytes");
            if part.status == 416 {
                return Ok(part);
            }
            let hash = BASE64_STANDARD.encode(digest.as_bytes());
            with_immutable_headers(part, &tag)
                .with_header("Repr-Digest", &format!("sha-256=:{hash}:"))
                .with_header("X-Content-Type-Options", "nosniff")
        }
        Representation::Json => match std::str::from_utf8(&message) {
            Ok(text) => with_immutable_headers(Response::json(200, json::single_field_object("message", text)), &tag),
            Err(_) => Response::error(406, "Message is not UTF-8, ask with Accept: application/octet-stream")
                .with_header("Vary", "Accept"),
        },
    })
}

/// Removes a message.
pub(super) fn remove(digest: Digest, messages: &dyn MessageStore) -> Result<Response, Error> {
    match messages.remove(&[digest])?.as_slice() {
        [true] => Ok(Response::empty(204)),
        _ => Ok(not_found()),
    }
}

/// What is said of a message that is not there.
pub(super) fn not_found() -> Response {
    Response::error(404, "Message not found")
}

pub(super) fn stored_response(status: u16, digest: Digest) -> Response {
    let digest = digest.to_string();
    Response::json(status, json::single_field_object("digest", &digest))
        .with_header("Location", &["/messages/", &digest].concat())
}

/// A digest names one message for ever, so what is found under it may be kept for ever.
fn with_immutable_headers(reply: Response, tag: &str) -> Response {
    reply
        .with_header("ETag", tag)
        .with_header("Cache-Control", Response::CACHE_CONTROL_IMMUTABLE)
        .with_header("Vary", "Accept")
}
