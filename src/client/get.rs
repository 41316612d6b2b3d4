//! Gets in batches. The next batch is requested when the iterator reaches it. Every message is hashed before it is
//! returned.

use std::io::{BufRead, Cursor};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::request::ApiRequest;
use super::response::ApiResponse;
use super::transport::Failover;
use crate::digest::Digest;
use crate::message_store::Error;

/// Maximum number of digests in one `POST /messages/get`.
const MAX_GET_DIGESTS: usize = 1000;

/// Iterator over the messages of digests, in order.
pub(super) struct BatchGet<'a> {
    failover: &'a Failover,
    remaining: &'a [Digest],
    /// Current response, and a cursor at its next line.
    buffered: Option<(ApiResponse, Cursor<Vec<u8>>)>,
}

/// One line of a response: a message, or the reason why the line has none.
#[derive(Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "the keys of the JSON object")]
struct GetResultLine {
    digest: Digest,
    message: Option<String>,
    base64: Option<String>,
    #[serde(default)]
    absent: bool,
    #[serde(default)]
    corrupt: bool,
    #[serde(default)]
    lost: bool,
    #[serde(default)]
    large: bool,
}

impl<'a> BatchGet<'a> {
    pub(super) const fn new(failover: &'a Failover, digests: &'a [Digest]) -> Self {
        Self { failover, remaining: digests, buffered: None }
    }

    /// Returns the next line of the current response, which must be about `digest`; `None` at its end.
    fn next_line(&mut self, digest: Digest) -> Result<Option<GetResultLine>, Error> {
        let Some((response, lines)) = &mut self.buffered else { return Ok(None) };
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line).expect("reading from memory does not fail");
        if line.is_empty() {
            self.buffered = None;
            return Ok(None);
        }
        match serde_json::from_slice::<GetResultLine>(&line) {
            Ok(line) if line.digest == digest => Ok(Some(line)),
            Ok(line) => Err(response.invalid_response(&format!("expected digest {digest}, got {}", line.digest))),
            Err(error) => Err(response.invalid_response(&error)),
        }
    }

    fn fetch(&mut self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        if let Some(line) = self.next_line(digest)? {
            return self.decode_line(line);
        }
        if self.remaining.is_empty() {
            return self.fetch_one(digest);
        }
        let batch = [&[digest], &self.remaining[..self.remaining.len().min(MAX_GET_DIGESTS - 1)]].concat();
        let request = ApiRequest::post_digests("/messages/get", &batch);
        let mut response = self.failover.send(&request)?.error_for_status()?;
        let lines = Cursor::new(std::mem::take(&mut response.body));
        self.buffered = Some((response, lines));
        match self.next_line(digest)? {
            Some(line) => self.decode_line(line),
            None => self.fetch_one(digest),
        }
    }

    fn decode_line(&self, line: GetResultLine) -> Result<Option<Vec<u8>>, Error> {
        let GetResultLine { digest, message, base64, absent, corrupt, lost, large } = line;
        let message = match (message, base64) {
            (Some(text), _) => Some(text.into_bytes()),
            (None, Some(text)) => BASE64_STANDARD.decode(text).ok(),
            (None, None) if absent => return Ok(None),
            (None, None) if large => return self.fetch_one(digest),
            (None, None) if lost => return Err(Error::Lost(digest)),
            (None, None) if corrupt => return Err(Error::Corrupt(digest)),
            (None, None) => None,
        };
        message.filter(|message| digest.matches(message)).map(Some).ok_or(Error::Corrupt(digest))
    }

    fn fetch_one(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        let response = self.failover.send(&ApiRequest::get_message(digest))?;
        match response.status {
            404 => Ok(None),
            500 if response.err_msg().is_some_and(|err_msg| err_msg == "Message is corrupt") => {
                Err(Error::Corrupt(digest))
            }
            500 if response.err_msg().is_some_and(|err_msg| err_msg == "Message is lost") => Err(Error::Lost(digest)),
            _ => match response.error_for_status()?.body {
                message if digest.matches(&message) => Ok(Some(message)),
                _ => Err(Error::Corrupt(digest)),
            },
        }
    }
}

impl Iterator for BatchGet<'_> {
    type Item = Result<Option<Vec<u8>>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (digest, remaining) = self.remaining.split_first()?;
        self.remaining = remaining;
        Some(self.fetch(*digest))
    }
}
