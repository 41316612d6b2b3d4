//! Statistics and health. Both are requested often, so results are cached: a health check for one second, and a slow
//! count for a multiple of its duration.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::SimpleQueryMessage;

use super::pool::Idempotent;
use super::{Postgres, unsigned};
use crate::message_store::{Error, Stats};

/// Time for which the result of a health check is reused.
const HEALTH_TTL: Duration = Duration::from_secs(1);
/// Minimum duration of a count whose result is reused.
const SLOW_COUNT: Duration = Duration::from_secs(1);
/// Time for which the result of a slow count is reused, as a multiple of the duration of the count.
const TTL_FACTOR: u32 = 20;

/// Latest results of the health check and of the count.
#[derive(Default)]
pub(super) struct StatsCache {
    /// Time and result of the check.
    health: Mutex<Option<(Instant, Result<(), Error>)>>,
    /// Time, duration and result of the count.
    stats: Mutex<Option<(Instant, Duration, Stats)>>,
}

impl Postgres {
    /// Implements [`crate::store::Backend::stats`]. A concurrent caller waits for the count that is running.
    pub(super) fn cached_stats(&self) -> Result<Stats, Error> {
        let mut cached = self.stats_cache.stats.lock().expect("a count does not panic");
        if let Some((counted_at, duration, stats)) = &*cached
            && *duration > SLOW_COUNT
            && counted_at.elapsed() < *duration * TTL_FACTOR
        {
            return Ok(stats.clone());
        }
        let started = Instant::now();
        let stats = self.query_stats()?;
        *cached = Some((Instant::now(), started.elapsed(), stats.clone()));
        Ok(stats)
    }

    /// Implements [`crate::store::Backend::health`]. While all connections are in use, the previous result is reused.
    pub(super) fn cached_health(&self) -> Result<(), Error> {
        let mut cached = self.stats_cache.health.lock().expect("a health check does not panic");
        if let Some((checked_at, health)) = &*cached
            && (checked_at.elapsed() < HEALTH_TTL || self.pool.is_exhausted())
        {
            return health.clone();
        }
        let health = self.query_health();
        *cached = Some((Instant::now(), health.clone()));
        health
    }

    fn query_stats(&self) -> Result<Stats, Error> {
        // The partition tree of a table without partitions may be empty, so its own size is added.
        const DISK: &str = "SELECT (pg_total_relation_size('messages') + coalesce(sum(pg_total_relation_size(relid)) \
             FILTER (WHERE relid <> 'messages'::regclass), 0))::bigint FROM pg_partition_tree('messages')";
        const LAST_VERIFICATION: &str =
            "SELECT verified_at, damaged FROM messages_verified ORDER BY verified_at DESC LIMIT 1";
        // The count has no statement timeout, since it reads the whole table, but does not wait for a lock forever.
        // Both limits must precede the count, so the statements are sent as one simple query.
        let count = format!(
            "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {}; SELECT count(*), \
             coalesce(sum(octet_length(message)), 0), floor(extract(epoch FROM max(stored_at))) FROM messages; COMMIT",
            self.pool.statement_timeout().as_millis()
        );
        self.pool.run_with_timeout(None, Idempotent::Yes, async |session| {
            let results = session.simple_query(&count).await?;
            let row = results.iter().find_map(|result| match result {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            let number = |column| row.and_then(|row| row.get(column)).and_then(|text: &str| text.parse::<u64>().ok());
            let disk = match session.query_one(DISK, &[]).await {
                Ok(row) => row.try_get::<_, i64>(0)?,
                // Other systems with the PostgreSQL protocol may not have these functions.
                Err(error) if error.code().is_some() => 0,
                Err(error) => return Err(error.into()),
            };
            let verification = session.query_opt(LAST_VERIFICATION, &[]).await?;
            let damaged = verification.as_ref().map(|row| row.try_get::<_, i64>(1)).transpose()?.unwrap_or(0);
            Ok(Stats {
                messages: number(0).unwrap_or(0),
                bytes: number(1).unwrap_or(0),
                disk: unsigned(disk),
                dead: 0,
                newest: number(2).map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
                verified: verification.as_ref().map(|row| row.try_get(0)).transpose()?,
                damaged: unsigned(damaged),
                lost: 0,
            })
        })
    }

    fn query_health(&self) -> Result<(), Error> {
        let read_only: String = self.pool.run(Idempotent::Yes, async |session| {
            Ok(session.query_one("SHOW transaction_read_only", &[]).await?.try_get(0)?)
        })?;
        match read_only == "on" {
            true => Err(Error::ReadOnly(self.pool.name().to_owned())),
            false => Ok(()),
        }
    }
}
