//! The routes: the only file that knows paths, their methods and the required scopes. The path of a request is resolved
//! once, when the request is created.

use super::method::Method;
use crate::digest::Digest;
use crate::server::auth::scopes::{Scope, Scopes};

/// The resource that the path of a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Route {
    /// The web page.
    Page,
    Messages,
    Missing,
    GetBatch,
    RemoveBatch,
    Message(Digest),
    /// A path below `/messages/` that is not a digest.
    InvalidDigest,
    Stats,
    Verify,
    Repair,
    Builtin(BuiltinRoute),
    /// A path outside the API.
    Unknown,
}

/// A route that needs no store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum BuiltinRoute {
    Live,
    Ready,
    Metrics,
    OpenApi,
}

/// The error for a request that no route accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum RouteError {
    NotFound,
    /// The value of `Allow`.
    MethodNotAllowed(String),
}

/// Methods of a route, each with the scope that it requires. `None` requires no scope.
type MethodScopes = &'static [(Method, Option<Scope>)];

const MESSAGE_TEMPLATE: &str = "/messages/{digest}";
const MESSAGE_PREFIX: &str = "/messages/";
const MESSAGE_METHODS: MethodScopes = &[
    (Method::Get, Some(Scope::Read)),
    (Method::Head, Some(Scope::Read)),
    (Method::Put, Some(Scope::Write)),
    (Method::Delete, Some(Scope::Rm)),
];
const COLLECTION_METHODS: MethodScopes =
    &[(Method::Get, Some(Scope::List)), (Method::Head, Some(Scope::List)), (Method::Post, Some(Scope::Write))];
const POST_REQUIRES_READ: MethodScopes = &[(Method::Post, Some(Scope::Read))];
const POST_REQUIRES_RM: MethodScopes = &[(Method::Post, Some(Scope::Rm))];
const POST_REQUIRES_LIST: MethodScopes = &[(Method::Post, Some(Scope::List))];
const GET_REQUIRES_LIST: MethodScopes = &[(Method::Get, Some(Scope::List)), (Method::Head, Some(Scope::List))];
const GET_WITHOUT_SCOPE: MethodScopes = &[(Method::Get, None), (Method::Head, None)];
/// The API answers 404; the web page is answered before.
const NO_METHODS: MethodScopes = &[];

/// All routes with a fixed path.
const FIXED_PATHS: [(&str, Route, MethodScopes); 12] = [
    ("/", Route::Page, NO_METHODS),
    ("/messages", Route::Messages, COLLECTION_METHODS),
    ("/messages/missing", Route::Missing, POST_REQUIRES_READ),
    ("/messages/get", Route::GetBatch, POST_REQUIRES_READ),
    ("/messages/remove", Route::RemoveBatch, POST_REQUIRES_RM),
    ("/stats", Route::Stats, GET_REQUIRES_LIST),
    ("/verify", Route::Verify, POST_REQUIRES_LIST),
    ("/repair", Route::Repair, POST_REQUIRES_RM),
    ("/livez", Route::Builtin(BuiltinRoute::Live), GET_WITHOUT_SCOPE),
    ("/readyz", Route::Builtin(BuiltinRoute::Ready), GET_WITHOUT_SCOPE),
    ("/metrics", Route::Builtin(BuiltinRoute::Metrics), GET_REQUIRES_LIST),
    ("/openapi.json", Route::Builtin(BuiltinRoute::OpenApi), GET_WITHOUT_SCOPE),
];

impl Route {
    /// Resolves `path`, which is not percent-decoded.
    pub(in crate::server) fn resolve(path: &str) -> Self {
        if let Some((_, route, _)) = FIXED_PATHS.iter().find(|(fixed, ..)| *fixed == path) {
            return *route;
        }
        match path.strip_prefix(MESSAGE_PREFIX) {
            Some(name) => name.parse().map_or(Self::InvalidDigest, Self::Message),
            None => Self::Unknown,
        }
    }

    /// Returns the path template, or `other` for a path outside the API.
    pub(in crate::server) fn name(self) -> &'static str {
        self.entry().0
    }

    /// Returns the path for the access log. Only the first 8 digits of a digest are logged: they tell messages apart,
    /// but do not give access to them.
    pub(in crate::server) fn redacted_path(self) -> String {
        match self {
            Self::Message(digest) => format!("{MESSAGE_PREFIX}{}", &digest.to_string()[..8]),
            _ => self.name().to_owned(),
        }
    }

    /// Returns the scope that `method` requires. A method whose scope is not in `enabled` is not allowed.
    pub(in crate::server) fn required_scope(
        self,
        method: Method,
        enabled: Scopes,
    ) -> Result<Option<Scope>, RouteError> {
        let (_, methods) = self.entry();
        if methods.is_empty() {
            return Err(RouteError::NotFound);
        }
        let allowed = || methods.iter().filter(|(_, scope)| scope.is_none_or(|scope| enabled.contains(scope)));
        if let Some((_, scope)) = allowed().find(|(allowed, _)| *allowed == method) {
            return Ok(*scope);
        }
        let names: Vec<_> = allowed().map(|(method, _)| method.as_str()).collect();
        Err(RouteError::MethodNotAllowed(names.join(", ")))
    }

    fn entry(self) -> (&'static str, MethodScopes) {
        match self {
            Self::Message(_) | Self::InvalidDigest => (MESSAGE_TEMPLATE, MESSAGE_METHODS),
            fixed => FIXED_PATHS
                .iter()
                .find(|(_, route, _)| *route == fixed)
                .map_or(("other", NO_METHODS), |(path, _, methods)| (*path, *methods)),
        }
    }

    /// Returns the path template and the method names of each route of the API.
    #[cfg(test)]
    pub(super) fn all() -> Vec<(String, String)> {
        let fixed = FIXED_PATHS.map(|(path, _, methods)| (path, methods));
        let routes = fixed.into_iter().chain([(MESSAGE_TEMPLATE, MESSAGE_METHODS)]);
        let method_names = |(path, methods): (&str, MethodScopes)| {
            let pair = |(method, _): &(Method, Option<Scope>)| (path.to_owned(), method.as_str().to_owned());
            methods.iter().map(pair).collect::<Vec<_>>()
        };
        routes.flat_map(method_names).collect()
    }
}
