//! Many messages in one request: a line of JSON for each, in and out, in the same order. What comes out is bounded:
//! the lines are counted, and a reply with messages ends when it is long enough.

use serde::{Deserialize, Serialize};

use super::{Response, json};
use crate::digest::Digest;
use crate::json_message::{JsonMessage, ParsedMessage};
use crate::message_store::{Error, MessageStore};

/// The type of bodies that are lines of JSON.
pub(super) const CONTENT_TYPE: &str = "application/x-ndjson";
/// The most lines of a request: a short line in can be a long one out.
const MAX_LINES: usize = 100_000;
/// How long a reply with messages gets, in bytes, unless its first line is longer.
const MAX_RESPONSE_BYTES: usize = 8 << 20;
/// The longest message that goes with others, in bytes.
const MAX_INLINE_MESSAGE: u64 = 1 << 20;

#[derive(Deserialize)]
struct DigestLine {
    digest: Digest,
}

#[derive(Default, Serialize)]
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
    large: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    err_msg: Option<&'a str>,
}

/// Stores what the good lines hold, all in one commit; answers each line.
pub(super) fn put(body: &[u8], messages: &dyn MessageStore) -> Result<Response, Error> {
    let lines = match split_lines(body) {
        Ok(lines) => lines,
        Err(reply) => return Ok(reply),
    };
    let mut limit = u64::MAX;
    loop {
        let (mut batch, mut outcomes) = (Vec::new(), Vec::with_capacity(lines.len()));
        for line in &lines {
            outcomes.push(parse_message_line(line, limit).map(|message| batch.push(message)));
        }
        match messages.put(batch) {
            // Only the store knows how much is too much, and it says so before it stores any.
            Err(Error::TooLarge { limit: known, .. }) if known < limit => limit = known,
            Err(error) => return Err(error),
            Ok(receipts) => {
                let mut receipts = receipts.into_iter();
                return Ok(ndjson_response(outcomes.into_iter().map(|outcome| match outcome {
                    Ok(()) => {
                        let receipt = receipts.next().expect("a receipt for each message");
                        ResultLine { digest: Some(receipt.digest), new: Some(receipt.new), ..ResultLine::default() }
                    }
                    Err(why) => ResultLine { err_msg: Some(why), ..ResultLine::default() },
                })));
            }
        }
    }
}

/// Answers with those that are not stored.
pub(super) fn list_missing(digests: &[Digest], messages: &dyn MessageStore) -> Result<Response, Error> {
    let stored = messages.has(digests)?;
    let missing = digests.iter().zip(stored).filter(|(_, stored)| !stored);
    Ok(ndjson_response(missing.map(|(digest, _)| ResultLine { digest: Some(*digest), ..ResultLine::default() })))
}

/// Removes them all, and answers which of them were stored.
pub(super) fn remove(digests: &[Digest], messages: &dyn MessageStore) -> Result<Response, Error> {
    let removed = messages.remove(digests)?;
    let line = |(digest, removed): (&Digest, bool)| ResultLine {
        digest: Some(*digest),
        removed: Some(removed),
        ..ResultLine::default()
    };
    Ok(ndjson_response(digests.iter().zip(removed).map(line)))
}

/// Answers with the messages, as many as fit.
pub(super) fn get(digests: &[Digest], messages: &dyn MessageStore) -> Result<Response, Error> {
    let mut out = Vec::new();
    messages.prefetch(digests);
    for &digest in digests {
        let start = out.len();
        append_result_line(digest, messages, &mut out)?;
        if start > 0 && out.len() > MAX_RESPONSE_BYTES {
            out.truncate(start);
            break;
        }
    }
    Ok(Response::new(200, CONTENT_TYPE, out))
}

/// The digests that a body names, a line each; else a 400 that says which line names none.
pub(super) fn parse_all_digests(body: &[u8]) -> Result<Vec<Digest>, Response> {
    let digest = |(at, line): (usize, &[u8])| {
        parse_digest_line(line)
            .ok_or_else(|| Response::error(400, &format!("Line {} is no JSON object with a digest", at + 1)))
    };
    split_lines(body)?.into_iter().enumerate().map(digest).collect()
}

/// The digest that each line of `body` names, if it does.
pub(super) fn parse_digests(body: &[u8]) -> Vec<Option<Digest>> {
    split_lines(body).unwrap_or_default().into_iter().map(parse_digest_line).collect()
}

fn parse_digest_line(line: &[u8]) -> Option<Digest> {
    json::parse_object::<DigestLine>(line).map(|named| named.digest)
}

fn append_result_line(digest: Digest, messages: &dyn MessageStore, out: &mut Vec<u8>) -> Result<(), Error> {
    let mut line = ResultLine { digest: Some(digest), ..ResultLine::default() };
    match messages.size(digest)? {
        None => line.absent = true,
        Some(length) if length > MAX_INLINE_MESSAGE => line.large = true,
        Some(_) => match messages.get_one(digest) {
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

/// The lines of `body`; the last may end with it.
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

/// The message of a line, or what is wrong with it.
fn parse_message_line(line: &[u8], limit: u64) -> Result<Vec<u8>, &'static str> {
    let ParsedMessage { digest, message } =
        json::parse_object(line).ok_or("Invalid line, expected a JSON object with a message or base64")?;
    if digest.is_some_and(|digest| !digest.matches(&message)) {
        return Err("The message does not hash to its digest");
    }
    if message.len() as u64 > limit { Err("Message is too large") } else { Ok(message) }
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
