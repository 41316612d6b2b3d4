//! The contract over HTTP: a request becomes a reply, over `Messages` alone. No socket and no thread is known here.
//! Every error is `{"err_msg": "…"}`; why a store failed is for the operator, never for the client.

mod batch;
mod care;
mod exchange;
mod form;
mod integrity;
mod json;
mod message;
mod own;
mod page;
mod range;
mod routes;
pub(super) mod share;
mod ui;

pub(super) use exchange::{Method, Reply, Request};
pub(super) use form::Form;
pub(super) use message::known;
pub(super) use own::{Health, Own, health, not_yet, own, own_answer};
use routes::digest;
pub(super) use routes::{logged_path, route_name, scope};
pub(super) use ui::page;

use crate::digest::Digest;
use crate::messages::{self, Damage, Messages};
use crate::server::rights::Scopes;

/// What a request asks for, once it is known to be one that can be answered.
#[derive(Debug)]
enum Action {
    Own(Own),
    Put,
    Upload(Digest),
    Get(Digest, Form),
    Remove(Digest),
    List(page::Wanted),
    PutLines,
    Missing,
    GetLines,
    RemoveLines,
    Stats,
    Verify,
    Repair,
}

/// The reply to `request`.
pub(super) fn answer(mut request: Request, messages: &dyn Messages) -> Reply {
    let action = match route(&request).and_then(|action| integrity::check(&request).map(|()| action)) {
        Ok(action) => action,
        Err(reply) => return reply,
    };
    let body = std::mem::take(&mut request.body);
    let digests = |each: fn(&[Digest], &dyn Messages) -> Result<Reply, messages::Error>| match batch::digests(&body) {
        Ok(digests) => each(&digests, messages),
        Err(reply) => Ok(reply),
    };
    let reply = match action {
        Action::Own(own) => Ok(own_answer(own, || health(messages, true), String::new)),
        Action::Put => message::put(&body, messages),
        Action::Upload(digest) => message::upload(digest, body, messages),
        Action::Get(digest, form) => message::get(digest, form, &request, messages),
        Action::Remove(digest) => message::remove(digest, messages),
        Action::List(wanted) => page::list(&wanted, messages),
        Action::PutLines => batch::put(&body, messages),
        Action::Missing => digests(batch::missing),
        Action::GetLines => digests(batch::get),
        Action::RemoveLines => digests(batch::remove),
        Action::Stats => care::stats(messages),
        Action::Verify => care::verify(&body, messages),
        Action::Repair => care::repair(&body, messages),
    };
    reply.unwrap_or_else(|error| failure(&error))
}

/// The reply that `request` gets whatever its body and the store hold, if there is one.
pub(super) fn refusal(request: &Request) -> Option<Reply> {
    route(request).err()
}

/// The message that `request` may have to read.
pub(super) fn target(request: &Request) -> Option<Digest> {
    digest(&request.path).filter(|_| matches!(request.method, Method::Get | Method::Head))
}

/// Whether `request` may read much, whatever it names.
pub(super) fn is_heavy(request: &Request) -> bool {
    request.method == Method::Post && ["/messages/get", "/verify"].contains(&request.path.as_str())
}

/// What a reply to `request` depends on and nothing else, if it is a plain read of one message.
pub(super) fn subject(request: &Request) -> Option<(Digest, Form)> {
    let is_part = request.range.is_some() && request.method == Method::Get;
    let digest = target(request).filter(|_| !is_part && request.if_none_match.is_none())?;
    Some((digest, Form::wanted(request.accept.as_deref())))
}

/// The messages that may be gone once `request` was carried out.
pub(super) fn removals(request: &Request) -> Vec<Digest> {
    match (request.method, request.path.as_str()) {
        (Method::Delete, path) => digest(path).into_iter().collect(),
        (Method::Post, "/messages/remove") => batch::digests(&request.body).unwrap_or_default(),
        (Method::Post, "/repair") => {
            care::damage(&request.body).unwrap_or_default().iter().filter_map(damaged).collect()
        }
        _ => Vec::new(),
    }
}

fn damaged(damage: &Damage) -> Option<Digest> {
    match *damage {
        Damage::Corrupt { digest } | Damage::Lost { digest } | Damage::Unindexed { digest } => Some(digest),
        Damage::Gap { .. } => None,
    }
}

fn route(request: &Request) -> Result<Action, Reply> {
    scope(request, Scopes::ALL)?;
    if let Some(own) = own(request) {
        return Ok(Action::Own(own));
    }
    integrity::check_form(request)?;
    let is = |kind| json::is(kind, request.content_type.as_deref());
    let expect = |kind, name: &str, action| match is(kind) {
        true => Ok(action),
        false => Err(Reply::error(400, &format!("Invalid content type, expected {name}"))),
    };
    let lines = |action| expect(batch::KIND, batch::KIND, action);
    let object = |action| expect(json::KIND, "JSON", action);
    match (request.method, request.path.as_str()) {
        (Method::Post, "/messages") if is(batch::KIND) => Ok(Action::PutLines),
        (Method::Post, "/messages") => object(Action::Put),
        (_, "/messages") => page::wanted(request.query.as_deref()).map(Action::List),
        (_, "/messages/missing") => lines(Action::Missing),
        (_, "/messages/get") => lines(Action::GetLines),
        (_, "/messages/remove") => lines(Action::RemoveLines),
        (_, "/stats") => Ok(Action::Stats),
        (_, "/verify") => object(Action::Verify),
        (_, "/repair") => object(Action::Repair),
        (method, path) => match (method, digest(path)) {
            (Method::Put, Some(digest)) => Ok(Action::Upload(digest)),
            (Method::Put, None) => Err(Reply::error(400, "Not a digest, expected 64 hex digits")),
            (Method::Delete, Some(digest)) => Ok(Action::Remove(digest)),
            (_, Some(digest)) => Ok(Action::Get(digest, Form::wanted(request.accept.as_deref()))),
            (_, None) => Err(message::absent()),
        },
    }
}

fn failure(error: &messages::Error) -> Reply {
    match error {
        // A digest is a capability, so the operator's line does not name it either: `verify` does.
        messages::Error::Corrupt(_) => Reply::error(500, "Message is corrupt").because("a stored message is corrupt"),
        messages::Error::TooLarge { .. } => Reply::error(413, "Message is too large"),
        messages::Error::Full(_) => Reply::error(507, "No space left").because(error),
        messages::Error::Unavailable { .. } | messages::Error::Server { .. } => {
            Reply::error(503, "The store cannot be reached").with("Retry-After", "1").because(error)
        }
        messages::Error::ReadOnly(_) => Reply::error(503, "The store is read-only").because(error),
        messages::Error::Failed(_) => Reply::error(503, "Writing has stopped").because(error),
        _ => Reply::error(500, "Internal server error").because(error),
    }
}

#[cfg(test)]
#[path = "api/tests.rs"]
mod tests;
