//! One message: put as JSON or as bytes, get, removed.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::form::{self, Form};
use super::{Method, Reply, Request, integrity, json, range};
use crate::digest::Digest;
use crate::messages::{Error, Messages};

/// Stores the message of `{"message": "…"}`.
pub(super) fn put(body: &[u8], messages: &dyn Messages) -> Result<Reply, Error> {
    let Some(message) = json::message(body) else {
        return Ok(Reply::error(400, "Invalid JSON request, no message key found"));
    };
    let receipts = messages.put(vec![message.into_bytes()])?;
    let digest = receipts.first().expect("one receipt for one message").digest;
    Ok(stored(200, digest))
}

/// Stores `message`, if it is the one of `digest`.
pub(super) fn upload(digest: Digest, message: Vec<u8>, messages: &dyn Messages) -> Result<Reply, Error> {
    if !digest.names(&message) {
        return Ok(Reply::error(409, "The bytes do not hash to the digest"));
    }
    let receipts = messages.put(vec![message])?;
    let new = receipts.first().expect("one receipt for one message").new;
    Ok(stored(if new { 201 } else { 200 }, digest))
}

/// The reply to an upload of what is stored already and whole, if that can be told at little cost.
///
/// `length` is what the client says that it would send, `longest` what counts as little.
pub(in crate::server) fn known(
    request: &Request,
    length: Option<u64>,
    longest: u64,
    messages: &dyn Messages,
) -> Option<Reply> {
    let digest = super::digest(&request.path).filter(|_| request.method == Method::Put)?;
    let stored_length = messages.length(digest).ok()??;
    let is_other = length.is_some_and(|length| length != stored_length) || !integrity::fits(request, digest);
    if is_other || stored_length > longest {
        return None;
    }
    matches!(messages.get_one(digest), Ok(Some(_))).then(|| stored(200, digest))
}

/// Gets a message in the form that is asked for.
pub(super) fn get(digest: Digest, form: Form, request: &Request, messages: &dyn Messages) -> Result<Reply, Error> {
    let tag = form.tag(digest);
    if request.if_none_match.as_deref().is_some_and(|known| form::names(known, &tag)) {
        return match messages.has(&[digest])?.as_slice() {
            [true] => Ok(lasting(Reply::empty(304), &tag)),
            _ => Ok(absent()),
        };
    }
    let Some(message) = messages.get_one(digest)? else { return Ok(absent()) };
    Ok(match form {
        Form::Bytes => {
            let part = range::reply(request, &tag, message).with("Accept-Ranges", "bytes");
            if part.status == 416 {
                return Ok(part);
            }
            let hash = BASE64_STANDARD.encode(digest.as_bytes());
            lasting(part, &tag)
                .with("Repr-Digest", &format!("sha-256=:{hash}:"))
                .with("X-Content-Type-Options", "nosniff")
        }
        Form::Json => match std::str::from_utf8(&message) {
            Ok(text) => lasting(Reply::json(200, json::object("message", text)), &tag),
            Err(_) => Reply::error(406, "Message is not UTF-8, ask with Accept: application/octet-stream")
                .with("Vary", "Accept"),
        },
    })
}

/// Removes a message.
pub(super) fn remove(digest: Digest, messages: &dyn Messages) -> Result<Reply, Error> {
    match messages.remove(&[digest])?.as_slice() {
        [true] => Ok(Reply::empty(204)),
        _ => Ok(absent()),
    }
}

/// What is said of a message that is not there.
pub(super) fn absent() -> Reply {
    Reply::error(404, "Message not found")
}

pub(super) fn stored(status: u16, digest: Digest) -> Reply {
    let digest = digest.to_string();
    Reply::json(status, json::object("digest", &digest)).with("Location", &["/messages/", &digest].concat())
}

/// A digest names one message for ever, so what is found under it may be kept for ever.
fn lasting(reply: Reply, tag: &str) -> Reply {
    reply.with("ETag", tag).with("Cache-Control", Reply::IMMUTABLE).with("Vary", "Accept")
}
