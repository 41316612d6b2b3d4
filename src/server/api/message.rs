//! Requests for one message: put as JSON or as bytes, get, and remove.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::representation::{self, Representation};
use super::{Method, Request, Response, Route, content_digest, json, range};
use crate::digest::Digest;
use crate::message_store::{Error, MessageStore};

/// Stores the message of a body `{"message": "…"}`.
pub(super) fn put(body: &[u8], store: &dyn MessageStore) -> Result<Response, Error> {
    let Some(message) = json::parse_put_body(body) else {
        return Ok(Response::error(400, "Invalid JSON request, no message key found"));
    };
    let receipts = store.put(vec![message.into_bytes()])?;
    let digest = receipts.first().expect("one receipt for one message").digest;
    Ok(stored_response(200, digest))
}

/// Stores `message` if it hashes to `digest`. Returns 201 if it was absent, and 409 if the digest differs.
pub(super) fn upload(digest: Digest, message: Vec<u8>, store: &dyn MessageStore) -> Result<Response, Error> {
    if !digest.matches(&message) {
        return Ok(Response::error(409, "The bytes do not hash to the digest"));
    }
    let receipts = store.put(vec![message])?;
    let new = receipts.first().expect("one receipt for one message").new;
    Ok(stored_response(if new { 201 } else { 200 }, digest))
}

/// Returns the response to an upload whose message is already stored and intact, so that the body is not needed.
///
/// `content_length` is the declared length of the body. Messages longer than `max_length` bytes are not checked,
/// because the check reads the whole message.
pub(in crate::server) fn already_stored(
    request: &Request,
    content_length: Option<u64>,
    max_length: u64,
    store: &dyn MessageStore,
) -> Option<Response> {
    let (Route::Message(digest), Method::Put) = (request.route, request.method) else { return None };
    let stored_length = store.size(digest).ok()??;
    let has_other_length = content_length.is_some_and(|length| length != stored_length);
    if has_other_length || !content_digest::matches(request, digest) || stored_length > max_length {
        return None;
    }
    let message = store.get_one(digest).ok()??;
    // Only a put acknowledges a message: what can be read may not be replicated yet.
    store.put(vec![message]).ok()?;
    Some(stored_response(200, digest))
}

/// Gets a message in `representation`. Returns 304 if `If-None-Match` has its entity tag and the message is stored.
pub(super) fn get(
    digest: Digest,
    representation: Representation,
    request: &Request,
    store: &dyn MessageStore,
) -> Result<Response, Error> {
    let tag = representation.etag(digest);
    if request.if_none_match.as_deref().is_some_and(|tags| representation::etag_matches(tags, &tag))
        && store.has(&[digest])? == [true]
    {
        return Ok(with_immutable_headers(Response::empty(304), &tag));
    }
    let Some(message) = store.get_one(digest)? else { return Ok(not_found()) };
    Ok(match representation {
        Representation::Bytes => {
            let response = range::range_response(request, &tag, message).with_header("Accept-Ranges", "bytes");
            if response.status == 416 {
                return Ok(response);
            }
            let hash = BASE64_STANDARD.encode(digest.as_bytes());
            with_immutable_headers(response, &tag)
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

/// Removes a message. Returns 404 if it is not stored.
pub(super) fn remove(digest: Digest, store: &dyn MessageStore) -> Result<Response, Error> {
    match store.remove(&[digest])?.as_slice() {
        [true] => Ok(Response::empty(204)),
        _ => Ok(not_found()),
    }
}

/// Returns the 404 response for an absent message.
pub(super) fn not_found() -> Response {
    Response::error(404, "Message not found")
}

/// Returns the response for a stored message, with its digest and `Location`.
pub(super) fn stored_response(status: u16, digest: Digest) -> Response {
    let digest = digest.to_string();
    Response::json(status, json::single_field_object("digest", &digest))
        .with_header("Location", &["/messages/", &digest].concat())
}

/// Adds the entity tag and the cache headers. A digest always names the same bytes, so caches may keep the response.
fn with_immutable_headers(response: Response, tag: &str) -> Response {
    response
        .with_header("ETag", tag)
        .with_header("Cache-Control", Response::CACHE_CONTROL_IMMUTABLE)
        .with_header("Vary", "Accept")
}
