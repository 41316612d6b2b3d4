//! `Messages` over a URL or a socket. Nothing that a server says is believed: messages are hashed again, digests are
//! compared with those computed here, and a listing has to be in order.

mod address;
mod get;
mod proxy;
mod put;
mod request;
mod response;
mod tls;
mod transport;
mod unix;

use std::collections::HashSet;
use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use address::{Address, Url};
use request::ApiRequest;
use response::ApiResponse;
pub use tls::TlsOptions;
use transport::Failover;

use crate::digest::Digest;
use crate::message_store::{Cursor, Damage, Entry, Error, ListQuery, MessageStore, Receipt, Stats, VerifyStep};
use crate::unix_path;

/// Digests that are asked for in one request at the most.
const MAX_DIGESTS_PER_REQUEST: usize = 4096;
/// Entries that a server lists at a time at the most.
const MAX_LIST_ENTRIES: usize = 10_000;

/// How to reach a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whom to trust, and who we are.
    pub tls: TlsOptions,
    /// What says who we are to a server that wants to know.
    pub token: Option<Token>,
    /// For how long a server may say nothing.
    pub read_timeout: Duration,
    /// How long to go on asking a server that says it will be ready soon.
    pub ready_timeout: Duration,
    /// The longest message that is sent, in bytes.
    pub max_message: u64,
}

/// A secret: it is sent, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// The messages of a server.
#[derive(Debug)]
pub struct Client {
    failover: Failover,
    max_message: u64,
}

impl Client {
    /// The messages of the first of `servers` that answers; all of them serve the same.
    pub fn new(servers: &[Address], options: &Options) -> Result<Self, Error> {
        Ok(Self { failover: Failover::new(servers, options)?, max_message: options.max_message })
    }

    /// The messages of the store at `dir`, if a server holds it.
    pub fn via_local_socket(dir: &Path, options: &Options) -> Option<Self> {
        let socket = dir.join(unix_path::SOCKET_NAME);
        // Who left a socket and is dead refuses; whatever else is wrong shows when the store is opened.
        let stream: UnixStream = unix::connect(&socket, options.read_timeout).ok()?;
        let servers = Failover::via_local_socket(dir.to_owned(), socket, stream, options);
        Some(Self { failover: servers, max_message: options.max_message })
    }

    /// Asks, and reads the one JSON value of the reply.
    fn request_json<T: DeserializeOwned>(&self, ask: &ApiRequest<'_>) -> Result<T, Error> {
        let reply = self.failover.send(ask)?.error_for_status()?;
        serde_json::from_slice(&reply.body).map_err(|why| reply.invalid_response(&why))
    }

    /// Asks about digests, and reads a line for each of those that the server has something to say about.
    fn request_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        digests: &[Digest],
    ) -> Result<(Vec<T>, ApiResponse), Error> {
        let reply = self.failover.send(&ApiRequest::post_lines(path, to_digest_lines(digests)))?.error_for_status()?;
        let lines = serde_json::Deserializer::from_slice(&reply.body).into_iter().collect::<Result<Vec<T>, _>>();
        lines.map_err(|why| reply.invalid_response(&why)).map(|lines| (lines, reply))
    }
}

/// A line of a request or a reply that is about a digest.
#[derive(Serialize, Deserialize)]
struct DigestLine {
    digest: Digest,
}

/// A line for each digest.
fn to_digest_lines(digests: &[Digest]) -> Vec<u8> {
    digests.iter().map(|digest| format!("{{\"digest\":\"{digest}\"}}\n")).collect::<String>().into_bytes()
}

impl MessageStore for Client {
    fn put(&self, batch: Vec<Vec<u8>>) -> Result<Vec<Receipt>, Error> {
        if let Some(long) = batch.iter().find(|message| message.len() as u64 > self.max_message) {
            return Err(Error::TooLarge { length: long.len() as u64, limit: self.max_message });
        }
        put::put(&self.failover, &batch)
    }

    fn get<'a>(&'a self, digests: &'a [Digest]) -> Box<dyn Iterator<Item = Result<Option<Vec<u8>>, Error>> + 'a> {
        Box::new(get::BatchGet::new(&self.failover, digests))
    }

    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let mut all = Vec::with_capacity(digests.len());
        for digests in digests.chunks(MAX_DIGESTS_PER_REQUEST) {
            let (missing, reply) = self.request_lines::<DigestLine>("/messages/missing", digests)?;
            let missing: HashSet<_> = missing.into_iter().map(|line| line.digest).collect();
            let before = all.len();
            all.extend(digests.iter().map(|digest| !missing.contains(digest)));
            let absent: HashSet<_> =
                digests.iter().zip(&all[before..]).filter(|(_, has)| !**has).map(|(digest, _)| digest).collect();
            if absent.len() != missing.len() {
                return Err(reply.invalid_response(&"it speaks of other digests than it was asked about"));
            }
        }
        Ok(all)
    }

    fn size(&self, digest: Digest) -> Result<Option<u64>, Error> {
        let reply = self.failover.send(&ApiRequest::head_message(digest))?;
        if reply.status == 404 {
            return Ok(None);
        }
        let reply = reply.error_for_status()?;
        let length = reply.header("Content-Length").and_then(|length| length.parse().ok());
        length.map(Some).ok_or_else(|| reply.invalid_response(&"it does not tell the length"))
    }

    fn list(&self, page: &ListQuery) -> Result<Vec<Entry>, Error> {
        #[derive(Deserialize)]
        struct ListResponse {
            messages: Vec<Entry>,
        }
        let mut all: Vec<Entry> = Vec::new();
        while all.len() < page.limit {
            let after = all.last().map_or(page.after, |entry| Some(entry.digest));
            let limit = MAX_LIST_ENTRIES.min(page.limit - all.len());
            let reply = self.failover.send(&ApiRequest::list(&page.prefix, after, limit))?.error_for_status()?;
            let listed: ListResponse =
                serde_json::from_slice(&reply.body).map_err(|why| reply.invalid_response(&why))?;
            let mut least = after;
            for entry in &listed.messages {
                if least.is_some_and(|least| entry.digest <= least) || !page.prefix.range().contains(&entry.digest) {
                    return Err(reply.invalid_response(&"its list is out of order"));
                }
                least = Some(entry.digest);
            }
            let is_last = listed.messages.is_empty() || reply.header("Link").is_none();
            all.extend(listed.messages);
            if is_last {
                break;
            }
        }
        all.truncate(page.limit);
        Ok(all)
    }

    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        #[derive(Deserialize)]
        struct RemoveResultLine {
            digest: Digest,
            removed: bool,
        }
        let mut all = Vec::with_capacity(digests.len());
        for digests in digests.chunks(MAX_DIGESTS_PER_REQUEST) {
            let (lines, reply) = self.request_lines::<RemoveResultLine>("/messages/remove", digests)?;
            if !lines.iter().map(|line| &line.digest).eq(digests) {
                return Err(reply.invalid_response(&"it speaks of other digests than it was asked about"));
            }
            all.extend(lines.iter().map(|line| line.removed));
        }
        Ok(all)
    }

    fn verify(&self, from: Option<&Cursor>) -> Result<VerifyStep, Error> {
        self.request_json(&ApiRequest::post_json("/verify", &json!({ "from": from })))
    }

    fn repair(&self, damage: &[Damage]) -> Result<(), Error> {
        for damage in damage.chunks(MAX_DIGESTS_PER_REQUEST) {
            self.failover.send(&ApiRequest::post_json("/repair", &json!({ "damage": damage })))?.error_for_status()?;
        }
        Ok(())
    }

    fn stats(&self) -> Result<Stats, Error> {
        self.request_json(&ApiRequest::get_json("/stats"))
    }

    fn health(&self) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Health {
            health: String,
        }
        match self.request_json::<Health>(&ApiRequest::get_json("/stats"))?.health.as_str() {
            "ok" => Ok(()),
            why => Err(Error::Unusable(why.to_owned())),
        }
    }
}
