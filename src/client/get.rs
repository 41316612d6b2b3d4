//! Gets over a connection: many messages a request, fetched as they are asked for, and each hashed before it is
//! handed out.

use std::io::{BufRead, Cursor};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::request::ApiRequest;
use super::response::ApiResponse;
use super::to_digest_lines;
use super::transport::Failover;
use crate::digest::Digest;
use crate::message_store::Error;

/// Messages that are asked for in one request at the most.
const MAX_GET_DIGESTS: usize = 1000;

/// The messages of digests, in order.
pub(super) struct BatchGet<'a> {
    failover: &'a Failover,
    remaining: &'a [Digest],
    /// The reply that is being read, and what of it is not read yet.
    buffered: Option<(ApiResponse, Cursor<Vec<u8>>)>,
}

/// What a server says of a digest.
#[derive(Deserialize)]
struct GetResultLine {
    digest: Digest,
    message: Option<String>,
    base64: Option<String>,
    #[serde(default)]
    absent: bool,
    #[serde(default)]
    corrupt: bool,
    #[serde(default)]
    large: bool,
}

impl<'a> BatchGet<'a> {
    pub(super) const fn new(servers: &'a Failover, digests: &'a [Digest]) -> Self {
        Self { failover: servers, remaining: digests, buffered: None }
    }

    /// What the next line of the reply says of `digest`; `None`: the reply is at its end.
    fn next_line(&mut self, digest: Digest) -> Result<Option<GetResultLine>, Error> {
        let Some((reply, lines)) = &mut self.buffered else { return Ok(None) };
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line).expect("memory can be read");
        if line.is_empty() {
            self.buffered = None;
            return Ok(None);
        }
        match serde_json::from_slice::<GetResultLine>(&line) {
            Ok(line) if line.digest == digest => Ok(Some(line)),
            Ok(line) => Err(reply.invalid_response(&format!("asked for {digest} it speaks of {}", line.digest))),
            Err(why) => Err(reply.invalid_response(&why)),
        }
    }

    fn fetch(&mut self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        if let Some(line) = self.next_line(digest)? {
            return self.decode_line(line);
        }
        if self.remaining.is_empty() {
            return self.fetch_one(digest);
        }
        let asked = [&[digest], &self.remaining[..self.remaining.len().min(MAX_GET_DIGESTS - 1)]].concat();
        let mut reply = self
            .failover
            .send(&ApiRequest::post_lines("/messages/get", to_digest_lines(&asked)))?
            .error_for_status()?;
        let lines = Cursor::new(std::mem::take(&mut reply.body));
        self.buffered = Some((reply, lines));
        match self.next_line(digest)? {
            Some(line) => self.decode_line(line),
            None => self.fetch_one(digest),
        }
    }

    fn decode_line(&self, line: GetResultLine) -> Result<Option<Vec<u8>>, Error> {
        let GetResultLine { digest, message, base64, absent, corrupt, large } = line;
        let message = match (message, base64) {
            (Some(text), _) => Some(text.into_bytes()),
            (None, Some(text)) => BASE64_STANDARD.decode(text).ok(),
            (None, None) if absent => return Ok(None),
            (None, None) if large => return self.fetch_one(digest),
            (None, None) if corrupt => return Err(Error::Corrupt(digest)),
            (None, None) => None,
        };
        message.filter(|message| digest.matches(message)).map(Some).ok_or(Error::Corrupt(digest))
    }

    fn fetch_one(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        let reply = self.failover.send(&ApiRequest::get_message(digest))?;
        match reply.status {
            404 => Ok(None),
            500 if reply.err_msg().is_some_and(|said| said == "Message is corrupt") => Err(Error::Corrupt(digest)),
            _ => match reply.error_for_status()?.body {
                message if digest.matches(&message) => Ok(Some(message)),
                _ => Err(Error::Corrupt(digest)),
            },
        }
    }
}

impl Iterator for BatchGet<'_> {
    type Item = Result<Option<Vec<u8>>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (digest, rest) = self.remaining.split_first()?;
        self.remaining = rest;
        Some(self.fetch(*digest))
    }
}
