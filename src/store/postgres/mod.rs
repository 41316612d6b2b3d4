//! Messages in PostgreSQL, for those who outgrow one machine: plain SQL, so that what speaks its protocol will do.
//! The database is not believed: what is known is read back before it is acknowledged, what is got is hashed.

mod error;
mod pool;
mod put;
mod read;
mod schema;
mod stats;
mod tls;
mod url;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tokio_postgres::Row;

use crate::digest::Digest;
use crate::message_store::{Cursor, Damage, Entry, Error, ListQuery, Stats, VerifyStep};
use crate::store::{Backend, EventSink};
use pool::{ConnectionPool, Idempotent, QueryError};

/// Bytes that are asked for, or sent, at a time, unless one message alone is longer.
const STATEMENT_BYTES: u64 = 8 << 20;
/// Messages that are asked for, or sent, at a time.
const STATEMENT_ROWS: usize = 1 << 12;
/// How often it is tried to make the tables, or to put a message that is neither new nor there.
const MAX_ATTEMPTS: usize = 8;
/// The longest message, in bytes: a row, and what it takes to send it, has to fit in 1 GiB.
pub const MAX_MESSAGE_BYTES: u64 = 512 << 20;

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
    pub ready_timeout: Duration,
    /// Where to say what is found.
    pub events: EventSink,
}

/// Messages in a database.
pub struct Postgres {
    pool: ConnectionPool,
    events: EventSink,
    stats_cache: stats::StatsCache,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("name", &self.pool.name()).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Connects, and makes the tables if there are none.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let sessions = ConnectionPool::new(options)?;
        let postgres =
            Self { pool: sessions, events: options.events.clone(), stats_cache: stats::StatsCache::default() };
        postgres.ensure_schema()?;
        postgres.warn_unsafe_settings()?;
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
                if size >= STATEMENT_BYTES || part.len() == STATEMENT_ROWS {
                    break;
                }
            }
            new.extend(self.put_batch(&part)?);
        }
        Ok(order.iter().map(|digest| new.remove(digest)).collect())
    }

    fn get(&self, wanted: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.get_batch(wanted)
    }

    fn has(&self, wanted: &[Digest]) -> Result<Vec<bool>, Error> {
        self.has_batch(wanted)
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.lengths(&[*digest])?.remove(digest))
    }

    fn list(&self, page: &ListQuery) -> Result<Vec<Entry>, Error> {
        self.list_page(page)
    }

    fn remove(&self, wanted: &[Digest]) -> Result<Vec<bool>, Error> {
        const REMOVE: &str = "DELETE FROM messages WHERE digest = ANY($1) RETURNING digest";
        let mut removed = Vec::with_capacity(wanted.len());
        let mut gone = BTreeSet::new();
        for part in wanted.chunks(STATEMENT_ROWS) {
            let keys = digest_keys(part);
            gone.extend(self.pool.run(Idempotent::No, async |session| {
                let remove = session.prepare_cached(REMOVE).await?;
                row_digests(&session.query(&remove, &[&keys]).await?)
            })?);
            removed.extend(part.iter().map(|digest| gone.remove(digest)));
        }
        Ok(removed)
    }

    fn verify(&self, from: Option<&Cursor>) -> Result<VerifyStep, Error> {
        verify::step(self, from)
    }

    fn repair(&self, damage: &[Damage]) -> Result<(), Error> {
        verify::repair(self, damage)
    }

    fn stats(&self) -> Result<Stats, Error> {
        self.cached_stats()
    }

    fn health(&self) -> Result<(), Error> {
        self.cached_health()
    }
}

fn digest_keys(digests: &[Digest]) -> Vec<&[u8]> {
    digests.iter().map(|digest| digest.as_bytes().as_slice()).collect()
}

fn row_digests(rows: &[Row]) -> Result<BTreeSet<Digest>, QueryError> {
    rows.iter().map(row_digest).collect()
}

/// The digest in the first column.
fn row_digest(row: &Row) -> Result<Digest, QueryError> {
    let bytes: &[u8] = row.try_get(0)?;
    let whole = bytes.try_into().map(Digest::from_bytes);
    whole.map_err(|_| QueryError::Store(Error::Unusable("the table `messages` holds what is no digest".to_owned())))
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
