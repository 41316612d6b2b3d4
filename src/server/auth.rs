//! The authorisation of requests. The decision needs the request head only. Only an [`Authorized`] request reaches the
//! hot cache, the store or the engine.

pub(super) mod scopes;
pub mod token_file;

use super::api::{self, BuiltinRoute, Method, Request, Response, Route};
use crate::digest::Digest;
pub use scopes::{Scope, Scopes};
use token_file::TokenFile;

/// The kind of endpoint that received a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndpointKind {
    /// Serves the API.
    Public,
    /// Serves the metrics and the probes only.
    Metrics,
    /// The Unix socket in the store directory. Grants all scopes, because its clients can read the store's files.
    Local,
}

/// The endpoint that serves the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetricsAt {
    /// The public endpoint. The metrics are public unless there is a token file.
    Public,
    /// An endpoint of their own.
    Separate,
}

/// Decides which requests are permitted.
pub(super) struct Auth {
    /// Scopes that the server offers to anyone.
    pub(super) enabled: Scopes,
    /// `None`: every client is anonymous.
    pub(super) token_file: Option<TokenFile>,
    pub(super) metrics_at: MetricsAt,
    /// The web page is served.
    pub(super) ui_enabled: bool,
}

/// A request that passed the authorisation.
#[derive(Debug)]
pub(super) struct Authorized(Request);

impl Authorized {
    /// Returns the request.
    pub(super) const fn request(&self) -> &Request {
        &self.0
    }

    /// Returns the body, which is received after the authorisation.
    pub(super) const fn body_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0.body
    }

    /// Converts into the request.
    pub(super) fn into_request(self) -> Request {
        self.0
    }

    /// Creates the batch request for lines of authorised puts, as [`Authorized::batch_line`] returned them.
    pub(super) fn batch(lines: Vec<u8>) -> Self {
        Self(api::coalesce::batch_request(lines))
    }

    /// Returns the batch line of a put that can be coalesced with others.
    pub(super) fn batch_line(&self) -> Option<Vec<u8>> {
        api::coalesce::to_batch_line(&self.0)
    }

    #[cfg(test)]
    pub(super) const fn for_test(request: Request) -> Self {
        Self(request)
    }
}

impl Auth {
    /// Decides from the head alone whether `request` may be executed. `token` is the digest of the bearer token.
    ///
    /// Returns also the name of the token (`None`: anonymous), or the response to a request that must not be executed.
    pub(super) fn authorize(
        &self,
        request: Request,
        token: Option<Digest>,
        endpoint: EndpointKind,
    ) -> Result<(Authorized, Option<String>), Response> {
        // The page contains no messages, so it needs no token. It is available before the store is open.
        if self.ui_enabled
            && endpoint != EndpointKind::Metrics
            && let Some(page) = api::ui_response(&request)
        {
            return Err(page);
        }
        let user = match self.required_scope(request.method, request.route, endpoint)? {
            Some(scope) => self.check_token(scope, token)?,
            None => None,
        };
        Ok((Authorized(request), user))
    }

    /// Returns the scope that a client at `endpoint` needs, or the response if the endpoint does not serve the route.
    fn required_scope(&self, method: Method, route: Route, endpoint: EndpointKind) -> Result<Option<Scope>, Response> {
        let scope = route.required_scope(method, self.enabled)?;
        match (endpoint, route) {
            (EndpointKind::Local, _) | (EndpointKind::Metrics, Route::Builtin(_)) => Ok(None),
            (EndpointKind::Metrics, _) => Err(Response::error(404, "Not found")),
            (EndpointKind::Public, Route::Builtin(BuiltinRoute::Metrics)) => {
                match (self.metrics_at, &self.token_file) {
                    (MetricsAt::Separate, _) => Err(Response::error(404, "Not found")),
                    (MetricsAt::Public, None) => Ok(None),
                    (MetricsAt::Public, Some(_)) => Ok(scope),
                }
            }
            (EndpointKind::Public, _) => Ok(scope),
        }
    }

    /// Returns the name of a token that permits `scope`, or `None` if an anonymous client has it.
    fn check_token(&self, scope: Scope, token: Option<Digest>) -> Result<Option<String>, Response> {
        let Some(token_file) = &self.token_file else {
            return match Scopes::ANONYMOUS.contains(scope) {
                true => Ok(None),
                false => Err(Response::error(403, "Not permitted without tokens")),
            };
        };
        match token.and_then(|token| token_file.lookup(token)) {
            None => Err(Response::error(401, "A valid token is needed").with_header("WWW-Authenticate", "Bearer")),
            Some(entry) if entry.scopes.contains(scope) => Ok(Some(entry.name)),
            Some(_) => Err(Response::error(403, "The token does not permit this")),
        }
    }

    /// Reloads the token file.
    pub(super) fn reload(&self) {
        if let Some(tokens) = &self.token_file {
            tokens.reload();
        }
    }

    /// Reloads the token file if it changed.
    pub(super) fn reload_if_changed(&self) {
        if let Some(tokens) = &self.token_file {
            tokens.reload_if_changed();
        }
    }

    /// Creates the configuration without tokens.
    #[cfg(test)]
    pub(super) const fn for_test() -> Self {
        Self { enabled: Scopes::ALL, token_file: None, metrics_at: MetricsAt::Public, ui_enabled: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tokens_read_and_write_are_allowed_and_list_and_rm_are_denied() {
        let message = format!("/messages/{}", Digest::compute(b""));
        for (method, path, allowed) in [
            (Method::Get, message.as_str(), true),
            (Method::Put, &message, true),
            (Method::Get, "/messages", false),
            (Method::Delete, &message, false),
        ] {
            let request = Request::new(method, path);
            let outcome = Auth::for_test().authorize(request, None, EndpointKind::Public);
            assert_eq!(outcome.is_ok(), allowed, "{method:?} {path}");
        }
    }
}
