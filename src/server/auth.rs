//! The authorisation of a request. The decision needs the request head only, and precedes reading the body
//! and looking in the hot cache.

pub(super) mod scopes;

use super::api::Response;
use super::token_file::TokenFile;
use crate::digest::Digest;
pub use scopes::{Scope, Scopes};

/// Decides which requests are permitted.
pub(super) struct Authorizer {
    /// Scopes that the server offers to anyone.
    enabled: Scopes,
    /// `None`: every client is anonymous.
    token_file: Option<TokenFile>,
}

/// Name of the token (`None`: anonymous), or the error response.
pub(super) type AuthorizationResult = Result<Option<String>, Response>;

impl Authorizer {
    pub(super) const fn new(enabled: Scopes, token_file: Option<TokenFile>) -> Self {
        Self { enabled, token_file }
    }

    /// Returns the scopes that the server offers.
    pub(super) const fn enabled(&self) -> Scopes {
        self.enabled
    }

    pub(super) const fn token_file(&self) -> Option<&TokenFile> {
        self.token_file.as_ref()
    }

    /// Decides whether a request that needs `scope` is permitted. `token` is the digest of the bearer token.
    pub(super) fn authorize(&self, scope: Scope, token: Option<Digest>) -> AuthorizationResult {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tokens_read_and_write_are_allowed_and_list_and_rm_are_denied() {
        let authorizer = Authorizer::new(Scopes::ALL, None);
        for (scope, allowed) in [(Scope::Read, true), (Scope::Write, true), (Scope::List, false), (Scope::Rm, false)] {
            assert_eq!(authorizer.authorize(scope, None).is_ok(), allowed, "{scope:?}");
        }
    }
}
