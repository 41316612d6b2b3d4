//! What a client says of the bytes that it sends (RFC 9530): believed only once it is checked, and nothing is stored
//! before.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::{Method, Request, Response};
use crate::digest::Digest;

/// A 400 if the body is not what the client says that it sent.
pub(super) fn verify_body(request: &Request) -> Result<(), Response> {
    let said = declared_digests(request)?;
    if said.is_empty() {
        return Ok(());
    }
    let received = Digest::compute(&request.body);
    if said.iter().all(|digest| *digest == received) {
        return Ok(());
    }
    Err(Response::error(400, "The body does not hash to its Content-Digest or Repr-Digest"))
}

/// A 400 if the fields cannot be understood. The body need not be there.
pub(super) fn validate_syntax(request: &Request) -> Result<(), Response> {
    declared_digests(request).map(drop)
}

/// Whether nothing that the client says of its body speaks against `digest`.
pub(super) fn matches(request: &Request, digest: Digest) -> bool {
    declared_digests(request).is_ok_and(|said| said.iter().all(|one| *one == digest))
}

/// Every SHA-256 in the two fields. No content coding is taken, so both speak of the same bytes.
fn declared_digests(request: &Request) -> Result<Vec<Digest>, Response> {
    if !matches!(request.method, Method::Post | Method::Put) {
        return Ok(Vec::new());
    }
    let mut said = Vec::new();
    for (name, value) in [("Content-Digest", &request.content_digest), ("Repr-Digest", &request.repr_digest)] {
        for member in value.iter().flat_map(|value| value.split(',')) {
            match parse_member(member) {
                Some(DigestMember::Sha256(digest)) => said.push(digest),
                Some(DigestMember::Other) => {}
                None => return Err(Response::error(400, &format!("Invalid {name}, expected sha-256=:BASE64:"))),
            }
        }
    }
    Ok(said)
}

enum DigestMember {
    Sha256(Digest),
    /// Of an algorithm that is not known here.
    Other,
}

/// A member of the dictionary, `name=:base64:`; what follows a semicolon says nothing about it.
fn parse_member(member: &str) -> Option<DigestMember> {
    let (name, value) = member.trim().split_once('=')?;
    let value = value.split_once(';').map_or(value, |(value, _)| value).trim_end();
    let text = value.strip_prefix(':')?.strip_suffix(':')?;
    let is_name =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b));
    if !is_name || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)) {
        return None;
    }
    if name != "sha-256" {
        return Some(DigestMember::Other);
    }
    let bytes = BASE64_STANDARD.decode(text).ok()?.try_into().ok()?;
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
        verify_body(&Request { body: b"foo".to_vec(), ..put }).map_or_else(|reply| reply.status, |()| 200)
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
