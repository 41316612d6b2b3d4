//! Strict parsing and compatible writing of JSON. Output has a space after each colon and comma, as existing clients
//! expect it. The nesting depth of input is bounded, so that no body can overflow a thread's stack.

use std::io::{self, Write};

use serde::de::{DeserializeOwned, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, Serializer};

/// Media type of JSON bodies.
pub(super) const CONTENT_TYPE: &str = "application/json";

/// Returns whether `content_type` is `media_type`, without a `charset` other than `utf-8` or `us-ascii`.
pub(super) fn is_media_type(media_type: &str, content_type: Option<&str>) -> bool {
    let mut parts = content_type.unwrap_or_default().split(';').map(str::trim);
    if !parts.next().is_some_and(|part| part.eq_ignore_ascii_case(media_type)) {
        return false;
    }
    parts.all(|part| match part.split_once('=') {
        Some((name, charset)) if name.eq_ignore_ascii_case("charset") => {
            let charset = charset.trim_matches('"');
            ["utf-8", "us-ascii"].iter().any(|allowed| charset.eq_ignore_ascii_case(allowed))
        }
        _ => true,
    })
}

/// Parses a body `{"message": "…"}`. Other keys are ignored; a second `message` makes the body invalid.
pub(super) fn parse_put_body(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<PutBody>(body).ok().map(|put| put.0)
}

/// Parses `text` as a single JSON object. Unknown keys are ignored.
pub(super) fn parse_object<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    // serde also deserializes a struct from an array.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(text).ok()
}

/// Serializes `value`, which must be representable as JSON.
pub(super) fn to_vec(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    append_value(&mut out, value);
    out
}

/// Appends `value` to `out` as a line of JSON.
pub(super) fn append_line(out: &mut Vec<u8>, value: &impl Serialize) {
    append_value(out, value);
    out.push(b'\n');
}

fn append_value(out: &mut Vec<u8>, value: &impl Serialize) {
    value
        .serialize(&mut Serializer::with_formatter(out, SpacedFormatter))
        .expect("plain values are serializable, and writing to memory cannot fail");
}

/// A formatter that writes a space after each colon and comma.
struct SpacedFormatter;

impl Formatter for SpacedFormatter {
    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
}

/// Returns `{"key": "value"}`. `key` is not escaped.
pub(super) fn single_field_object(key: &str, value: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + value.len() + value.len() / 16 + 16);
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\": ");
    serde_json::to_writer(&mut out, value).expect("writing a string to memory cannot fail");
    out.push(b'}');
    out
}

struct PutBody(String);

impl<'de> Deserialize<'de> for PutBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PutBodyVisitor)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Message,
    #[serde(other)]
    Other,
}

struct PutBodyVisitor;

impl<'de> Visitor<'de> for PutBodyVisitor {
    type Value = PutBody;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PutBody, A::Error> {
        let mut message = None;
        while let Some(key) = map.next_key()? {
            match key {
                Key::Other => {
                    map.next_value::<BoundedIgnored>()?;
                }
                Key::Message if message.is_some() => return Err(A::Error::duplicate_field("message")),
                Key::Message => message = Some(map.next_value()?),
            }
        }
        message.map(PutBody).ok_or_else(|| A::Error::missing_field("message"))
    }
}

/// Any value, ignored. `serde_json` skips an `IgnoredAny` of any depth, but applies its depth limit to this type.
struct BoundedIgnored;

impl<'de> Deserialize<'de> for BoundedIgnored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BoundedIgnoredVisitor)
    }
}

struct BoundedIgnoredVisitor;

impl<'de> Visitor<'de> for BoundedIgnoredVisitor {
    type Value = BoundedIgnored;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<BoundedIgnored, E> {
        Ok(BoundedIgnored)
    }

    fn visit_i64<E>(self, _: i64) -> Result<BoundedIgnored, E> {
        Ok(BoundedIgnored)
    }

    fn visit_u64<E>(self, _: u64) -> Result<BoundedIgnored, E> {
        Ok(BoundedIgnored)
    }

    fn visit_f64<E>(self, _: f64) -> Result<BoundedIgnored, E> {
        Ok(BoundedIgnored)
    }

    fn visit_str<E>(self, _: &str) -> Result<BoundedIgnored, E> {
        Ok(BoundedIgnored)
    }

    fn visit_unit<E>(self) -> Result<BoundedIgnored, E> {
        Ok(BoundedIgnored)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<BoundedIgnored, A::Error> {
        while seq.next_element::<BoundedIgnored>()?.is_some() {}
        Ok(BoundedIgnored)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BoundedIgnored, A::Error> {
        while map.next_entry::<IgnoredAny, BoundedIgnored>()?.is_some() {}
        Ok(BoundedIgnored)
    }
}
