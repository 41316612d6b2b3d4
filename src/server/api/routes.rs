//! Which paths there are, what can be done there, and which scope that takes: known from the head alone.

use super::{Method, Reply, Request, ui};
use crate::digest::Digest;
use crate::server::rights::{Scope, Scopes};

/// Methods, each with the scope that it takes. Who has none may still do what takes `None`.
type Methods = &'static [(Method, Option<Scope>)];

const MESSAGES: Methods =
    &[(Method::Get, Some(Scope::List)), (Method::Head, Some(Scope::List)), (Method::Post, Some(Scope::Write))];
const MESSAGE: Methods = &[
    (Method::Get, Some(Scope::Read)),
    (Method::Head, Some(Scope::Read)),
    (Method::Put, Some(Scope::Write)),
    (Method::Delete, Some(Scope::Rm)),
];
const READING: Methods = &[(Method::Post, Some(Scope::Read))];
const REMOVING: Methods = &[(Method::Post, Some(Scope::Rm))];
const VERIFYING: Methods = &[(Method::Post, Some(Scope::List))];
const COUNTS: Methods = &[(Method::Get, Some(Scope::List)), (Method::Head, Some(Scope::List))];
const PROBE: Methods = &[(Method::Get, None), (Method::Head, None)];

/// Every path as it is documented, with what can be done there.
pub(in crate::server) const ROUTES: [(&str, Methods); 12] = [
    ("/messages", MESSAGES),
    ("/messages/missing", READING),
    ("/messages/get", READING),
    ("/messages/remove", REMOVING),
    (ONE, MESSAGE),
    ("/stats", COUNTS),
    ("/verify", VERIFYING),
    ("/repair", REMOVING),
    ("/livez", PROBE),
    ("/readyz", PROBE),
    ("/metrics", COUNTS),
    ("/openapi.json", PROBE),
];
const ONE: &str = "/messages/{digest}";

/// How a path is named where it is counted.
pub(in crate::server) fn route_name(path: &str) -> &'static str {
    if path == ui::PATH {
        return ui::PATH;
    }
    found(path).map_or("other", |(name, _)| name)
}

/// How a path is named where it is written down: of a digest as much as tells two apart and opens nothing.
pub(in crate::server) fn logged_path(path: &str) -> String {
    match digest(path) {
        Some(digest) => format!("/messages/{}", &digest.to_string()[..8]),
        None => route_name(path).to_owned(),
    }
}

/// The scope that `request` takes, where no more than `offered` is done; else 404 or 405.
pub(in crate::server) fn scope(request: &Request, offered: Scopes) -> Result<Option<Scope>, Reply> {
    let (_, methods) = found(&request.path).ok_or_else(|| Reply::error(404, "Not found"))?;
    let allowed = || methods.iter().filter(|(_, scope)| scope.is_none_or(|scope| offered.hold(scope)));
    if let Some((_, scope)) = allowed().find(|(method, _)| *method == request.method) {
        return Ok(*scope);
    }
    let names: Vec<_> = allowed().map(|(method, _)| method.as_str()).collect();
    Err(Reply::error(405, "Method not allowed").with("Allow", &names.join(", ")))
}

/// The digest that a path names, if it is the path of one message.
pub(in crate::server) fn digest(path: &str) -> Option<Digest> {
    path.strip_prefix("/messages/")?.parse().ok()
}

/// The route of a path; `None`: there is no such path.
fn found(path: &str) -> Option<(&'static str, Methods)> {
    let exact = ROUTES.into_iter().find(|(route, _)| *route == path && *route != ONE);
    exact.or_else(|| path.starts_with("/messages/").then_some((ONE, MESSAGE)))
}
