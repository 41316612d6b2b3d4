//! Properties of the request parser that hold for any input. `cargo fuzz` checks them with arbitrary input, each run of
//! the tests with mutated requests.

use super::body::BodyDecoder;
use super::head::{Head, HeadParser};
use super::request_error::RequestError;

/// Maximum length of a body, in bytes.
const FUZZ_BODY_LIMIT: u64 = 4096;

type Parsed = Result<Option<(Head, Vec<u8>, usize)>, RequestError>;

/// Parses the first request in `bytes`. Asserts that the result does not depend on how the input is split, and that no
/// text in it has a control character.
pub fn check_parser(bytes: &[u8]) {
    let whole = parse_request(bytes, bytes.len().max(1));
    for step in [1, 7] {
        assert_eq!(parse_request(bytes, step), whole, "in pieces of {step}");
    }
    let Ok(Some((mut head, body, consumed))) = whole else { return };
    assert!(consumed <= bytes.len() && body.len() as u64 <= FUZZ_BODY_LIMIT);
    assert!(head.request.path.starts_with('/'));
    let mut texts = vec![Some(head.request.path.clone()), head.request.query.clone()];
    texts.extend(head.request.known_headers_mut().map(|(_, value)| value.clone()));
    for text in texts.into_iter().flatten() {
        assert!(text.bytes().all(|byte| (b' '..0x7f).contains(&byte) || byte == b'\t'), "{text:?}");
    }
    // Bytes after the request must not change the result.
    let without_rest =
        parse_request(&bytes[..consumed], consumed).map(|parsed| parsed.map(|(head, body, _)| (head, body)));
    assert_eq!(without_rest, Ok(Some((head, body))));
}

/// Returns the first request in `bytes`, its body and the number of bytes consumed when the input is fed in pieces of
/// `step` bytes. `None`: incomplete.
fn parse_request(bytes: &[u8], step: usize) -> Parsed {
    let mut parser = HeadParser::default();
    let mut received = 0;
    let (head, start) = loop {
        match parser.parse(&bytes[..received])? {
            Some(found) => break found,
            None if received == bytes.len() => return Ok(None),
            None => received = (received + step).min(bytes.len()),
        }
    };
    let (mut body, mut out, mut position) = (BodyDecoder::new(head.framing, FUZZ_BODY_LIMIT)?, Vec::new(), start);
    while !body.is_complete() {
        if position == bytes.len() {
            return Ok(None);
        }
        position += body.decode(&bytes[position..(position + step).min(bytes.len())], &mut out)?;
    }
    Ok(Some((head, out, position)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn mutated_requests_parse_the_same_in_pieces_of_any_size() {
        crate::testing::check_mutated_corpus("request", 20_000, super::check_parser);
    }
}
