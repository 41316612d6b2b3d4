//! Content negotiation by `Accept` (RFC 9110, section 12.5.1), and entity tags, which name digest and representation.
//! JSON is the default, also if the client accepts neither representation.

use crate::digest::Digest;

/// A representation of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::server) enum Representation {
    /// `{"message": "…"}`; only for messages that are UTF-8.
    Json,
    /// The unchanged bytes.
    Bytes,
}

impl Representation {
    /// Selects the representation that `accept` prefers.
    pub(in crate::server) fn negotiate(accept: Option<&str>) -> Self {
        let Some(accept) = accept else { return Self::Json };
        if quality(accept, "application", "octet-stream") > quality(accept, "application", "json") {
            return Self::Bytes;
        }
        Self::Json
    }

    /// Returns the entity tag of a message in this representation.
    pub(super) fn etag(self, digest: Digest) -> String {
        match self {
            Self::Json => format!("\"{digest}-json\""),
            Self::Bytes => format!("\"{digest}-bytes\""),
        }
    }
}

/// Returns whether an `If-None-Match` list contains `tag`, by weak comparison, or is `*`.
pub(super) fn etag_matches(list: &str, tag: &str) -> bool {
    // Splitting at commas also splits foreign tags that contain commas. Their parts lack a quote, so none equals `tag`.
    list.split(',').map(str::trim).any(|item| item == "*" || item.strip_prefix("W/").unwrap_or(item) == tag)
}

/// Returns the quality of `type/subtype` in `accept`, in thousandths. The most specific matching range decides.
pub(super) fn quality(accept: &str, main_type: &str, subtype: &str) -> u16 {
    let (mut best_specificity, mut best_quality) = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let Some((range_type, range_subtype)) = parts.next().and_then(|range| range.split_once('/')) else { continue };
        let has_type = range_type.eq_ignore_ascii_case(main_type);
        let specificity = match (range_type, range_subtype) {
            (_, other) if has_type && other.eq_ignore_ascii_case(subtype) => 3,
            (_, "*") if has_type => 2,
            ("*", "*") => 1,
            _ => continue,
        };
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(1000, parse_qvalue);
        if specificity > best_specificity {
            (best_specificity, best_quality) = (specificity, quality);
        }
    }
    best_quality
}

/// Parses a quality value such as `0.5` into thousandths. An invalid value counts as 0.
fn parse_qvalue(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    match whole {
        "1" => 1000,
        "0" => format!("{fraction:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}
