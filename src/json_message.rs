//! The JSON form of messages and times in `--json` output, exports, and requests and responses of the server.
//! A message is a string if it is UTF-8, otherwise base64 (RFC 4648). Times have the format of RFC 3339.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::digest::Digest;

/// A message to be serialized, as `{"digest", "message"}` or `{"digest", "base64"}`.
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
    /// Creates the JSON form of `message`; `digest` is omitted if it is `None`.
    pub fn new(digest: Option<Digest>, message: &'a [u8]) -> Self {
        let text = std::str::from_utf8(message).ok();
        Self { digest, message: text, base64: text.is_none().then(|| BASE64_STANDARD.encode(message)) }
    }
}

/// A message parsed from either form.
#[derive(Debug, PartialEq, Eq)]
pub struct ParsedMessage {
    /// Digest that the sender declared. It is not verified.
    pub digest: Option<Digest>,
    /// Bytes of the message.
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
            (None, None) => return Err(D::Error::custom("neither `message` nor `base64` is given")),
            (Some(_), Some(_)) => return Err(D::Error::custom("both `message` and `base64` are given")),
        };
        Ok(Self { digest, message })
    }
}

/// Times in the format of RFC 3339, for `#[serde(with = …)]`.
pub mod rfc3339 {
    use super::{Deserialize, Deserializer, OffsetDateTime, Rfc3339, Serializer, SystemTime};
    use serde::de::Error as _;
    use serde::ser::Error as _;

    /// Serializes a time.
    pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        let text = OffsetDateTime::from(*time).format(&Rfc3339).map_err(S::Error::custom)?;
        serializer.serialize_str(&text)
    }

    /// Parses a time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339).map(Into::into).map_err(D::Error::custom)
    }

    /// Optional times in the format of RFC 3339, for `#[serde(with = …)]`.
    pub mod option {
        use super::{Deserialize, Deserializer, OffsetDateTime, Rfc3339, Serializer, SystemTime};
        use serde::de::Error as _;

        /// Serializes a time, or `null`.
        #[allow(clippy::ref_option, reason = "serde requires this signature")]
        pub fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }

        /// Parses a time, or `null`.
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
            let parsed: ParsedMessage = serde_json::from_str(&line).unwrap();
            assert_eq!(parsed, ParsedMessage { digest, message: message.to_vec() }, "{line}");
        }
    }

    #[test]
    fn invalid_messages_are_rejected_with_a_reason() {
        for (line, reason) in [
            ("{}", "neither"),
            (r#"{"message": "a", "base64": "YQ=="}"#, "both"),
            (r#"{"base64": "Y"}"#, "Invalid"),
            (r#"{"message": "a", "digest": "2c26"}"#, "64 hex digits"),
            (r#"{"message": 1}"#, "string"),
        ] {
            let error = serde_json::from_str::<ParsedMessage>(line).unwrap_err().to_string();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
