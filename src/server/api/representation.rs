//! In which form a message goes out, by `Accept` (RFC 9110, 12.5.1), and the entity tag that names digest and form.
//! Who asks for nothing that is offered gets JSON, as from the ancestor.

use crate::digest::Digest;

/// The forms of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::server) enum Representation {
    /// `{"message": "…"}`, for messages that are UTF-8.
    Json,
    /// The bytes as they are.
    Bytes,
}

impl Representation {
    /// The form that `accept` asks for.
    pub(in crate::server) fn negotiate(accept: Option<&str>) -> Self {
        let Some(accept) = accept else { return Self::Json };
        if quality(accept, "application", "octet-stream") > quality(accept, "application", "json") {
            return Self::Bytes;
        }
        Self::Json
    }

    /// The entity tag of a message in this form.
    pub(super) fn etag(self, digest: Digest) -> String {
        match self {
            Self::Json => format!("\"{digest}-json\""),
            Self::Bytes => format!("\"{digest}-bytes\""),
        }
    }
}

/// Whether a list of entity tags, as in `If-None-Match`, names `tag`.
pub(super) fn etag_matches(list: &str, tag: &str) -> bool {
    // Our tags hold no comma, so a foreign tag that does cannot be cut into one of ours by accident: quotes differ.
    list.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// How much `kind/subkind` is wanted, in thousandths: the most specific range that covers it decides.
pub(super) fn quality(accept: &str, kind: &str, subkind: &str) -> u16 {
    let mut best = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let Some((a, b)) = parts.next().and_then(|range| range.split_once('/')) else { continue };
        let specific = match (a, b) {
            (a, b) if a.eq_ignore_ascii_case(kind) && b.eq_ignore_ascii_case(subkind) => 3,
            (a, "*") if a.eq_ignore_ascii_case(kind) => 2,
            ("*", "*") => 1,
            _ => continue,
        };
        let q = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(1000, parse_qvalue);
        if specific > best.0 {
            best = (specific, q);
        }
    }
    best.1
}

/// A quality value (`0.5`) in thousandths; what is none counts as nothing.
fn parse_qvalue(q: &str) -> u16 {
    let (whole, fraction) = q.split_once('.').unwrap_or((q, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    match whole {
        "1" => 1000,
        "0" => format!("{fraction:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}
