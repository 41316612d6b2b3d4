//! A part of a message (RFC 9110, 14): one range of bytes. Whoever asks for more, or for something else, gets it all.

use super::{Method, Reply, Request};

/// Which part is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// All of it.
    Whole,
    /// From the first byte to before the second.
    Bytes(usize, usize),
    /// None that there is.
    Nothing,
}

/// The reply to a request for `message` as bytes, whose entity tag is `tag`.
pub(super) fn reply(request: &Request, tag: &str, mut message: Vec<u8>) -> Reply {
    let length = message.len();
    let bytes = |status, message| Reply::new(status, "application/octet-stream", message);
    match part(request, tag, length) {
        Part::Whole => bytes(200, message),
        Part::Nothing => {
            Reply::error(416, "No such range in the message").with("Content-Range", &format!("bytes */{length}"))
        }
        Part::Bytes(from, to) => {
            message.truncate(to);
            message.drain(..from);
            bytes(206, message).with("Content-Range", &format!("bytes {from}-{}/{length}", to - 1))
        }
    }
}

fn part(request: &Request, tag: &str, length: usize) -> Part {
    // A tag that is weak, or a date, does not name these very bytes.
    let is_current = request.if_range.as_deref().is_none_or(|known| known == tag);
    match request.range.as_deref() {
        Some(range) if request.method == Method::Get && is_current => wanted(range, length).unwrap_or(Part::Whole),
        _ => Part::Whole,
    }
}

/// What `range` asks of `length` bytes; `None`: it is not one range of bytes.
fn wanted(range: &str, length: usize) -> Option<Part> {
    let (unit, range) = range.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    if first.is_empty() {
        let count = number(last)?.min(length);
        return match (count, length) {
            (0, 0) => None,
            (0, _) => Some(Part::Nothing),
            _ => Some(Part::Bytes(length - count, length)),
        };
    }
    let first = number(first)?;
    let last = if last.is_empty() { usize::MAX } else { number(last)? };
    match () {
        () if last < first => None,
        () if first >= length => Some(Part::Nothing),
        () => Some(Part::Bytes(first, last.saturating_add(1).min(length))),
    }
}

/// Digits and nothing else; a number beyond all numbers is as large as any.
fn number(digits: &str) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_cut_out_and_what_is_none_is_all() {
        for (range, part) in [
            ("bytes=0-0", Part::Bytes(0, 1)),
            ("bytes=2-4", Part::Bytes(2, 5)),
            ("Bytes=2-", Part::Bytes(2, 10)),
            ("bytes=9-9", Part::Bytes(9, 10)),
            ("bytes=-3", Part::Bytes(7, 10)),
            ("bytes=-11", Part::Bytes(0, 10)),
            ("bytes=5-99999999999999999999999", Part::Bytes(5, 10)),
            ("bytes=10-", Part::Nothing),
            ("bytes=99999999999999999999999-", Part::Nothing),
            ("bytes=-0", Part::Nothing),
        ] {
            assert_eq!(wanted(range, 10), Some(part), "{range}");
        }
        for range in ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", "bytes=+1-2", "bytes=1--2", "bytes=4-2"]
        {
            assert_eq!(wanted(range, 10), None, "{range}");
        }
        for range in ["bytes=0-1,3-4", "bytes=0-1, 3-4", "lines=0-1", "bytes = 0-1", "0-1"] {
            assert_eq!(wanted(range, 10), None, "{range}");
        }
    }

    #[test]
    fn of_an_empty_message_there_is_no_part() {
        assert_eq!(wanted("bytes=0-", 0), Some(Part::Nothing));
        assert_eq!(wanted("bytes=-1", 0), None);
    }
}
