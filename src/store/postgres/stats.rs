//! What is asked often, and answered from memory where it would be dear: the counts and the health.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::SimpleQueryMessage;

use super::pool::Idempotent;
use super::{Postgres, unsigned};
use crate::message_store::{Error, Stats};

/// For how long an answer about the health holds.
const HEALTH_TTL: Duration = Duration::from_secs(1);
/// A count that takes longer than this is not made anew each time it is asked for.
const SLOW_COUNT: Duration = Duration::from_secs(1);
/// How much longer than it took to make such a count holds.
const TTL_FACTOR: u32 = 20;

/// The last answers.
#[derive(Default)]
pub(super) struct StatsCache {
    health: Mutex<Option<(Instant, Result<(), Error>)>>,
    /// When it was counted, how long that took, and what came of it.
    stats: Mutex<Option<(Instant, Duration, Stats)>>,
}

impl Postgres {
    /// See [`crate::store::Backend::stats`].
    pub(super) fn cached_stats(&self) -> Result<Stats, Error> {
        let mut counted = self.stats_cache.stats.lock().expect("counting does not panic");
        if let Some((when, took, stats)) = &*counted
            && *took > SLOW_COUNT
            && when.elapsed() < *took * TTL_FACTOR
        {
            return Ok(stats.clone());
        }
        let began = Instant::now();
        let stats = self.query_stats()?;
        *counted = Some((Instant::now(), began.elapsed(), stats.clone()));
        Ok(stats)
    }

    /// See [`crate::store::Backend::health`].
    pub(super) fn cached_health(&self) -> Result<(), Error> {
        let mut health = self.stats_cache.health.lock().expect("asking does not panic");
        if let Some((when, answer)) = &*health
            && (when.elapsed() < HEALTH_TTL || self.pool.is_exhausted())
        {
            return answer.clone();
        }
        let answer = self.query_health();
        *health = Some((Instant::now(), answer.clone()));
        answer
    }

    fn query_stats(&self) -> Result<Stats, Error> {
        // A table without partitions is not in its own tree.
        const DISK: &str = "SELECT (pg_total_relation_size('messages') + coalesce(sum(pg_total_relation_size(relid)) \
             FILTER (WHERE relid <> 'messages'::regclass), 0))::bigint FROM pg_partition_tree('messages')";
        const LAST_VERIFICATION: &str =
            "SELECT verified_at, damaged FROM messages_verified ORDER BY verified_at DESC LIMIT 1";
        // As one message, so that what holds for a statement does not hold for this one. It may take its time, but it
        // does not wait for ever for who has locked the table.
        let count = format!(
            "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {}; SELECT count(*), \
             coalesce(sum(octet_length(message)), 0), floor(extract(epoch FROM max(stored_at))) FROM messages; COMMIT",
            self.pool.statement_timeout().as_millis()
        );
        self.pool.run_with_timeout(None, Idempotent::Yes, async |session| {
            let said = session.simple_query(&count).await?;
            let row = said.iter().find_map(|one| match one {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            let figure = |at| row.and_then(|row| row.get(at)).and_then(|text: &str| text.parse::<u64>().ok());
            let disk = match session.query_one(DISK, &[]).await {
                Ok(row) => row.try_get::<_, i64>(0)?,
                // What is no PostgreSQL may not know.
                Err(why) if why.code().is_some() => 0,
                Err(why) => return Err(why.into()),
            };
            let last = session.query_opt(LAST_VERIFICATION, &[]).await?;
            let damaged = last.as_ref().map(|row| row.try_get::<_, i64>(1)).transpose()?.unwrap_or(0);
            Ok(Stats {
                messages: figure(0).unwrap_or(0),
                bytes: figure(1).unwrap_or(0),
                disk: unsigned(disk),
                dead: 0,
                newest: figure(2).map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
                verified: last.as_ref().map(|row| row.try_get(0)).transpose()?,
                damaged: unsigned(damaged),
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
