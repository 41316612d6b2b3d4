//! The PostgreSQL backend. It uses plain SQL, so that other databases with the PostgreSQL wire protocol can work.
//! The database is not trusted: a row that exists is read back and compared before a put is acknowledged.
//! See docs/design.md, "The PostgreSQL backend".

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

/// Target size in bytes of the messages in one statement. A single longer message is allowed.
const STATEMENT_BYTES: u64 = 8 << 20;
/// Maximum number of messages in one statement.
const STATEMENT_ROWS: usize = 1 << 12;
/// Maximum number of attempts to create the tables, or to put a message that other clients keep removing.
const MAX_ATTEMPTS: usize = 8;
/// Maximum length of a message in bytes. PostgreSQL limits a row and a protocol message to 1 GiB.
pub const MAX_MESSAGE_BYTES: u64 = 512 << 20;

/// Options of a PostgreSQL backend.
pub struct Options {
    /// URL of the database: `postgres://…`.
    pub url: String,
    /// Maximum number of connections.
    pub pool_size: usize,
    /// Maximum time to establish a connection, or to wait for a free one.
    pub connect_timeout: Duration,
    /// Maximum time for one statement; zero disables the limit.
    pub statement_timeout: Duration,
    /// Maximum time for which connecting to an unavailable database is retried.
    pub ready_timeout: Duration,
    /// Receiver of warnings and repair reports.
    pub events: EventSink,
}

/// A PostgreSQL database that stores messages.
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
    /// Connects to the database and creates the tables if they do not exist.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let pool = ConnectionPool::new(options)?;
        let postgres = Self { pool, events: options.events.clone(), stats_cache: stats::StatsCache::default() };
        postgres.ensure_schema()?;
        postgres.warn_unsafe_settings()?;
        Ok(postgres)
    }
}

impl Backend for Postgres {
    fn put(&self, batch: Vec<(Digest, Vec<u8>)>) -> Result<Vec<bool>, Error> {
        let digests: Vec<_> = batch.iter().map(|(digest, _)| *digest).collect();
        let mut pending: BTreeMap<_, _> = batch.into_iter().collect();
        let mut new = BTreeSet::new();
        while !pending.is_empty() {
            let (mut part, mut size) = (BTreeMap::new(), 0);
            while let Some((digest, message)) = pending.pop_first() {
                size += message.len() as u64;
                part.insert(digest, message);
                if size >= STATEMENT_BYTES || part.len() == STATEMENT_ROWS {
                    break;
                }
            }
            new.extend(self.put_batch(&part)?);
        }
        Ok(digests.iter().map(|digest| new.remove(digest)).collect())
    }

    fn get(&self, digests: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.get_batch(digests)
    }

    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        self.has_batch(digests)
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.lengths(&[*digest])?.remove(digest))
    }

    fn list(&self, page: &ListQuery) -> Result<Vec<Entry>, Error> {
        self.list_page(page)
    }

    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        const REMOVE: &str = "DELETE FROM messages WHERE digest = ANY($1) RETURNING digest";
        let mut results = Vec::with_capacity(digests.len());
        let mut removed = BTreeSet::new();
        for part in digests.chunks(STATEMENT_ROWS) {
            let keys = digest_keys(part);
            removed.extend(self.pool.run(Idempotent::No, async |session| {
                let statement = session.prepare_cached(REMOVE).await?;
                row_digests(&session.query(&statement, &[&keys]).await?)
            })?);
            results.extend(part.iter().map(|digest| removed.remove(digest)));
        }
        Ok(results)
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

/// Returns the digest in the first column.
fn row_digest(row: &Row) -> Result<Digest, QueryError> {
    let bytes: &[u8] = row.try_get(0)?;
    let digest = bytes.try_into().map(Digest::from_bytes);
    digest.map_err(|_| {
        QueryError::Store(Error::Unusable("invalid digest in the table `messages`: not 32 bytes".to_owned()))
    })
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
