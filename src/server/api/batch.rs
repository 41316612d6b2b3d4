//! Requests for many messages: NDJSON bodies, with one result line per request line, in the same order.
//! Both directions are bounded: a request by its number of lines, a response with messages by its length.

use serde::{Deserialize, Serialize};

use super::{Response, json};
use crate::digest::Digest;
use crate::json_message::{JsonMessage, ParsedMessage};
use crate::message_store::{Error, MessageStore};

/// Media type of NDJSON bodies.
pub(super) const CONTENT_TYPE: &str = "application/x-ndjson";
/// Maximum number of lines per request. A short request line can have a long result line.
const MAX_LINES: usize = 100_000;
/// Maximum length of a response with messages, in bytes. The first line is sent even if it is longer.
const MAX_RESPONSE_BYTES: usize = 8 << 20;
/// Maximum length of a message in a response with several messages, in bytes.
const MAX_INLINE_MESSAGE: u64 = 1 << 20;

#[derive(Deserialize)]
struct DigestLine {
    digest: Digest,
}

#[derive(Default, Serialize)]
#[allow(clippy::struct_excessive_bools, reason = "the keys of the JSON object")]
struct ResultLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    absent: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    corrupt: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lost: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    large: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    err_msg: Option<&'a str>,
}

/// Stores the messages of all valid lines as one batch. The response has a result for each line.
pub(super) fn put(body: &[u8], store: &dyn MessageStore) -> Result<Response, Error> {
    let lines = match split_lines(body) {
        Ok(lines) => lines,
        Err(response) => return Ok(response),
    };
    let mut max_message = u64::MAX;
    loop {
        let (mut batch, mut outcomes) = (Vec::new(), Vec::with_capacity(lines.len()));
        for line in &lines {
            outcomes.push(parse_message_line(line, max_message).map(|message| batch.push(message)));
        }
        match store.put(batch) {
            // Only the store knows its limit. It checks all lengths before it stores a message, so retrying is safe.
            Err(Error::TooLarge { limit, .. }) if limit < max_message => max_message = limit,
            Err(error) => return Err(error),
            Ok(receipts) => {
                let mut receipts = receipts.into_iter();
                return Ok(ndjson_response(outcomes.into_iter().map(|outcome| match outcome {
                    Ok(()) => {
                        let receipt = receipts.next().expect("a receipt for each message");
                        ResultLine { digest: Some(receipt.digest), new: Some(receipt.new), ..ResultLine::default() }
                    }
                    Err(error) => ResultLine { err_msg: Some(error), ..ResultLine::default() },
                })));
            }
        }
    }
}

/// Lists the digests that are not stored, in request order.
pub(super) fn list_missing(digests: &[Digest], store: &dyn MessageStore) -> Result<Response, Error> {
    let stored = store.has(digests)?;
    let missing = digests.iter().zip(stored).filter(|(_, stored)| !stored);
    Ok(ndjson_response(missing.map(|(digest, _)| ResultLine { digest: Some(*digest), ..ResultLine::default() })))
}

/// Removes the messages. The response has a line for each digest: whether its message was stored.
pub(super) fn remove(digests: &[Digest], store: &dyn MessageStore) -> Result<Response, Error> {
    let removed = store.remove(digests)?;
    let line = |(digest, removed): (&Digest, bool)| ResultLine {
        digest: Some(*digest),
        removed: Some(removed),
        ..ResultLine::default()
    };
    Ok(ndjson_response(digests.iter().zip(removed).map(line)))
}

/// Gets messages in request order. The response ends before it exceeds [`MAX_RESPONSE_BYTES`], after at least one line.
pub(super) fn get(digests: &[Digest], store: &dyn MessageStore) -> Result<Response, Error> {
    let mut out = Vec::new();
    store.prefetch(digests);
    for &digest in digests {
        let start = out.len();
        append_result_line(digest, store, &mut out)?;
        if start > 0 && out.len() > MAX_RESPONSE_BYTES {
            out.truncate(start);
            break;
        }
    }
    Ok(Response::new(200, CONTENT_TYPE, out))
}

/// Parses a body with a digest per line. A line without a digest is an error 400 with the line number.
pub(super) fn parse_all_digests(body: &[u8]) -> Result<Vec<Digest>, Response> {
    let parse = |(index, line): (usize, &[u8])| {
        parse_digest_line(line).ok_or_else(|| {
            Response::error(400, &format!("Invalid line {}, expected a JSON object with a digest", index + 1))
        })
    };
    split_lines(body)?.into_iter().enumerate().map(parse).collect()
}

/// Parses a body with at most a digest per line. A line without a digest yields `None`.
pub(super) fn parse_digests(body: &[u8]) -> Vec<Option<Digest>> {
    split_lines(body).unwrap_or_default().into_iter().map(parse_digest_line).collect()
}

fn parse_digest_line(line: &[u8]) -> Option<Digest> {
    json::parse_object::<DigestLine>(line).map(|parsed| parsed.digest)
}

fn append_result_line(digest: Digest, store: &dyn MessageStore, out: &mut Vec<u8>) -> Result<(), Error> {
    let mut line = ResultLine { digest: Some(digest), ..ResultLine::default() };
    match store.size(digest) {
        Err(Error::Lost(_)) => line.lost = true,
        Err(error) => return Err(error),
        Ok(None) => line.absent = true,
        Ok(Some(length)) if length > MAX_INLINE_MESSAGE => line.large = true,
        Ok(Some(_)) => match store.get_one(digest) {
            Ok(Some(message)) => {
                json::append_line(out, &JsonMessage::new(Some(digest), &message));
                return Ok(());
            }
            Ok(None) => line.absent = true,
            Err(Error::Corrupt(_)) => line.corrupt = true,
            Err(error) => return Err(error),
        },
    }
    json::append_line(out, &line);
    Ok(())
}

/// Splits `body` into lines. The last line may lack its newline. Too many lines are an error 413.
fn split_lines(body: &[u8]) -> Result<Vec<&[u8]>, Response> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let lines = body.strip_suffix(b"\n").unwrap_or(body).split(|byte| *byte == b'\n');
    let lines: Vec<_> = lines.take(MAX_LINES + 1).collect();
    if lines.len() > MAX_LINES {
        return Err(Response::error(413, &format!("Too many lines, at most {MAX_LINES}")));
    }
    Ok(lines)
}

/// Parses a line to store. Returns the message, or the error text of the result line.
fn parse_message_line(line: &[u8], max_message: u64) -> Result<Vec<u8>, &'static str> {
    let ParsedMessage { digest, message } =
        json::parse_object(line).ok_or("Invalid line, expected a JSON object with a message or base64")?;
    if digest.is_some_and(|digest| !digest.matches(&message)) {
        return Err("The message does not hash to its digest");
    }
    if message.len() as u64 > max_message { Err("Message is too large") } else { Ok(message) }
}

fn ndjson_response<'a>(lines: impl Iterator<Item = ResultLine<'a>>) -> Response {
    let mut out = Vec::new();
    for line in lines {
        json::append_line(&mut out, &line);
    }
    Response::new(200, CONTENT_TYPE, out)
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
