//! What is asked often, and answered from memory where it would be dear: the counts and the health.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::SimpleQueryMessage;

use super::session::Again;
use super::{Postgres, unsigned};
use crate::messages::{Error, Stats};

/// For how long an answer about the health holds.
const FRESH: Duration = Duration::from_secs(1);
/// A count that takes longer than this is not made anew each time it is asked for.
const QUICK: Duration = Duration::from_secs(1);
/// How much longer than it took to make such a count holds.
const KEEP: u32 = 20;

/// The last answers.
#[derive(Default)]
pub(super) struct Answers {
    health: Mutex<Option<(Instant, Result<(), Error>)>>,
    /// When it was counted, how long that took, and what came of it.
    counted: Mutex<Option<(Instant, Duration, Stats)>>,
}

impl Postgres {
    /// See [`crate::store::Backend::stats`].
    pub(super) fn counts(&self) -> Result<Stats, Error> {
        let mut counted = self.answers.counted.lock().expect("counting does not panic");
        if let Some((when, took, stats)) = &*counted
            && *took > QUICK
            && when.elapsed() < *took * KEEP
        {
            return Ok(stats.clone());
        }
        let began = Instant::now();
        let stats = self.count()?;
        *counted = Some((Instant::now(), began.elapsed(), stats.clone()));
        Ok(stats)
    }

    /// See [`crate::store::Backend::health`].
    pub(super) fn how_it_is(&self) -> Result<(), Error> {
        let mut health = self.answers.health.lock().expect("asking does not panic");
        if let Some((when, answer)) = &*health
            && (when.elapsed() < FRESH || self.sessions.is_busy())
        {
            return answer.clone();
        }
        let answer = self.ask_health();
        *health = Some((Instant::now(), answer.clone()));
        answer
    }

    fn count(&self) -> Result<Stats, Error> {
        // A table without partitions is not in its own tree.
        const DISK: &str = "SELECT (pg_total_relation_size('messages') + coalesce(sum(pg_total_relation_size(relid)) \
             FILTER (WHERE relid <> 'messages'::regclass), 0))::bigint FROM pg_partition_tree('messages')";
        const LAST: &str = "SELECT verified_at, damaged FROM messages_verified ORDER BY verified_at DESC LIMIT 1";
        // As one message, so that what holds for a statement does not hold for this one. It may take its time, but it
        // does not wait for ever for who has locked the table.
        let count = format!(
            "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {}; SELECT count(*), \
             coalesce(sum(octet_length(message)), 0), floor(extract(epoch FROM max(stored_at))) FROM messages; COMMIT",
            self.sessions.limit().as_millis()
        );
        self.sessions.run_within(None, Again::Yes, async |session| {
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
            let last = session.query_opt(LAST, &[]).await?;
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

    fn ask_health(&self) -> Result<(), Error> {
        let read_only: String = self.sessions.run(Again::Yes, async |session| {
            Ok(session.query_one("SHOW transaction_read_only", &[]).await?.try_get(0)?)
        })?;
        match read_only == "on" {
            true => Err(Error::ReadOnly(self.sessions.name().to_owned())),
            false => Ok(()),
        }
    }
}
