//! The HTTP client: a [`MessageStore`] behind a URL or a Unix socket. Responses are not trusted: messages are hashed,
//! digests are compared with locally computed ones, and the order of listings is checked.
//! See docs/design.md, "The client".

mod address;
mod get;
mod options;
mod proxy;
mod put;
mod request;
mod response;
mod tls;
mod transport;
mod unix;

use std::collections::HashSet;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

pub use address::{Address, Url};
pub use options::{Options, Token};
use request::ApiRequest;
use response::ApiResponse;
pub use tls::TlsOptions;
use transport::Failover;

use crate::digest::Digest;
use crate::message_store::{Cursor, Damage, Entry, Error, ListQuery, MessageStore, Receipt, Stats, VerifyStep};
use crate::unix_path;

/// Maximum number of digests or damage items in one request, except in a get.
const MAX_DIGESTS_PER_REQUEST: usize = 4096;
/// Maximum number of entries that a server returns in one page of a listing.
const MAX_LIST_ENTRIES: usize = 10_000;

/// A message store behind one or more servers.
#[derive(Debug)]
pub struct Client {
    failover: Failover,
    max_message: u64,
}

impl Client {
    /// Creates a client of `servers`, which must all have the same store. Does not connect.
    pub fn new(servers: &[Address], options: &Options) -> Result<Self, Error> {
        Ok(Self { failover: Failover::new(servers, options)?, max_message: options.max_message })
    }

    /// Connects to the server that holds the store at `dir`. Returns `None` if there is none.
    pub fn via_local_socket(dir: &Path, options: &Options) -> Option<Self> {
        let socket = dir.join(unix_path::SOCKET_NAME);
        // The socket of a dead server refuses the connection. Other errors show when the store is opened.
        let stream: UnixStream = unix::connect(&socket, options.read_timeout).ok()?;
        let failover = Failover::via_local_socket(dir.to_owned(), socket, stream, options);
        Some(Self { failover, max_message: options.max_message })
    }

    /// Sends a request and parses the JSON value in the response.
    fn request_json<T: DeserializeOwned>(&self, request: &ApiRequest<'_>) -> Result<T, Error> {
        let response = self.failover.send(request)?.error_for_status()?;
        serde_json::from_slice(&response.body).map_err(|error| response.invalid_response(&error))
    }

    /// Sends one line per digest and parses the lines of the response.
    fn request_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        digests: &[Digest],
    ) -> Result<(Vec<T>, ApiResponse), Error> {
        let request = ApiRequest::post_digests(path, digests);
        let response = self.failover.send(&request)?.error_for_status()?;
        let lines = serde_json::Deserializer::from_slice(&response.body).into_iter().collect::<Result<Vec<T>, _>>();
        lines.map_err(|error| response.invalid_response(&error)).map(|lines| (lines, response))
    }
}

/// A line that contains only a digest.
#[derive(Deserialize)]
struct DigestLine {
    digest: Digest,
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
        let mut results = Vec::with_capacity(digests.len());
        for digests in digests.chunks(MAX_DIGESTS_PER_REQUEST) {
            let (missing, response) = self.request_lines::<DigestLine>("/messages/missing", digests)?;
            let missing: HashSet<_> = missing.into_iter().map(|line| line.digest).collect();
            let requested_and_missing =
                digests.iter().filter(|digest| missing.contains(digest)).collect::<HashSet<_>>();
            if requested_and_missing.len() != missing.len() {
                return Err(response.invalid_response(&"it has a digest that was not requested"));
            }
            results.extend(digests.iter().map(|digest| !missing.contains(digest)));
        }
        Ok(results)
    }

    fn size(&self, digest: Digest) -> Result<Option<u64>, Error> {
        let response = self.failover.send(&ApiRequest::head_message(digest))?;
        if response.status == 404 {
            return Ok(None);
        }
        let response = response.error_for_status()?;
        let length = response.header("Content-Length").and_then(|length| length.parse().ok());
        length.map(Some).ok_or_else(|| response.invalid_response(&"missing or invalid Content-Length"))
    }

    fn list(&self, page: &ListQuery) -> Result<Vec<Entry>, Error> {
        #[derive(Deserialize)]
        struct ListResponse {
            messages: Vec<Entry>,
        }
        let mut entries: Vec<Entry> = Vec::new();
        while entries.len() < page.limit {
            let after = entries.last().map_or(page.after, |entry| Some(entry.digest));
            let limit = MAX_LIST_ENTRIES.min(page.limit - entries.len());
            let response = self.failover.send(&ApiRequest::list(&page.prefix, after, limit))?.error_for_status()?;
            let listed: ListResponse =
                serde_json::from_slice(&response.body).map_err(|error| response.invalid_response(&error))?;
            let mut previous = after;
            for entry in &listed.messages {
                let is_in_order = previous.is_none_or(|previous| entry.digest > previous);
                if !is_in_order || !page.prefix.range().contains(&entry.digest) {
                    return Err(response.invalid_response(&"the list is out of order or outside the prefix"));
                }
                previous = Some(entry.digest);
            }
            let is_last = listed.messages.is_empty() || response.header("Link").is_none();
            entries.extend(listed.messages);
            if is_last {
                break;
            }
        }
        entries.truncate(page.limit);
        Ok(entries)
    }

    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        #[derive(Deserialize)]
        struct RemoveResultLine {
            digest: Digest,
            removed: bool,
        }
        let mut results = Vec::with_capacity(digests.len());
        for digests in digests.chunks(MAX_DIGESTS_PER_REQUEST) {
            let (lines, response) = self.request_lines::<RemoveResultLine>("/messages/remove", digests)?;
            if !lines.iter().map(|line| &line.digest).eq(digests) {
                return Err(response.invalid_response(&"its digests are not those of the request"));
            }
            results.extend(lines.iter().map(|line| line.removed));
        }
        Ok(results)
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

    fn accept_loss(&self, losses: &[Damage]) -> Result<(), Error> {
        for losses in losses.chunks(MAX_DIGESTS_PER_REQUEST) {
            let body = json!({ "damage": losses, "accept_loss": true });
            self.failover.send(&ApiRequest::post_json("/repair", &body))?.error_for_status()?;
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
            health => Err(Error::Unusable(health.to_owned())),
        }
    }
}
