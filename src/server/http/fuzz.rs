//! What holds for any bytes that a client may send: for `cargo fuzz`, and with random changes for every test run.

use super::body::BodyDecoder;
use super::request::{Head, HeadParser, RequestError};

/// Of a body, in bytes.
const FUZZ_BODY_LIMIT: u64 = 4096;

type Parsed = Result<Option<(Head, Vec<u8>, usize)>, RequestError>;

/// Reads one request off `bytes` and checks that it is the same in whatever pieces they come, and clean.
pub fn check_parser(bytes: &[u8]) {
    let whole = parse_request(bytes, bytes.len().max(1));
    for step in [1, 7] {
        assert_eq!(parse_request(bytes, step), whole, "in pieces of {step}");
    }
    let Ok(Some((mut head, body, taken))) = whole else { return };
    assert!(taken <= bytes.len() && body.len() as u64 <= FUZZ_BODY_LIMIT);
    assert!(head.request.path.starts_with('/'));
    let mut texts = vec![Some(head.request.path.clone()), head.request.query.clone()];
    texts.extend(head.request.known_headers_mut().map(|(_, value)| value.clone()));
    for text in texts.into_iter().flatten() {
        assert!(text.bytes().all(|byte| (b' '..0x7f).contains(&byte) || byte == b'\t'), "{text:?}");
    }
    // What follows the request does not change it.
    let alone = parse_request(&bytes[..taken], taken).map(|parsed| parsed.map(|(head, body, _)| (head, body)));
    assert_eq!(alone, Ok(Some((head, body))));
}

/// The request that `bytes` begin with, its body, and how many bytes that took. `None`: it is not whole.
fn parse_request(bytes: &[u8], step: usize) -> Parsed {
    let mut scan = HeadParser::default();
    let mut come = 0;
    let (head, start) = loop {
        match scan.parse(&bytes[..come])? {
            Some(found) => break found,
            None if come == bytes.len() => return Ok(None),
            None => come = (come + step).min(bytes.len()),
        }
    };
    let (mut body, mut out, mut at) = (BodyDecoder::new(head.framing, FUZZ_BODY_LIMIT)?, Vec::new(), start);
    while !body.is_complete() {
        if at == bytes.len() {
            return Ok(None);
        }
        at += body.decode(&bytes[at..(at + step).min(bytes.len())], &mut out)?;
    }
    Ok(Some((head, out, at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutated_requests_parse_the_same_in_pieces_of_any_size() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/request");
        let Ok(dir) = std::fs::read_dir(corpus) else { return };
        let seeds: Vec<Vec<u8>> = dir.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
        assert!(seeds.len() > 5);
        // xorshift64: the same changes every time.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below.max(1) as u64).unwrap()
        };
        for round in 0..20_000 {
            let mut bytes = seeds[round % seeds.len()].clone();
            for _ in 0..random(4) {
                let at = random(bytes.len());
                if bytes.is_empty() {
                    break;
                }
                match random(4) {
                    0 => bytes[at] = b"\r\n\0 :;,0aF\xff"[random(11)],
                    1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, bytes[at]),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            check_parser(&bytes);
        }
    }
}
