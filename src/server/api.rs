//! The contract over HTTP: a request becomes a reply, over `Messages` alone. No socket and no thread is known here.
//! Every error is `{"err_msg": "…"}`; why a store failed is for the operator, never for the client.

mod exchange;
mod form;
mod json;

pub(super) use exchange::{Method, Reply, Request};
pub(super) use form::Form;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::digest::Digest;
use crate::messages::{self, Messages};

/// What the server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// The store is being opened.
    Opening,
    /// Everything works.
    Ready,
    /// Writing has stopped, or the store cannot be asked.
    Failed,
    /// The server is about to end.
    Draining,
}

/// What a request asks for, once it is known to be one that can be answered.
enum Action {
    Put,
    Get(Digest, Form),
    Live,
    Ready,
}

/// The reply to `request`.
pub(super) fn answer(request: &Request, messages: &dyn Messages) -> Reply {
    match route(request) {
        Ok(Action::Put) => put(&request.body, messages),
        Ok(Action::Get(digest, form)) => get(digest, form, request.if_none_match.as_deref(), messages),
        Ok(Action::Live) => status("live"),
        Ok(Action::Ready) => ready(health(messages)),
        Err(reply) => reply,
    }
}

/// The reply that `request` gets whatever its body and the store hold, if there is one.
pub(super) fn refusal(request: &Request) -> Option<Reply> {
    route(request).err()
}

/// The reply that needs no store: to a probe, when `health` is what can be said. `None`: not a probe.
pub(super) fn probe(request: &Request, health: impl FnOnce() -> Health) -> Option<Reply> {
    match route(request) {
        Ok(Action::Live) => Some(status("live")),
        Ok(Action::Ready) => Some(ready(health())),
        _ => None,
    }
}

/// What a request gets while the store is not open.
pub(super) fn not_yet() -> Reply {
    Reply::error(503, "The store is not open yet").with("Retry-After", "1")
}

/// Whether the store can still do all it is for.
pub(super) fn health(messages: &dyn Messages) -> Health {
    if messages.health().is_ok() { Health::Ready } else { Health::Failed }
}

/// What a reply to `request` depends on and nothing else, if it is a plain read of one message.
pub(super) fn subject(request: &Request) -> Option<(Digest, Form)> {
    if !matches!(request.method, Method::Get | Method::Head) || request.if_none_match.is_some() {
        return None;
    }
    let digest = request.path.strip_prefix("/messages/")?.parse().ok()?;
    Some((digest, Form::wanted(request.accept.as_deref())))
}

fn route(request: &Request) -> Result<Action, Reply> {
    match request.path.as_str() {
        "/messages" => {
            allow(request, "POST")?;
            if !json::is_json(request.content_type.as_deref()) {
                return Err(Reply::error(400, "Invalid content type, expected JSON"));
            }
            Ok(Action::Put)
        }
        "/livez" => allow(request, "GET, HEAD").map(|()| Action::Live),
        "/readyz" => allow(request, "GET, HEAD").map(|()| Action::Ready),
        path => {
            let Some(name) = path.strip_prefix("/messages/") else {
                return Err(Reply::error(404, "Not found"));
            };
            allow(request, "GET, HEAD")?;
            match name.parse() {
                Ok(digest) => Ok(Action::Get(digest, Form::wanted(request.accept.as_deref()))),
                Err(_) => Err(absent()),
            }
        }
    }
}

fn allow(request: &Request, methods: &'static str) -> Result<(), Reply> {
    if methods.split(", ").any(|method| method == request.method.as_str()) {
        return Ok(());
    }
    Err(Reply::error(405, "Method not allowed").with("Allow", methods))
}

fn put(body: &[u8], messages: &dyn Messages) -> Reply {
    let Some(message) = json::message(body) else {
        return Reply::error(400, "Invalid JSON request, no message key found");
    };
    match messages.put(vec![message.into_bytes()]) {
        Ok(receipts) => {
            let digest = receipts.first().expect("one receipt for one message").digest;
            Reply::json(200, json::object("digest", &digest.to_string()))
                .with("Location", &format!("/messages/{digest}"))
        }
        Err(error) => failure(&error),
    }
}

fn get(digest: Digest, form: Form, known: Option<&str>, messages: &dyn Messages) -> Reply {
    let tag = form.tag(digest);
    if known.is_some_and(|known| form::names(known, &tag)) {
        return match messages.has(&[digest]).as_deref() {
            Ok([true]) => lasting(Reply::empty(304), &tag),
            Ok(_) => absent(),
            Err(error) => failure(error),
        };
    }
    let message = match messages.get_one(digest) {
        Ok(Some(message)) => message,
        Ok(None) => return absent(),
        Err(error) => return failure(&error),
    };
    match form {
        Form::Bytes => {
            let hash = BASE64_STANDARD.encode(digest.as_bytes());
            lasting(Reply::new(200, "application/octet-stream", message), &tag)
                .with("Repr-Digest", &format!("sha-256=:{hash}:"))
                .with("X-Content-Type-Options", "nosniff")
        }
        Form::Json => match std::str::from_utf8(&message) {
            Ok(text) => lasting(Reply::json(200, json::object("message", text)), &tag),
            Err(_) => Reply::error(406, "Message is not UTF-8, ask with Accept: application/octet-stream")
                .with("Vary", "Accept"),
        },
    }
}

/// A digest names one message for ever, so what is found under it may be kept for ever.
fn lasting(reply: Reply, tag: &str) -> Reply {
    reply.with("ETag", tag).with("Cache-Control", Reply::IMMUTABLE).with("Vary", "Accept")
}

fn absent() -> Reply {
    Reply::error(404, "Message not found")
}

fn status(word: &str) -> Reply {
    Reply::json(200, json::object("status", word)).with("Cache-Control", "no-store")
}

fn ready(health: Health) -> Reply {
    match health {
        Health::Ready => status("ready"),
        Health::Opening => not_yet(),
        Health::Failed => Reply::error(503, "The store has failed"),
        Health::Draining => Reply::error(503, "The server is stopping"),
    }
}

fn failure(error: &messages::Error) -> Reply {
    match error {
        // A digest is a capability, so the operator's line does not name it either: `verify` does.
        messages::Error::Corrupt(_) => Reply::error(500, "Message is corrupt").because("a stored message is corrupt"),
        messages::Error::TooLarge { .. } => Reply::error(413, "Message is too large"),
        messages::Error::Full(_) => Reply::error(507, "No space left").because(error),
        messages::Error::Failed(_) => Reply::error(503, "Writing has stopped").because(error),
        _ => Reply::error(500, "Internal server error").because(error),
    }
}

#[cfg(test)]
#[path = "api/tests.rs"]
mod tests;
