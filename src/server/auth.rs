//! Scopes, and the authorisation of a request. The decision needs the request head only, and precedes reading the body
//! and looking in the hot cache.

use std::fmt;
use std::str::FromStr;

use super::api::Response;
use super::token_file::TokenFile;
use crate::digest::Digest;

/// A group of operations that a token can permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Get messages and check whether they exist.
    Read,
    /// Put messages.
    Write,
    /// List digests and read the metrics.
    List,
    /// Remove messages.
    Rm,
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

/// The error for a word that does not name a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scope; the scopes are read, write, list and rm")]
pub struct UnknownScope(String);

/// Decides which requests are permitted.
pub(super) struct Authorizer {
    /// Scopes that the server offers to anyone.
    enabled: Scopes,
    /// `None`: every client is anonymous.
    token_file: Option<TokenFile>,
}

/// Name of the token (`None`: anonymous), or the error response.
pub(super) type AuthorizationResult = Result<Option<String>, Response>;

impl Scope {
    const ALL: [Self; 4] = [Self::Read, Self::Write, Self::List, Self::Rm];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::List => "list",
            Self::Rm => "rm",
        }
    }
}

impl Scopes {
    /// All scopes.
    pub const ALL: Self = Self::from_slice(&Scope::ALL);
    /// Scopes that change nothing.
    pub const READ_ONLY: Self = Self::from_slice(&[Scope::Read, Scope::List]);
    /// Scopes that remove nothing.
    pub const APPEND_ONLY: Self = Self::from_slice(&[Scope::Read, Scope::Write, Scope::List]);
    /// Scopes of every client if there is no token file.
    pub(super) const ANONYMOUS: Self = Self::from_slice(&[Scope::Read, Scope::Write]);

    const fn from_slice(scopes: &[Scope]) -> Self {
        let (mut bits, mut index) = (0, 0);
        while index < scopes.len() {
            bits |= 1 << scopes[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    /// Returns whether `scope` is in the set.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    pub(super) const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let parse_scope = |word: &str| {
            let found = Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
            found.ok_or_else(|| UnknownScope(word.to_owned()))
        };
        let scopes: Vec<_> = text.split(',').map(parse_scope).collect::<Result<_, _>>()?;
        Ok(Self::from_slice(&scopes))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = Scope::ALL.into_iter().filter(|scope| self.contains(*scope)).map(Scope::as_str).collect();
        f.write_str(&words.join(","))
    }
}

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
    fn parsing_and_displaying_scopes_round_trips() {
        for text in ["read", "read,write", "read,write,list,rm", "rm"] {
            assert_eq!(text.parse::<Scopes>().unwrap().to_string(), text);
        }
        assert_eq!("rm,read,rm".parse::<Scopes>().unwrap().to_string(), "read,rm");
        for invalid in ["", "read,", "Read", "read, write", "all"] {
            assert!(invalid.parse::<Scopes>().is_err(), "{invalid}");
        }
    }

    #[test]
    fn without_tokens_read_and_write_are_allowed_and_list_and_rm_are_denied() {
        let authorizer = Authorizer::new(Scopes::ALL, None);
        for (scope, allowed) in [(Scope::Read, true), (Scope::Write, true), (Scope::List, false), (Scope::Rm, false)] {
            assert_eq!(authorizer.authorize(scope, None).is_ok(), allowed, "{scope:?}");
        }
    }
}
