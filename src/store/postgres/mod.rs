//! The PostgreSQL backend. It uses plain SQL, so that other databases with the PostgreSQL wire protocol can work.
//! The database is not trusted: a row that exists is read back and compared before a put is acknowledged.
//! See docs/design.md, "The PostgreSQL backend".

mod error;
mod health;
mod options;
mod pool;
mod put;
mod read;
mod rows;
mod schema;
mod session;
mod statements;
mod stats;
mod tls;
mod url;
mod verify;

use std::collections::BTreeSet;
use std::fmt;

use crate::digest::Digest;
use crate::message_store::{Cursor, Damage, Entry, Error, ListQuery, Stats, VerifyStep};
use crate::store::{Backend, EventSink};
use options::STATEMENT_ROWS;
pub use options::{MAX_MESSAGE_BYTES, Options};
use pool::{ConnectionPool, Idempotent};
use read::Replication;
use rows::{digest_keys, row_digests};

/// A PostgreSQL database that stores messages.
pub struct Postgres {
    pool: ConnectionPool,
    events: EventSink,
    stats: stats::StatsCache,
    health: health::HealthCache,
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
        schema::ensure(&pool)?;
        schema::warn_unsafe_settings(&pool, &options.events)?;
        let events = options.events.clone();
        Ok(Self { pool, events, stats: stats::StatsCache::default(), health: health::HealthCache::default() })
    }
}

impl Backend for Postgres {
    fn put(&self, batch: Vec<(Digest, Vec<u8>)>) -> Result<Vec<bool>, Error> {
        put::put(&self.pool, batch)
    }

    fn get(&self, digests: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        read::get(&self.pool, Replication::Ignore, digests)
    }

    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        read::has(&self.pool, digests)
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(read::lengths(&self.pool, &[*digest])?.remove(digest))
    }

    fn list(&self, page: &ListQuery) -> Result<Vec<Entry>, Error> {
        read::list(&self.pool, page)
    }

    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let mut results = Vec::with_capacity(digests.len());
        let mut removed = BTreeSet::new();
        for part in digests.chunks(STATEMENT_ROWS) {
            let keys = digest_keys(part);
            removed.extend(self.pool.run(Idempotent::No, async |session| {
                row_digests(&session.write(&statements::REMOVE, [&keys]).await?)
            })?);
            results.extend(part.iter().map(|digest| removed.remove(digest)));
        }
        Ok(results)
    }

    fn verify(&self, from: Option<&Cursor>) -> Result<VerifyStep, Error> {
        verify::step(&self.pool, &self.stats, from)
    }

    fn repair(&self, damage: &[Damage]) -> Result<(), Error> {
        verify::repair(&self.pool, damage, &self.events)
    }

    fn stats(&self) -> Result<Stats, Error> {
        self.stats.get(&self.pool)
    }

    fn health(&self) -> Result<(), Error> {
        self.health.get(&self.pool)
    }
}
