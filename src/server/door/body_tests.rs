//! What is taken as a body, what is refused and how, and that it does not matter in which pieces it comes.

use super::*;

const LIMIT: u64 = 1000;

/// The body and how many bytes were taken, fed in pieces of `step`; `None` if it is not whole.
fn decode(framing: Framing, input: &[u8], step: usize) -> Result<Option<(Vec<u8>, usize)>, Refusal> {
    let mut body = Body::new(framing, LIMIT)?;
    let mut out = Vec::new();
    let (mut fed, mut taken) = (0, 0);
    for piece in input.chunks(step) {
        taken += body.push(piece, &mut out)?;
        if body.is_whole() {
            break;
        }
        fed += piece.len();
        assert_eq!(taken, fed, "all is taken until the end");
    }
    assert_eq!(out.len() as u64, body.received());
    Ok(body.is_whole().then_some((out, taken)))
}

fn chunked(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Refusal> {
    let whole = decode(Framing::Chunked, input, input.len().max(1));
    for step in 1..input.len() {
        assert_eq!(decode(Framing::Chunked, input, step), whole, "in pieces of {step}");
    }
    whole
}

#[test]
fn a_body_of_known_length_ends_there_and_leaves_what_follows() {
    for step in 1..8 {
        let (body, taken) = decode(Framing::Length(3), b"fooGET /", step).unwrap().unwrap();
        assert_eq!((body.as_slice(), taken), (b"foo".as_slice(), 3));
    }
    assert!(Body::new(Framing::Length(0), LIMIT).unwrap().is_whole());
    assert_eq!(Body::new(Framing::Length(LIMIT + 1), LIMIT).unwrap_err().status, 413);
}

#[test]
fn chunks_are_joined_and_extensions_and_trailers_dropped() {
    for text in [
        "3\r\nfoo\r\n3\r\nbar\r\n0\r\n\r\nGET /",
        "0003;a=b;c=\"d e\"\r\nfoo\r\n03\r\nbar\r\n0;x\r\nA: b\r\nContent-Length: 9\r\n\r\nGET /",
        "6\r\nfoobar\r\n00\r\n\r\nGET /",
    ] {
        let (body, taken) = chunked(text.as_bytes()).unwrap().unwrap();
        assert_eq!((body.as_slice(), taken), (b"foobar".as_slice(), text.len() - 5));
    }
}

#[test]
fn a_body_that_has_not_ended_is_not_whole() {
    let text = b"3;a\r\nfoo\r\n0\r\nA: b\r\n\r\n";
    for end in 0..text.len() {
        assert_eq!(chunked(&text[..end]), Ok(None));
    }
}

#[test]
fn chunks_that_could_be_read_in_two_ways_are_refused_with_400() {
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
        assert_eq!(chunked(text.as_bytes()).unwrap_err().status, 400, "{text:?}");
    }
}

#[test]
fn what_is_too_much_is_refused_as_soon_as_that_is_known() {
    assert_eq!(chunked(b"3e9\r\n").unwrap_err().status, 413);
    assert_eq!(chunked(b"ffffffffffffffff\r\n").unwrap_err().status, 413);
    let two = [b"1f4\r\n".as_slice(), &[b'x'; 500], b"\r\n1f5\r\n"].concat();
    assert_eq!(decode(Framing::Chunked, &two, 7).unwrap_err().status, 413);
    let extension = [b"3;".as_slice(), &vec![b'x'; MAX_EXTENSIONS + 1]].concat();
    assert_eq!(decode(Framing::Chunked, &extension, 100).unwrap_err().status, 400);
    let trailers = [b"0\r\nA: ".as_slice(), &vec![b'x'; MAX_TRAILERS]].concat();
    assert_eq!(decode(Framing::Chunked, &trailers, 100).unwrap_err().status, 431);
}

#[test]
fn no_bytes_make_it_panic_or_take_more_than_there_is() {
    let seed = b"3;a=b\r\nfoo\r\n0\r\nA: b\r\n\r\n";
    for at in 0..seed.len() {
        for byte in 0..=255 {
            let mut bytes = seed.to_vec();
            bytes[at] = byte;
            if let Ok(Some((_, taken))) = decode(Framing::Chunked, &bytes, bytes.len()) {
                assert!(taken <= bytes.len());
            }
        }
    }
}
