//! A digest is checked where it enters the program; inside, a [`Digest`] cannot be wrong.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Digest as _;

/// The SHA-256 (FIPS 180-4) of a message. Its text form is 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

/// Why a text is neither a digest nor a prefix of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Something else than hex digits.
    #[error("a digest is made of hex digits only")]
    NotHex,
    /// Not the length of a digest.
    #[error("a digest has 64 hex digits, this has {0}")]
    Length(usize),
    /// Too short to be a prefix.
    #[error("a prefix of a digest needs at least {shortest} hex digits, this has {given}", shortest = Prefix::MIN_DIGITS, given = .0)]
    Short(usize),
}

impl Digest {
    /// The digest of `message`.
    pub fn compute(message: &[u8]) -> Self {
        Self(sha2::Sha256::digest(message).into())
    }

    /// Takes the 32 bytes as they are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its first bytes, as a number: in the order of digests, but different ones may share it.
    pub fn prefix_u64(&self) -> u64 {
        u64::from_be_bytes(*self.0.first_chunk().expect("a digest is longer"))
    }

    /// Whether `message` is what this digest names.
    pub fn matches(&self, message: &[u8]) -> bool {
        Self::compute(message) == *self
    }
}

impl Ord for Digest {
    /// The order of their bytes. Nearly always the first of them tell.
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
    /// Of its first bytes alone: nobody finds more than a few messages whose digests share them.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.prefix_u64());
    }
}

impl FromStr for Digest {
    type Err = ParseError;

    /// Reads 64 hex digits of either case.
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
        hex::encode_to_slice(self.0, &mut text).expect("64 bytes hold 32 in hex");
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

/// The first hex digits of a digest, 0 to 64 of them: names all digests that begin so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    first: Digest,
    last: Digest,
}

impl Prefix {
    /// The fewest hex digits that a command takes in place of a digest.
    pub const MIN_DIGITS: usize = 8;

    /// The prefix of every digest.
    pub const ALL: Self = Self { first: Digest([0; 32]), last: Digest([0xff; 32]) };

    /// The digests that begin with this prefix, first and last possible.
    pub const fn range(&self) -> RangeInclusive<Digest> {
        self.first..=self.last
    }

    /// The digest itself, if all 64 digits were given.
    pub fn to_digest(&self) -> Option<Digest> {
        (self.first == self.last).then_some(self.first)
    }

    /// Reads a prefix that is long enough to stand for a digest.
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

    /// Reads 0 to 64 hex digits of either case.
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
    fn the_digest_of_foo_is_what_sha256sum_prints() {
        assert_eq!(Digest::compute(b"foo").to_string(), FOO);
    }

    #[test]
    fn either_case_is_read_and_lower_case_is_written() {
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
    fn a_prefix_matches_exactly_the_digests_that_begin_with_it() {
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
