//! A part of a message (RFC 9110, 14): one range of bytes. Whoever asks for more, or for something else, gets it all.

use super::{Method, Request, Response};

/// Which part is asked for.
#[derive(Debug, PartialEq, Eq)]
enum ByteRange {
    /// All of it.
    Whole,
    /// From the first byte to before the second.
    Bytes(usize, usize),
    /// None that there is.
    Unsatisfiable,
}

/// The reply to a request for `message` as bytes, whose entity tag is `tag`.
pub(super) fn range_response(request: &Request, tag: &str, mut message: Vec<u8>) -> Response {
    let length = message.len();
    let bytes = |status, message| Response::new(status, "application/octet-stream", message);
    match select_range(request, tag, length) {
        ByteRange::Whole => bytes(200, message),
        ByteRange::Unsatisfiable => Response::error(416, "No such range in the message")
            .with_header("Content-Range", &format!("bytes */{length}")),
        ByteRange::Bytes(from, to) => {
            message.truncate(to);
            message.drain(..from);
            bytes(206, message).with_header("Content-Range", &format!("bytes {from}-{}/{length}", to - 1))
        }
    }
}

fn select_range(request: &Request, tag: &str, length: usize) -> ByteRange {
    // A tag that is weak, or a date, does not name these very bytes.
    let is_current = request.if_range.as_deref().is_none_or(|known| known == tag);
    match request.range.as_deref() {
        Some(range) if request.method == Method::Get && is_current => {
            parse_range(range, length).unwrap_or(ByteRange::Whole)
        }
        _ => ByteRange::Whole,
    }
}

/// What `range` asks of `length` bytes; `None`: it is not one range of bytes.
fn parse_range(range: &str, length: usize) -> Option<ByteRange> {
    let (unit, range) = range.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    if first.is_empty() {
        let count = parse_number(last)?.min(length);
        return match (count, length) {
            (0, 0) => None,
            (0, _) => Some(ByteRange::Unsatisfiable),
            _ => Some(ByteRange::Bytes(length - count, length)),
        };
    }
    let first = parse_number(first)?;
    let last = if last.is_empty() { usize::MAX } else { parse_number(last)? };
    match () {
        () if last < first => None,
        () if first >= length => Some(ByteRange::Unsatisfiable),
        () => Some(ByteRange::Bytes(first, last.saturating_add(1).min(length))),
    }
}

/// Digits and nothing else; a number beyond all numbers is as large as any.
fn parse_number(digits: &str) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_selected_and_an_invalid_range_is_ignored() {
        for (range, part) in [
            ("bytes=0-0", ByteRange::Bytes(0, 1)),
            ("bytes=2-4", ByteRange::Bytes(2, 5)),
            ("Bytes=2-", ByteRange::Bytes(2, 10)),
            ("bytes=9-9", ByteRange::Bytes(9, 10)),
            ("bytes=-3", ByteRange::Bytes(7, 10)),
            ("bytes=-11", ByteRange::Bytes(0, 10)),
            ("bytes=5-99999999999999999999999", ByteRange::Bytes(5, 10)),
            ("bytes=10-", ByteRange::Unsatisfiable),
            ("bytes=99999999999999999999999-", ByteRange::Unsatisfiable),
            ("bytes=-0", ByteRange::Unsatisfiable),
        ] {
            assert_eq!(parse_range(range, 10), Some(part), "{range}");
        }
        for range in ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", "bytes=+1-2", "bytes=1--2", "bytes=4-2"]
        {
            assert_eq!(parse_range(range, 10), None, "{range}");
        }
        for range in ["bytes=0-1,3-4", "bytes=0-1, 3-4", "lines=0-1", "bytes = 0-1", "0-1"] {
            assert_eq!(parse_range(range, 10), None, "{range}");
        }
    }

    #[test]
    fn an_empty_message_has_no_satisfiable_range() {
        assert_eq!(parse_range("bytes=0-", 0), Some(ByteRange::Unsatisfiable));
        assert_eq!(parse_range("bytes=-1", 0), None);
    }
}
