//! Scopes, which a token permits and a route requires.

use std::fmt;
use std::str::FromStr;

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
    pub(in crate::server) const ANONYMOUS: Self = Self::from_slice(&[Scope::Read, Scope::Write]);

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

    pub(in crate::server) const fn intersection(self, other: Self) -> Self {
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
}
