//! Who may do what: scopes, and the decision over one request. It is made from the head alone, before any body is
//! read and before the cache is asked.

use std::fmt;
use std::str::FromStr;

use super::api::Response;
use super::token_file::TokenFile;
use crate::digest::Digest;

/// One kind of thing that a client can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Get messages, and ask whether they are there.
    Read,
    /// Put messages.
    Write,
    /// List digests, and read what the server counts.
    List,
    /// Remove messages.
    Rm,
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

/// A word that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no scope; there are read, write, list and rm")]
pub struct UnknownScope(String);

/// What the server does for whom.
pub(super) struct Authorizer {
    /// What it does at all.
    enabled: Scopes,
    /// `None`: everyone may do what needs no token.
    token_file: Option<TokenFile>,
}

/// On whose word a request is carried out, or the reply that it gets instead.
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
    /// Everything.
    pub const ALL: Self = Self::from_slice(&Scope::ALL);
    /// What leaves all messages as they are, and adds none.
    pub const READ_ONLY: Self = Self::from_slice(&[Scope::Read, Scope::List]);
    /// What removes nothing.
    pub const APPEND_ONLY: Self = Self::from_slice(&[Scope::Read, Scope::Write, Scope::List]);
    /// What needs no token where there are none.
    pub(super) const ANONYMOUS: Self = Self::from_slice(&[Scope::Read, Scope::Write]);

    const fn from_slice(scopes: &[Scope]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < scopes.len() {
            bits |= 1 << scopes[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Whether `scope` is one of them.
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
        let one = |word: &str| {
            let found = Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
            found.ok_or_else(|| UnknownScope(word.to_owned()))
        };
        let scopes: Vec<_> = text.split(',').map(one).collect::<Result<_, _>>()?;
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
    pub(super) const fn new(offered: Scopes, tokens: Option<TokenFile>) -> Self {
        Self { enabled: offered, token_file: tokens }
    }

    /// What the server does at all.
    pub(super) const fn enabled(&self) -> Scopes {
        self.enabled
    }

    pub(super) const fn token_file(&self) -> Option<&TokenFile> {
        self.token_file.as_ref()
    }

    /// Decides over a request that takes `scope`, made with the token of this digest.
    pub(super) fn authorize(&self, scope: Scope, token: Option<Digest>) -> AuthorizationResult {
        let Some(tokens) = &self.token_file else {
            return match Scopes::ANONYMOUS.contains(scope) {
                true => Ok(None),
                false => Err(Response::error(403, "Not permitted without tokens")),
            };
        };
        match token.and_then(|token| tokens.lookup(token)) {
            None => Err(Response::error(401, "A valid token is needed").with_header("WWW-Authenticate", "Bearer")),
            Some(holder) if holder.scopes.contains(scope) => Ok(Some(holder.name)),
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
        for bad in ["", "read,", "Read", "read, write", "all"] {
            assert!(bad.parse::<Scopes>().is_err(), "{bad}");
        }
    }

    #[test]
    fn without_tokens_read_and_write_are_allowed_and_list_and_rm_are_denied() {
        let rights = Authorizer::new(Scopes::ALL, None);
        for (scope, may) in [(Scope::Read, true), (Scope::Write, true), (Scope::List, false), (Scope::Rm, false)] {
            assert_eq!(rights.authorize(scope, None).is_ok(), may, "{scope:?}");
        }
    }
}
