//! Who may do what: scopes, and the decision over one request. It is made from the head alone, before any body is
//! read and before the cache is asked.

use std::fmt;
use std::str::FromStr;

use super::api::Reply;
use super::tokens::Tokens;
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
pub struct Unknown(String);

/// What the server does for whom.
pub(super) struct Rights {
    /// What it does at all.
    offered: Scopes,
    /// `None`: everyone may do what needs no token.
    tokens: Option<Tokens>,
}

/// On whose word a request is carried out, or the reply that it gets instead.
pub(super) type Verdict = Result<Option<String>, Reply>;

impl Scope {
    const ALL: [Self; 4] = [Self::Read, Self::Write, Self::List, Self::Rm];

    const fn word(self) -> &'static str {
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
    pub const ALL: Self = Self::of(&Scope::ALL);
    /// What leaves all messages as they are, and adds none.
    pub const READ_ONLY: Self = Self::of(&[Scope::Read, Scope::List]);
    /// What removes nothing.
    pub const APPEND_ONLY: Self = Self::of(&[Scope::Read, Scope::Write, Scope::List]);
    /// What needs no token where there are none.
    pub(super) const ANYONE: Self = Self::of(&[Scope::Read, Scope::Write]);

    const fn of(scopes: &[Scope]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < scopes.len() {
            bits |= 1 << scopes[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Whether `scope` is one of them.
    pub const fn hold(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromStr for Scopes {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let one = |word: &str| {
            let found = Scope::ALL.into_iter().find(|scope| scope.word() == word);
            found.ok_or_else(|| Unknown(word.to_owned()))
        };
        let scopes: Vec<_> = text.split(',').map(one).collect::<Result<_, _>>()?;
        Ok(Self::of(&scopes))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = Scope::ALL.into_iter().filter(|scope| self.hold(*scope)).map(Scope::word).collect();
        f.write_str(&words.join(","))
    }
}

impl Rights {
    pub(super) const fn new(offered: Scopes, tokens: Option<Tokens>) -> Self {
        Self { offered, tokens }
    }

    /// What the server does at all.
    pub(super) const fn offered(&self) -> Scopes {
        self.offered
    }

    pub(super) const fn tokens(&self) -> Option<&Tokens> {
        self.tokens.as_ref()
    }

    /// Decides over a request that takes `scope`, made with the token of this digest.
    pub(super) fn decide(&self, scope: Scope, token: Option<Digest>) -> Verdict {
        let Some(tokens) = &self.tokens else {
            return match Scopes::ANYONE.hold(scope) {
                true => Ok(None),
                false => Err(Reply::error(403, "Not permitted without tokens")),
            };
        };
        match token.and_then(|token| tokens.find(token)) {
            None => Err(Reply::error(401, "A valid token is needed").with("WWW-Authenticate", "Bearer")),
            Some(holder) if holder.scopes.hold(scope) => Ok(Some(holder.name)),
            Some(_) => Err(Reply::error(403, "The token does not permit this")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for text in ["read", "read,write", "read,write,list,rm", "rm"] {
            assert_eq!(text.parse::<Scopes>().unwrap().to_string(), text);
        }
        assert_eq!("rm,read,rm".parse::<Scopes>().unwrap().to_string(), "read,rm");
        for bad in ["", "read,", "Read", "read, write", "all"] {
            assert!(bad.parse::<Scopes>().is_err(), "{bad}");
        }
    }

    #[test]
    fn without_tokens_everyone_reads_and_writes_and_nobody_lists_or_removes() {
        let rights = Rights::new(Scopes::ALL, None);
        for (scope, may) in [(Scope::Read, true), (Scope::Write, true), (Scope::List, false), (Scope::Rm, false)] {
            assert_eq!(rights.decide(scope, None).is_ok(), may, "{scope:?}");
        }
    }
}
