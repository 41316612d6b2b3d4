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
use crate::server::rights::{Scope, Scopes};

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
    Own(Own),
}

/// What the server answers by itself, whether or not the store is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    Live,
    Ready,
    Metrics,
    Description,
}

/// The contract, for programs.
const DESCRIPTION: &str = include_str!("openapi.json");

/// Methods, each with the scope that it takes. Who has none may still do what takes `None`.
type Methods = &'static [(Method, Option<Scope>)];

const MESSAGES: Methods = &[(Method::Post, Some(Scope::Write))];
const MESSAGE: Methods = &[(Method::Get, Some(Scope::Read)), (Method::Head, Some(Scope::Read))];
const PROBE: Methods = &[(Method::Get, None), (Method::Head, None)];
const METRICS: Methods = &[(Method::Get, Some(Scope::List)), (Method::Head, Some(Scope::List))];

/// Every path as it is documented, with what can be done there.
pub(super) const ROUTES: [(&str, Methods); 6] = [
    ("/messages", MESSAGES),
    (ONE, MESSAGE),
    ("/livez", PROBE),
    ("/readyz", PROBE),
    ("/metrics", METRICS),
    ("/openapi.json", PROBE),
];
const ONE: &str = "/messages/{digest}";

/// The route of a path; `None`: there is no such path.
fn found(path: &str) -> Option<(&'static str, Methods)> {
    let name = if path.starts_with("/messages/") { ONE } else { path };
    ROUTES.into_iter().find(|(route, _)| *route == name)
}

/// How a path is named where it is counted.
pub(super) fn route_name(path: &str) -> &'static str {
    found(path).map_or("other", |(name, _)| name)
}

/// How a path is named where it is written down: of a digest as much as tells two apart and opens nothing.
pub(super) fn logged_path(path: &str) -> String {
    match path.strip_prefix("/messages/").map(str::parse::<Digest>) {
        Some(Ok(digest)) => format!("/messages/{}", &digest.to_string()[..8]),
        _ => route_name(path).to_owned(),
    }
}

/// The scope that `request` takes, where no more than `offered` is done; else 404 or 405.
pub(super) fn scope(request: &Request, offered: Scopes) -> Result<Option<Scope>, Reply> {
    let (_, methods) = found(&request.path).ok_or_else(|| Reply::error(404, "Not found"))?;
    let allowed = || methods.iter().filter(|(_, scope)| scope.is_none_or(|scope| offered.hold(scope)));
    if let Some((_, scope)) = allowed().find(|(method, _)| *method == request.method) {
        return Ok(*scope);
    }
    let names: Vec<_> = allowed().map(|(method, _)| method.as_str()).collect();
    Err(Reply::error(405, "Method not allowed").with("Allow", &names.join(", ")))
}

/// The reply to `request`.
pub(super) fn answer(request: &Request, messages: &dyn Messages) -> Reply {
    match route(request) {
        Ok(Action::Put) => put(&request.body, messages),
        Ok(Action::Get(digest, form)) => get(digest, form, request.if_none_match.as_deref(), messages),
        Ok(Action::Own(own)) => own_answer(own, || health(messages), String::new),
        Err(reply) => reply,
    }
}

/// The reply that `request` gets whatever its body and the store hold, if there is one.
pub(super) fn refusal(request: &Request) -> Option<Reply> {
    route(request).err()
}

/// What `request` asks of the server itself; `None`: it asks for the store.
pub(super) fn own(request: &Request) -> Option<Own> {
    match route(request) {
        Ok(Action::Own(own)) => Some(own),
        _ => None,
    }
}

/// The reply that needs no store.
pub(super) fn own_answer(own: Own, health: impl FnOnce() -> Health, metrics: impl FnOnce() -> String) -> Reply {
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
pub(super) fn not_yet() -> Reply {
    Reply::error(503, "The store is not open yet").with("Retry-After", "1")
}

/// Whether the store can still do all it is for.
pub(super) fn health(messages: &dyn Messages) -> Health {
    if messages.health().is_ok() { Health::Ready } else { Health::Failed }
}

/// The message that `request` may have to read.
pub(super) fn target(request: &Request) -> Option<Digest> {
    let reads = matches!(request.method, Method::Get | Method::Head);
    request.path.strip_prefix("/messages/").filter(|_| reads)?.parse().ok()
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
    scope(request, Scopes::ALL)?;
    match request.path.as_str() {
        "/livez" => Ok(Action::Own(Own::Live)),
        "/readyz" => Ok(Action::Own(Own::Ready)),
        "/metrics" => Ok(Action::Own(Own::Metrics)),
        "/openapi.json" => Ok(Action::Own(Own::Description)),
        "/messages" if !json::is_json(request.content_type.as_deref()) => {
            Err(Reply::error(400, "Invalid content type, expected JSON"))
        }
        "/messages" => Ok(Action::Put),
        path => {
            let digest = path.strip_prefix("/messages/").and_then(|name| name.parse().ok()).ok_or_else(absent)?;
            Ok(Action::Get(digest, Form::wanted(request.accept.as_deref())))
        }
    }
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
