//! Accepted and rejected bodies, most of them also in pieces of any size.

use super::*;

const BODY_LIMIT: u64 = 1000;

/// Returns the body and the number of bytes consumed when `input` is fed in pieces of `step` bytes. `None`: incomplete.
fn decode_in_pieces(framing: Framing, input: &[u8], step: usize) -> Result<Option<(Vec<u8>, usize)>, RequestError> {
    let mut body = BodyDecoder::new(framing, BODY_LIMIT)?;
    let mut out = Vec::new();
    let (mut fed, mut consumed) = (0, 0);
    for piece in input.chunks(step) {
        consumed += body.decode(piece, &mut out)?;
        if body.is_complete() {
            break;
        }
        fed += piece.len();
        assert_eq!(consumed, fed, "all input is consumed until the body ends");
    }
    assert_eq!(out.len() as u64, body.received());
    Ok(body.is_complete().then_some((out, consumed)))
}

fn decode_chunked(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, RequestError> {
    let whole = decode_in_pieces(Framing::Chunked, input, input.len().max(1));
    for step in 1..input.len() {
        assert_eq!(decode_in_pieces(Framing::Chunked, input, step), whole, "in pieces of {step}");
    }
    whole
}

#[test]
fn a_body_with_content_length_ends_there_and_leaves_the_rest_unread() {
    for step in 1..8 {
        let (body, consumed) = decode_in_pieces(Framing::Length(3), b"fooGET /", step).unwrap().unwrap();
        assert_eq!((body.as_slice(), consumed), (b"foo".as_slice(), 3));
    }
    assert!(BodyDecoder::new(Framing::Length(0), BODY_LIMIT).unwrap().is_complete());
    assert_eq!(BodyDecoder::new(Framing::Length(BODY_LIMIT + 1), BODY_LIMIT).unwrap_err().status, 413);
}

#[test]
fn chunks_are_joined_and_extensions_and_trailers_are_dropped() {
    for text in [
        "3\r\nfoo\r\n3\r\nbar\r\n0\r\n\r\nGET /",
        "0003;a=b;c=\"d e\"\r\nfoo\r\n03\r\nbar\r\n0;x\r\nA: b\r\nContent-Length: 9\r\n\r\nGET /",
        "6\r\nfoobar\r\n00\r\n\r\nGET /",
    ] {
        let (body, consumed) = decode_chunked(text.as_bytes()).unwrap().unwrap();
        assert_eq!((body.as_slice(), consumed), (b"foobar".as_slice(), text.len() - 5));
    }
}

#[test]
fn a_truncated_chunked_body_is_not_complete() {
    let text = b"3;a\r\nfoo\r\n0\r\nA: b\r\n\r\n";
    for end in 0..text.len() {
        assert_eq!(decode_chunked(&text[..end]), Ok(None));
    }
}

#[test]
fn ambiguous_chunks_are_rejected_with_400() {
    for text in [
        "+3\r\nfoo\r\n0\r\n\r\n",
        "-3\r\nfoo",
        "0x3\r\nfoo",
        "3 \r\nfoo",
        " 3\r\nfoo",
        "\r\nfoo",
        ";a\r\n",
        "g\r\n",
        "3\nfoo\n0\n\n",
        "3\r\nfoo0\r\n\r\n",
        "3\r\nfooo\r\n",
        "3\r\nfoo\n0\r\n\r\n",
        "3\r\nfoo\r0\r\n\r\n",
        "3;a\nb\r\nfoo",
        "3;a\rb\r\nfoo",
        "3;\0\r\nfoo",
        "00000000000000003\r\nfoo",
        "0\r\nA : b\r\n\r\n",
        "0\r\n a: b\r\n\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\nA\r\n\r\n",
        "0\r\n\n",
    ] {
        assert_eq!(decode_chunked(text.as_bytes()).unwrap_err().status, 400, "{text:?}");
    }
}

#[test]
fn oversized_bodies_extensions_and_trailers_are_rejected_early() {
    assert_eq!(decode_chunked(b"3e9\r\n").unwrap_err().status, 413);
    assert_eq!(decode_chunked(b"ffffffffffffffff\r\n").unwrap_err().status, 413);
    let two = [b"1f4\r\n".as_slice(), &[b'x'; 500], b"\r\n1f5\r\n"].concat();
    assert_eq!(decode_in_pieces(Framing::Chunked, &two, 7).unwrap_err().status, 413);
    let extension = [b"3;".as_slice(), &vec![b'x'; MAX_EXTENSION_BYTES + 1]].concat();
    assert_eq!(decode_in_pieces(Framing::Chunked, &extension, 100).unwrap_err().status, 400);
    let trailers = [b"0\r\nA: ".as_slice(), &vec![b'x'; MAX_TRAILER_BYTES]].concat();
    assert_eq!(decode_in_pieces(Framing::Chunked, &trailers, 100).unwrap_err().status, 431);
}

#[test]
fn no_input_byte_makes_the_decoder_panic_or_overrun_the_input() {
    let seed = b"3;a=b\r\nfoo\r\n0\r\nA: b\r\n\r\n";
    for position in 0..seed.len() {
        for byte in 0..=255 {
            let mut bytes = seed.to_vec();
            bytes[position] = byte;
            if let Ok(Some((_, consumed))) = decode_in_pieces(Framing::Chunked, &bytes, bytes.len()) {
                assert!(consumed <= bytes.len());
            }
        }
    }
}
