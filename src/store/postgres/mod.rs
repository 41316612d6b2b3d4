//! Messages in PostgreSQL, for those who outgrow one machine: plain SQL, so that what speaks its protocol will do.
//! The database is not believed: what is known is read back before it is acknowledged, what is got is hashed.

mod count;
mod meaning;
mod put;
mod read;
mod session;
mod tables;
mod tls;
mod url;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tokio_postgres::Row;

use crate::digest::Digest;
use crate::messages::{Cursor, Damage, Entry, Error, Page, Stats, Verified};
use crate::store::{Backend, EventSink};
use session::{Again, Failed, Sessions};

/// Bytes that are asked for, or sent, at a time, unless one message alone is longer.
const PART: u64 = 8 << 20;
/// Messages that are asked for, or sent, at a time.
const COUNT: usize = 1 << 12;
/// How often it is tried to make the tables, or to put a message that is neither new nor there.
const TURNS: usize = 8;
/// The longest message, in bytes: a row, and what it takes to send it, has to fit in 1 GiB.
pub const LONGEST: u64 = 512 << 20;

/// How to reach a database.
pub struct Options {
    /// `postgres://…`
    pub url: String,
    /// Connections at a time.
    pub pool_size: usize,
    /// For a connection.
    pub connect_timeout: Duration,
    /// For a statement; zero is for ever.
    pub statement_timeout: Duration,
    /// How long to try for a database that is not there.
    pub patience: Duration,
    /// Where to say what is found.
    pub notes: EventSink,
}

/// Messages in a database.
pub struct Postgres {
    sessions: Sessions,
    notes: EventSink,
    answers: count::Answers,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("name", &self.sessions.name()).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Connects, and makes the tables if there are none.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let sessions = Sessions::new(options)?;
        let postgres = Self { sessions, notes: options.notes.clone(), answers: count::Answers::default() };
        postgres.enter()?;
        postgres.warn()?;
        Ok(postgres)
    }
}

impl Backend for Postgres {
    fn put(&self, batch: Vec<(Digest, Vec<u8>)>) -> Result<Vec<bool>, Error> {
        let order: Vec<_> = batch.iter().map(|(digest, _)| *digest).collect();
        let mut all: BTreeMap<_, _> = batch.into_iter().collect();
        let mut new = BTreeSet::new();
        while !all.is_empty() {
            let (mut part, mut size) = (BTreeMap::new(), 0);
            while let Some((digest, message)) = all.pop_first() {
                size += message.len() as u64;
                part.insert(digest, message);
                if size >= PART || part.len() == COUNT {
                    break;
                }
            }
            new.extend(self.put_part(&part)?);
        }
        Ok(order.iter().map(|digest| new.remove(digest)).collect())
    }

    fn get(&self, wanted: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.got(wanted)
    }

    fn has(&self, wanted: &[Digest]) -> Result<Vec<bool>, Error> {
        self.there(wanted)
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.lengths(&[*digest])?.remove(digest))
    }

    fn list(&self, page: &Page) -> Result<Vec<Entry>, Error> {
        self.listed(page)
    }

    fn remove(&self, wanted: &[Digest]) -> Result<Vec<bool>, Error> {
        const REMOVE: &str = "DELETE FROM messages WHERE digest = ANY($1) RETURNING digest";
        let mut removed = Vec::with_capacity(wanted.len());
        let mut gone = BTreeSet::new();
        for part in wanted.chunks(COUNT) {
            let keys = bytes(part);
            gone.extend(self.sessions.run(Again::No, async |session| {
                let remove = session.prepare_cached(REMOVE).await?;
                digests(&session.query(&remove, &[&keys]).await?)
            })?);
            removed.extend(part.iter().map(|digest| gone.remove(digest)));
        }
        Ok(removed)
    }

    fn verify(&self, from: Option<&Cursor>) -> Result<Verified, Error> {
        verify::step(self, from)
    }

    fn repair(&self, damage: &[Damage]) -> Result<(), Error> {
        verify::repair(self, damage)
    }

    fn stats(&self) -> Result<Stats, Error> {
        self.counts()
    }

    fn health(&self) -> Result<(), Error> {
        self.how_it_is()
    }
}

fn bytes(digests: &[Digest]) -> Vec<&[u8]> {
    digests.iter().map(|digest| digest.as_bytes().as_slice()).collect()
}

fn digests(rows: &[Row]) -> Result<BTreeSet<Digest>, Failed> {
    rows.iter().map(digest).collect()
}

/// The digest in the first column.
fn digest(row: &Row) -> Result<Digest, Failed> {
    let bytes: &[u8] = row.try_get(0)?;
    let whole = bytes.try_into().map(Digest::from_bytes);
    whole.map_err(|_| Failed::Said(Error::Unusable("the table `messages` holds what is no digest".to_owned())))
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
