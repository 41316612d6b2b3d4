//! The routing table: paths, methods and required scopes. Only the request head is needed to match a route.

use super::{Method, Request, Response, ui};
use crate::digest::Digest;
use crate::server::auth::{Scope, Scopes};

/// Methods of a route, each with the scope that it requires. `None` requires no scope.
type MethodScopes = &'static [(Method, Option<Scope>)];

const COLLECTION_METHODS: MethodScopes =
    &[(Method::Get, Some(Scope::List)), (Method::Head, Some(Scope::List)), (Method::Post, Some(Scope::Write))];
const MESSAGE_METHODS: MethodScopes = &[
    (Method::Get, Some(Scope::Read)),
    (Method::Head, Some(Scope::Read)),
    (Method::Put, Some(Scope::Write)),
    (Method::Delete, Some(Scope::Rm)),
];
const POST_REQUIRES_READ: MethodScopes = &[(Method::Post, Some(Scope::Read))];
const POST_REQUIRES_RM: MethodScopes = &[(Method::Post, Some(Scope::Rm))];
const POST_REQUIRES_LIST: MethodScopes = &[(Method::Post, Some(Scope::List))];
const GET_REQUIRES_LIST: MethodScopes = &[(Method::Get, Some(Scope::List)), (Method::Head, Some(Scope::List))];
const GET_WITHOUT_SCOPE: MethodScopes = &[(Method::Get, None), (Method::Head, None)];

/// All routes of the OpenAPI document, with their methods.
pub(in crate::server) const ROUTES: [(&str, MethodScopes); 12] = [
    ("/messages", COLLECTION_METHODS),
    ("/messages/missing", POST_REQUIRES_READ),
    ("/messages/get", POST_REQUIRES_READ),
    ("/messages/remove", POST_REQUIRES_RM),
    (MESSAGE_PATH, MESSAGE_METHODS),
    ("/stats", GET_REQUIRES_LIST),
    ("/verify", POST_REQUIRES_LIST),
    ("/repair", POST_REQUIRES_RM),
    ("/livez", GET_WITHOUT_SCOPE),
    ("/readyz", GET_WITHOUT_SCOPE),
    ("/metrics", GET_REQUIRES_LIST),
    ("/openapi.json", GET_WITHOUT_SCOPE),
];
const MESSAGE_PATH: &str = "/messages/{digest}";

/// Returns the name of the route of `path` in metrics: the path template, or `other` for an unknown path.
pub(in crate::server) fn route_name(path: &str) -> &'static str {
    if path == ui::ROOT {
        return ui::ROOT;
    }
    find_route(path).map_or("other", |(template, _)| template)
}

/// Returns the form of `path` in the access log. Only the first 8 digits of a digest are logged: they tell messages
/// apart, but do not give access to them.
pub(in crate::server) fn redacted_path(path: &str) -> String {
    match digest_from_path(path) {
        Some(digest) => format!("/messages/{}", &digest.to_string()[..8]),
        None => route_name(path).to_owned(),
    }
}

/// Returns the scope that `request` requires. A method whose scope is not in `enabled` is 405, an unknown path 404.
pub(in crate::server) fn required_scope(request: &Request, enabled: Scopes) -> Result<Option<Scope>, Response> {
    let (_, methods) = find_route(&request.path).ok_or_else(|| Response::error(404, "Not found"))?;
    let allowed = || methods.iter().filter(|(_, scope)| scope.is_none_or(|scope| enabled.contains(scope)));
    if let Some((_, scope)) = allowed().find(|(method, _)| *method == request.method) {
        return Ok(*scope);
    }
    let names: Vec<_> = allowed().map(|(method, _)| method.as_str()).collect();
    Err(Response::error(405, "Method not allowed").with_header("Allow", &names.join(", ")))
}

/// Returns the digest in the path of a message, or `None` for any other path.
pub(in crate::server) fn digest_from_path(path: &str) -> Option<Digest> {
    path.strip_prefix("/messages/")?.parse().ok()
}

/// Returns the template and the methods of the route of `path`, or `None` if there is no such route.
fn find_route(path: &str) -> Option<(&'static str, MethodScopes)> {
    let exact = ROUTES.into_iter().find(|(template, _)| *template == path && *template != MESSAGE_PATH);
    exact.or_else(|| path.starts_with("/messages/").then_some((MESSAGE_PATH, MESSAGE_METHODS)))
}
