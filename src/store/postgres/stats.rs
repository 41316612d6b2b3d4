//! Statistics. A slow count is cached for a multiple of its duration, since statistics are requested often.

use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::error::QueryError;
use super::pool::{ConnectionPool, Idempotent};
use super::rows::unsigned;
use super::session::Session;
use super::statements::{COUNT, DISK, IS_ACTIVE, LAST_VERIFICATION, begin_count};
use crate::message_store::{Error, Stats};

/// Minimum duration of a count whose result is reused.
const SLOW_COUNT: Duration = Duration::from_secs(1);
/// Time for which the result of a slow count is reused, as a multiple of the duration of the count.
const TTL_FACTOR: u32 = 20;
/// Maximum time between two checks that the database still counts.
const MAX_WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// Latest count.
#[derive(Default)]
pub(super) struct StatsCache {
    /// Time, duration and result of the count.
    latest: Mutex<Option<(Instant, Duration, Stats)>>,
}

impl StatsCache {
    /// Implements [`crate::store::Backend::stats`]. A concurrent caller waits for the count that is running.
    pub(super) fn get(&self, pool: &ConnectionPool) -> Result<Stats, Error> {
        let mut latest = self.latest.lock();
        if let Some((counted_at, duration, stats)) = &*latest
            && *duration > SLOW_COUNT
            && counted_at.elapsed() < *duration * TTL_FACTOR
        {
            return Ok(stats.clone());
        }
        let started = Instant::now();
        let stats = query(pool)?;
        *latest = Some((Instant::now(), started.elapsed(), stats.clone()));
        Ok(stats)
    }
}

fn query(pool: &ConnectionPool) -> Result<Stats, Error> {
    pool.run_without_limit(Idempotent::Yes, async |session| {
        let results = count(pool, session).await?;
        let row = first_row(&results);
        let number = |column| row.and_then(|row| row.get(column)).and_then(|text: &str| text.parse::<u64>().ok());
        let disk = match pool.limit(session, session.read(&DISK, [])).await {
            Ok(rows) => rows[0].try_get::<_, i64>(0)?,
            // Other systems with the PostgreSQL protocol may not have these functions.
            Err(error) if error.code().is_some() => 0,
            Err(error) => return Err(error),
        };
        let verifications = pool.limit(session, session.read(&LAST_VERIFICATION, [])).await?;
        let verification = verifications.first();
        let damaged = verification.map(|row| row.try_get::<_, i64>(1)).transpose()?.unwrap_or(0);
        Ok(Stats {
            messages: number(0).unwrap_or(0),
            bytes: number(1).unwrap_or(0),
            disk: unsigned(disk),
            dead: 0,
            newest: number(2).map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
            verified: verification.map(|row| row.try_get(0)).transpose()?,
            damaged: unsigned(damaged),
            lost: 0,
        })
    })
}

/// Counts the rows. The count has no time limit, but it is given up if the database does not execute it any more.
async fn count(pool: &ConnectionPool, session: &Session) -> Result<Vec<SimpleQueryMessage>, QueryError> {
    let begin = begin_count(pool.statement_timeout().unwrap_or_default());
    let results = pool.limit(session, session.simple(&begin)).await?;
    let backend = first_row(&results).and_then(|row| row.get(0)).and_then(|pid| pid.parse::<i32>().ok());
    let interval = pool.statement_timeout().map_or(MAX_WATCH_INTERVAL, |limit| limit.min(MAX_WATCH_INTERVAL));
    let mut count = pin!(session.simple(COUNT));
    loop {
        match timeout(interval, &mut count).await {
            Ok(outcome) => return outcome,
            Err(_) if is_active(pool, backend).await? => {}
            Err(_) => return Err(QueryError::TimedOut),
        }
    }
}

/// Returns whether the database executes a statement for the backend. Asks over a second connection.
async fn is_active(pool: &ConnectionPool, backend: Option<i32>) -> Result<bool, QueryError> {
    let asked = async {
        let session = pool.connect().await?;
        pool.limit(&session, session.read(&IS_ACTIVE, [&backend])).await
    };
    match asked.await {
        Ok(rows) => Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(false)),
        // All connections may be in use, and other systems may not have this view.
        Err(error) if error.code().is_some() => Ok(true),
        Err(error) => Err(error),
    }
}

fn first_row(results: &[SimpleQueryMessage]) -> Option<&SimpleQueryRow> {
    results.iter().find_map(|result| match result {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}
