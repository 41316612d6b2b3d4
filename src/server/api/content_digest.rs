//! `Content-Digest` and `Repr-Digest` of requests (RFC 9530). They are compared with the body before anything is
//! stored.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::{Method, Request, Response};
use crate::digest::Digest;

/// Checks that the body hashes to each declared SHA-256. A difference is an error 400.
pub(super) fn verify_body(request: &Request) -> Result<(), Response> {
    let declared = declared_digests(request)?;
    if declared.is_empty() {
        return Ok(());
    }
    let received = Digest::compute(&request.body);
    if declared.iter().all(|digest| *digest == received) {
        return Ok(());
    }
    Err(Response::error(400, "The body does not hash to its Content-Digest or Repr-Digest"))
}

/// Checks the syntax of both headers, without the body. An invalid header is an error 400.
pub(super) fn validate_syntax(request: &Request) -> Result<(), Response> {
    declared_digests(request).map(drop)
}

/// Returns whether each declared SHA-256 equals `digest`; `true` if there is none.
pub(super) fn matches(request: &Request, digest: Digest) -> bool {
    declared_digests(request).is_ok_and(|declared| declared.iter().all(|one| *one == digest))
}

/// Returns all SHA-256 digests in the two headers. No content coding is decoded, so both refer to the same bytes.
fn declared_digests(request: &Request) -> Result<Vec<Digest>, Response> {
    if !matches!(request.method, Method::Post | Method::Put) {
        return Ok(Vec::new());
    }
    let mut declared = Vec::new();
    for (name, value) in [("Content-Digest", &request.content_digest), ("Repr-Digest", &request.repr_digest)] {
        for member in value.iter().flat_map(|value| value.split(',')) {
            match parse_member(member) {
                Some(DigestMember::Sha256(digest)) => declared.push(digest),
                Some(DigestMember::Other) => {}
                None => return Err(Response::error(400, &format!("Invalid {name}, expected sha-256=:BASE64:"))),
            }
        }
    }
    Ok(declared)
}

enum DigestMember {
    Sha256(Digest),
    /// A hash of an algorithm that the server does not support.
    Other,
}

/// Parses a dictionary member `name=:base64:` (RFC 9651). Parameters after a semicolon are ignored.
fn parse_member(member: &str) -> Option<DigestMember> {
    let (name, value) = member.trim().split_once('=')?;
    let value = value.split_once(';').map_or(value, |(value, _)| value).trim_end();
    let encoded = value.strip_prefix(':')?.strip_suffix(':')?;
    let is_name =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b));
    if !is_name || !encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)) {
        return None;
    }
    if name != "sha-256" {
        return Some(DigestMember::Other);
    }
    let bytes = BASE64_STANDARD.decode(encoded).ok()?.try_into().ok()?;
    Some(DigestMember::Sha256(Digest::from_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOO: &str = "sha-256=:LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564=:";
    const BAR: &str = "sha-256=:/N4rLtula/QIYB+3If6bXDONEO5CnqBPrlURto+/j7k=:";

    fn verify_status(content: &str, repr: &str) -> u16 {
        let field = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        let (content_digest, repr_digest) = (field(content), field(repr));
        let put = Request { content_digest, repr_digest, ..Request::new(Method::Put, "/messages/x") };
        verify_body(&Request { body: b"foo".to_vec(), ..put }).map_or_else(|response| response.status, |()| 200)
    }

    #[test]
    fn every_sha_256_in_either_header_must_match_the_body() {
        for good in [FOO, &format!("md5=:AAAA:, {FOO}"), &format!("{FOO};a=b , sha-512=::"), "unixsum=:AAAA:"] {
            assert_eq!((verify_status(good, ""), verify_status("", good)), (200, 200), "{good}");
        }
        for bad in [BAR, &format!("{FOO}, {BAR}"), &format!("{BAR},{FOO}")] {
            assert_eq!((verify_status(bad, FOO), verify_status(FOO, bad)), (400, 400), "{bad}");
        }
    }

    #[test]
    fn invalid_digest_headers_are_rejected() {
        for bad in ["x", "sha-256", "sha-256=", "sha-256=::", "sha-256=:AAAA:", "sha-256=LCa0", "sha-256=:L C:", ","] {
            assert_eq!((verify_status(bad, ""), verify_status("", bad)), (400, 400), "{bad}");
        }
        for bad in ["SHA-256=:AAAA:", "=:AAAA:", "md5=AAAA", "md5=:\u{1}:", &format!("{FOO},"), &FOO.replace('=', ": ")]
        {
            assert_eq!(verify_status(bad, ""), 400, "{bad}");
        }
    }
}
