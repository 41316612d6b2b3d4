//! `Messages` over a URL or a socket. Nothing that a server says is believed: messages are hashed again, digests are
//! compared with those computed here, and a listing has to be in order.

mod address;
mod ask;
mod exchange;
mod fetch;
mod proxy;
mod reply;
mod send;
mod tls;
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
use ask::Ask;
use exchange::Servers;
use reply::Reply;
pub use tls::Trust;

use crate::digest::Digest;
use crate::messages::{Cursor, Damage, Entry, Error, Messages, Page, Receipt, Stats, Verified};
use crate::socket;

/// Digests that are asked for in one request at the most.
const COUNT: usize = 4096;
/// Entries that a server lists at a time at the most.
const PAGE: usize = 10_000;

/// How to reach a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whom to trust, and who we are.
    pub trust: Trust,
    /// What says who we are to a server that wants to know.
    pub token: Option<Token>,
    /// For how long a server may say nothing.
    pub timeout: Duration,
    /// How long to go on asking a server that says it will be ready soon.
    pub wait: Duration,
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
    servers: Servers,
    max_message: u64,
}

impl Client {
    /// The messages of the first of `servers` that answers; all of them serve the same.
    pub fn new(servers: &[Address], options: &Options) -> Result<Self, Error> {
        Ok(Self { servers: Servers::new(servers, options)?, max_message: options.max_message })
    }

    /// The messages of the store at `dir`, if a server holds it.
    pub fn beside(dir: &Path, options: &Options) -> Option<Self> {
        let socket = dir.join(socket::NAME);
        // Who left a socket and is dead refuses; whatever else is wrong shows when the store is opened.
        let stream: UnixStream = unix::connect(&socket, options.timeout).ok()?;
        let servers = Servers::beside(dir.to_owned(), socket, stream, options);
        Some(Self { servers, max_message: options.max_message })
    }

    /// Asks, and reads the one JSON value of the reply.
    fn value<T: DeserializeOwned>(&self, ask: &Ask<'_>) -> Result<T, Error> {
        let reply = self.servers.ask(ask)?.or_fail()?;
        serde_json::from_slice(&reply.body).map_err(|why| reply.makes_no_sense(&why))
    }

    /// Asks about digests, and reads a line for each of those that the server has something to say about.
    fn lines<T: DeserializeOwned>(&self, path: &str, digests: &[Digest]) -> Result<(Vec<T>, Reply), Error> {
        let reply = self.servers.ask(&Ask::lines(path, digests_as_lines(digests)))?.or_fail()?;
        let lines = serde_json::Deserializer::from_slice(&reply.body).into_iter().collect::<Result<Vec<T>, _>>();
        lines.map_err(|why| reply.makes_no_sense(&why)).map(|lines| (lines, reply))
    }
}

/// A line of a request or a reply that is about a digest.
#[derive(Serialize, Deserialize)]
struct About {
    digest: Digest,
}

/// A line for each digest.
fn digests_as_lines(digests: &[Digest]) -> Vec<u8> {
    digests.iter().map(|digest| format!("{{\"digest\":\"{digest}\"}}\n")).collect::<String>().into_bytes()
}

impl Messages for Client {
    fn put(&self, batch: Vec<Vec<u8>>) -> Result<Vec<Receipt>, Error> {
        if let Some(long) = batch.iter().find(|message| message.len() as u64 > self.max_message) {
            return Err(Error::TooLarge { length: long.len() as u64, limit: self.max_message });
        }
        send::put(&self.servers, &batch)
    }

    fn get<'a>(&'a self, digests: &'a [Digest]) -> Box<dyn Iterator<Item = Result<Option<Vec<u8>>, Error>> + 'a> {
        Box::new(fetch::Fetch::new(&self.servers, digests))
    }

    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let mut all = Vec::with_capacity(digests.len());
        for digests in digests.chunks(COUNT) {
            let (missing, reply) = self.lines::<About>("/messages/missing", digests)?;
            let missing: HashSet<_> = missing.into_iter().map(|line| line.digest).collect();
            let before = all.len();
            all.extend(digests.iter().map(|digest| !missing.contains(digest)));
            let absent: HashSet<_> =
                digests.iter().zip(&all[before..]).filter(|(_, has)| !**has).map(|(digest, _)| digest).collect();
            if absent.len() != missing.len() {
                return Err(reply.makes_no_sense(&"it speaks of other digests than it was asked about"));
            }
        }
        Ok(all)
    }

    fn length(&self, digest: Digest) -> Result<Option<u64>, Error> {
        let reply = self.servers.ask(&Ask::head(digest))?;
        if reply.status == 404 {
            return Ok(None);
        }
        let reply = reply.or_fail()?;
        let length = reply.field("Content-Length").and_then(|length| length.parse().ok());
        length.map(Some).ok_or_else(|| reply.makes_no_sense(&"it does not tell the length"))
    }

    fn list(&self, page: &Page) -> Result<Vec<Entry>, Error> {
        #[derive(Deserialize)]
        struct Listed {
            messages: Vec<Entry>,
        }
        let mut all: Vec<Entry> = Vec::new();
        while all.len() < page.limit {
            let after = all.last().map_or(page.after, |entry| Some(entry.digest));
            let limit = PAGE.min(page.limit - all.len());
            let reply = self.servers.ask(&Ask::list(&page.prefix, after, limit))?.or_fail()?;
            let listed: Listed = serde_json::from_slice(&reply.body).map_err(|why| reply.makes_no_sense(&why))?;
            let mut least = after;
            for entry in &listed.messages {
                if least.is_some_and(|least| entry.digest <= least) || !page.prefix.range().contains(&entry.digest) {
                    return Err(reply.makes_no_sense(&"its list is out of order"));
                }
                least = Some(entry.digest);
            }
            let is_last = listed.messages.is_empty() || reply.field("Link").is_none();
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
        struct Removed {
            digest: Digest,
            removed: bool,
        }
        let mut all = Vec::with_capacity(digests.len());
        for digests in digests.chunks(COUNT) {
            let (lines, reply) = self.lines::<Removed>("/messages/remove", digests)?;
            if !lines.iter().map(|line| &line.digest).eq(digests) {
                return Err(reply.makes_no_sense(&"it speaks of other digests than it was asked about"));
            }
            all.extend(lines.iter().map(|line| line.removed));
        }
        Ok(all)
    }

    fn verify(&self, from: Option<&Cursor>) -> Result<Verified, Error> {
        self.value(&Ask::json("/verify", &json!({ "from": from })))
    }

    fn repair(&self, damage: &[Damage]) -> Result<(), Error> {
        for damage in damage.chunks(COUNT) {
            self.servers.ask(&Ask::json("/repair", &json!({ "damage": damage })))?.or_fail()?;
        }
        Ok(())
    }

    fn stats(&self) -> Result<Stats, Error> {
        self.value(&Ask::get("/stats"))
    }

    fn health(&self) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Health {
            health: String,
        }
        match self.value::<Health>(&Ask::get("/stats"))?.health.as_str() {
            "ok" => Ok(()),
            why => Err(Error::Unusable(why.to_owned())),
        }
    }
}
