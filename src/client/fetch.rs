//! Gets over a connection: many messages a request, fetched as they are asked for, and each hashed before it is
//! handed out.

use std::io::{BufRead, Cursor};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::ask::Ask;
use super::digests_as_lines;
use super::exchange::Servers;
use super::reply::Reply;
use crate::digest::Digest;
use crate::messages::Error;

/// Messages that are asked for in one request at the most.
const COUNT: usize = 1000;

/// The messages of digests, in order.
pub(super) struct Fetch<'a> {
    servers: &'a Servers,
    rest: &'a [Digest],
    /// The reply that is being read, and what of it is not read yet.
    lines: Option<(Reply, Cursor<Vec<u8>>)>,
}

/// What a server says of a digest.
#[derive(Deserialize)]
struct Line {
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

impl<'a> Fetch<'a> {
    pub(super) const fn new(servers: &'a Servers, digests: &'a [Digest]) -> Self {
        Self { servers, rest: digests, lines: None }
    }

    /// What the next line of the reply says of `digest`; `None`: the reply is at its end.
    fn read(&mut self, digest: Digest) -> Result<Option<Line>, Error> {
        let Some((reply, lines)) = &mut self.lines else { return Ok(None) };
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line).expect("memory can be read");
        if line.is_empty() {
            self.lines = None;
            return Ok(None);
        }
        match serde_json::from_slice::<Line>(&line) {
            Ok(line) if line.digest == digest => Ok(Some(line)),
            Ok(line) => Err(reply.makes_no_sense(&format!("asked for {digest} it speaks of {}", line.digest))),
            Err(why) => Err(reply.makes_no_sense(&why)),
        }
    }

    fn fetch(&mut self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        if let Some(line) = self.read(digest)? {
            return self.message(line);
        }
        if self.rest.is_empty() {
            return self.fetch_alone(digest);
        }
        let asked = [&[digest], &self.rest[..self.rest.len().min(COUNT - 1)]].concat();
        let mut reply = self.servers.ask(&Ask::lines("/messages/get", digests_as_lines(&asked)))?.or_fail()?;
        let lines = Cursor::new(std::mem::take(&mut reply.body));
        self.lines = Some((reply, lines));
        match self.read(digest)? {
            Some(line) => self.message(line),
            None => self.fetch_alone(digest),
        }
    }

    fn message(&self, line: Line) -> Result<Option<Vec<u8>>, Error> {
        let Line { digest, message, base64, absent, corrupt, large } = line;
        let message = match (message, base64) {
            (Some(text), _) => Some(text.into_bytes()),
            (None, Some(text)) => BASE64_STANDARD.decode(text).ok(),
            (None, None) if absent => return Ok(None),
            (None, None) if large => return self.fetch_alone(digest),
            (None, None) if corrupt => return Err(Error::Corrupt(digest)),
            (None, None) => None,
        };
        message.filter(|message| digest.names(message)).map(Some).ok_or(Error::Corrupt(digest))
    }

    fn fetch_alone(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        let reply = self.servers.ask(&Ask::bytes(digest))?;
        match reply.status {
            404 => Ok(None),
            500 if reply.err_msg().is_some_and(|said| said == "Message is corrupt") => Err(Error::Corrupt(digest)),
            _ => match reply.or_fail()?.body {
                message if digest.names(&message) => Ok(Some(message)),
                _ => Err(Error::Corrupt(digest)),
            },
        }
    }
}

impl Iterator for Fetch<'_> {
    type Item = Result<Option<Vec<u8>>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (digest, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(self.fetch(*digest))
    }
}
