//! The JSON that goes between programs: what `--json`, `export` and the server write, and `import` and the client read.
//! A message is text where it is UTF-8, else base64 (RFC 4648); times are RFC 3339.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::digest::Digest;

/// A message on its way out: `{"digest", "message"}` or `{"digest", "base64"}`.
#[derive(Debug, Serialize)]
pub struct JsonMessage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl<'a> JsonMessage<'a> {
    /// Chooses the form.
    pub fn new(digest: Option<Digest>, message: &'a [u8]) -> Self {
        let text = std::str::from_utf8(message).ok();
        Self { digest, message: text, base64: text.is_none().then(|| BASE64_STANDARD.encode(message)) }
    }
}

/// A message on its way in, in either form, and the digest that it is said to have.
#[derive(Debug, PartialEq, Eq)]
pub struct ParsedMessage {
    /// What the other side says; not checked.
    pub digest: Option<Digest>,
    /// The bytes.
    pub message: Vec<u8>,
}

impl<'de> Deserialize<'de> for ParsedMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct RawMessage {
            digest: Option<Digest>,
            message: Option<String>,
            base64: Option<String>,
        }
        let RawMessage { digest, message, base64 } = RawMessage::deserialize(deserializer)?;
        let message = match (message, base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => BASE64_STANDARD.decode(text).map_err(D::Error::custom)?,
            (None, None) => return Err(D::Error::custom("neither `message` nor `base64` is there")),
            (Some(_), Some(_)) => return Err(D::Error::custom("both `message` and `base64` are there")),
        };
        Ok(Self { digest, message })
    }
}

/// A time, as RFC 3339; for `#[serde(with = …)]`.
pub mod rfc3339 {
    use super::{Deserialize, Deserializer, OffsetDateTime, Rfc3339, Serializer, SystemTime};
    use serde::de::Error as _;
    use serde::ser::Error as _;

    /// Writes it.
    pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        let text = OffsetDateTime::from(*time).format(&Rfc3339).map_err(S::Error::custom)?;
        serializer.serialize_str(&text)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339).map(Into::into).map_err(D::Error::custom)
    }

    /// The same for a time that may be missing.
    pub mod option {
        use super::{Deserialize, Deserializer, OffsetDateTime, Rfc3339, Serializer, SystemTime};
        use serde::de::Error as _;

        /// Writes it, or `null`.
        #[allow(clippy::ref_option, reason = "the form that serde calls")]
        pub fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }

        /// Reads it, or `null`.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            let parse = |text: String| OffsetDateTime::parse(&text, &Rfc3339).map(Into::into).map_err(D::Error::custom);
            text.map(parse).transpose()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip_in_both_encodings() {
        for message in [b"".as_slice(), b"foo", "\u{2028}\"\\".as_bytes(), b"\xff\x00"] {
            let digest = Some(Digest::compute(message));
            let line = serde_json::to_string(&JsonMessage::new(digest, message)).unwrap();
            let back: ParsedMessage = serde_json::from_str(&line).unwrap();
            assert_eq!(back, ParsedMessage { digest, message: message.to_vec() }, "{line}");
        }
    }

    #[test]
    fn invalid_messages_are_rejected_with_a_reason() {
        for (line, why) in [
            ("{}", "neither"),
            (r#"{"message": "a", "base64": "YQ=="}"#, "both"),
            (r#"{"base64": "Y"}"#, "Invalid"),
            (r#"{"message": "a", "digest": "2c26"}"#, "64 hex digits"),
            (r#"{"message": 1}"#, "string"),
        ] {
            let error = serde_json::from_str::<ParsedMessage>(line).unwrap_err().to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
