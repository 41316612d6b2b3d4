//! Digests and prefixes of digests. Text is validated when it is parsed, so every [`Digest`] is well-formed.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Digest as _;

/// SHA-256 (FIPS 180-4) of a message. Its text form is 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

/// Reason why a text is not a digest or a prefix of a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text contains a character that is not a hex digit.
    #[error("only hex digits are allowed")]
    NotHex,
    /// The text does not have the length of a digest.
    #[error("expected 64 hex digits, got {0}")]
    Length(usize),
    /// The prefix is shorter than [`Prefix::MIN_DIGITS`].
    #[error("expected at least {min} hex digits, got {given}", min = Prefix::MIN_DIGITS, given = .0)]
    Short(usize),
}

impl Digest {
    /// Returns the digest of `message`.
    pub fn compute(message: &[u8]) -> Self {
        Self(sha2::Sha256::digest(message).into())
    }

    /// Creates a digest from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first 8 bytes as a big-endian number. It is ordered like the digest, but not unique.
    pub fn prefix_u64(&self) -> u64 {
        u64::from_be_bytes(*self.0.first_chunk().expect("a digest has 32 bytes"))
    }

    /// Returns whether `message` has this digest.
    pub fn matches(&self, message: &[u8]) -> bool {
        Self::compute(message) == *self
    }
}

impl Ord for Digest {
    /// Compares byte by byte. The first 8 bytes are compared as a number, since they nearly always differ.
    fn cmp(&self, other: &Self) -> Ordering {
        self.prefix_u64().cmp(&other.prefix_u64()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Digest {
    /// Hashes the first 8 bytes only. Finding many messages whose digests share them is infeasible.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.prefix_u64());
    }
}

impl FromStr for Digest {
    type Err = ParseError;

    /// Parses 64 hex digits in lower or upper case.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut bytes = [0; 32];
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) => Ok(Self(bytes)),
            Err(hex::FromHexError::InvalidHexCharacter { .. }) => Err(ParseError::NotHex),
            Err(_) if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => Err(ParseError::Length(text.len())),
            Err(_) => Err(ParseError::NotHex),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 64];
        hex::encode_to_slice(self.0, &mut text).expect("32 bytes are 64 hex digits");
        f.write_str(std::str::from_utf8(&text).expect("hex is ASCII"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The first 0 to 64 hex digits of a digest, stored as the range of the digests that begin with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    first: Digest,
    last: Digest,
}

impl Prefix {
    /// Minimum number of hex digits that a command accepts in place of a digest.
    pub const MIN_DIGITS: usize = 8;

    /// The empty prefix, which matches every digest.
    pub const ALL: Self = Self { first: Digest([0; 32]), last: Digest([0xff; 32]) };

    /// Returns the range of all digests that begin with this prefix.
    pub const fn range(&self) -> RangeInclusive<Digest> {
        self.first..=self.last
    }

    /// Returns the digest if the prefix has all 64 hex digits.
    pub fn to_digest(&self) -> Option<Digest> {
        (self.first == self.last).then_some(self.first)
    }

    /// Parses a prefix of at least [`Prefix::MIN_DIGITS`] hex digits.
    pub fn parse_unambiguous(text: &str) -> Result<Self, ParseError> {
        let prefix = text.parse()?;
        if text.len() < Self::MIN_DIGITS {
            return Err(ParseError::Short(text.len()));
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first.to_string(), self.last.to_string());
        let shared = first.bytes().zip(last.bytes()).take_while(|(first, last)| first == last).count();
        f.write_str(&first[..shared])
    }
}

impl FromStr for Prefix {
    type Err = ParseError;

    /// Parses 0 to 64 hex digits in lower or upper case.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseError::NotHex);
        }
        if text.len() > 64 {
            return Err(ParseError::Length(text.len()));
        }
        Ok(Self { first: format!("{text:0<64}").parse()?, last: format!("{text:f<64}").parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOO: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

    #[test]
    fn the_digest_of_foo_equals_the_output_of_sha256sum() {
        assert_eq!(Digest::compute(b"foo").to_string(), FOO);
    }

    #[test]
    fn both_cases_are_parsed_and_lower_case_is_printed() {
        assert_eq!(FOO.to_uppercase().parse::<Digest>().unwrap().to_string(), FOO);
    }

    #[test]
    fn invalid_digests_are_rejected_with_a_reason() {
        assert_eq!("2c26".parse::<Digest>(), Err(ParseError::Length(4)));
        assert_eq!("".parse::<Digest>(), Err(ParseError::Length(0)));
        assert_eq!(format!("{FOO}0").parse::<Digest>(), Err(ParseError::Length(65)));
        assert_eq!(FOO.replace('2', "g").parse::<Digest>(), Err(ParseError::NotHex));
        assert_eq!("über".parse::<Digest>(), Err(ParseError::NotHex));
    }

    #[test]
    fn a_prefix_matches_only_the_digests_that_begin_with_it() {
        let foo: Digest = FOO.parse().unwrap();
        for end in 0..=64 {
            let prefix: Prefix = FOO[..end].parse().unwrap();
            assert!(prefix.range().contains(&foo), "{end}");
            assert_eq!(prefix.to_digest(), (end == 64).then_some(foo));
            assert_eq!(prefix.to_string(), FOO[..end]);
        }
        let odd: Prefix = "2c2".parse().unwrap();
        assert!(!odd.range().contains(&format!("2c3{}", &FOO[3..]).parse().unwrap()));
        assert!(!odd.range().contains(&format!("2c1{}", &FOO[3..]).parse().unwrap()));
    }

    #[test]
    fn a_prefix_of_seven_digits_is_too_short() {
        assert_eq!(Prefix::parse_unambiguous(&FOO[..7]), Err(ParseError::Short(7)));
        assert!(Prefix::parse_unambiguous(&FOO[..8]).is_ok());
    }
}
