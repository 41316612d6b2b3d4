//! Range requests (RFC 9110, section 14). One byte range is supported. Any other `Range` is ignored: the response is
//! the whole message.

use super::{Method, Request, Response};

/// The part of a message that a request selects.
#[derive(Debug, PartialEq, Eq)]
enum ByteRange {
    /// The whole message.
    Whole,
    /// Start and end offset; the end is exclusive.
    Bytes(usize, usize),
    /// A range outside the message.
    Unsatisfiable,
}

/// Returns the response to a request for `message` as bytes: 200, 206 or 416. `tag` is the entity tag of the bytes.
pub(super) fn range_response(request: &Request, tag: &str, mut message: Vec<u8>) -> Response {
    let length = message.len();
    let bytes_response = |status, bytes| Response::new(status, "application/octet-stream", bytes);
    match select_range(request, tag, length) {
        ByteRange::Whole => bytes_response(200, message),
        ByteRange::Unsatisfiable => Response::error(416, "No such range in the message")
            .with_header("Content-Range", &format!("bytes */{length}")),
        ByteRange::Bytes(start, end) => {
            message.truncate(end);
            message.drain(..start);
            bytes_response(206, message).with_header("Content-Range", &format!("bytes {start}-{}/{length}", end - 1))
        }
    }
}

fn select_range(request: &Request, tag: &str, length: usize) -> ByteRange {
    // `If-Range` needs a strong comparison, so a weak tag or a date never matches.
    let is_current = request.if_range.as_deref().is_none_or(|if_range| if_range == tag);
    match request.range.as_deref() {
        Some(range) if request.method == Method::Get && is_current => {
            parse_range(range, length).unwrap_or(ByteRange::Whole)
        }
        _ => ByteRange::Whole,
    }
}

/// Parses a `Range` header for a message of `length` bytes. Returns `None` if it is not a single valid byte range.
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

/// Parses a decimal number that consists of digits only. Numbers beyond `usize` are clamped.
fn parse_number(digits: &str) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_selected_and_an_invalid_range_is_ignored() {
        for (range, expected) in [
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
            assert_eq!(parse_range(range, 10), Some(expected), "{range}");
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
