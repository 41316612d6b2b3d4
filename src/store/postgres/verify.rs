//! Verification in steps, in the order of the digests, and repair: corrupt rows are moved to `messages_quarantine`.

use deadpool_postgres::Object;
use serde::{Deserialize, Serialize};

use super::Postgres;
use super::pool::{Idempotent, QueryError};
use crate::digest::{Digest, Prefix};
use crate::message_store::{Cursor, Damage, Error, ListQuery, VerifyStep};
use crate::store::{Backend, StoreEvent};

/// Maximum number of bytes per step. A longer message gets a step of its own.
const STEP_BYTES: u64 = 32 << 20;
/// Maximum number of messages per step.
const STEP_ENTRIES: usize = 1 << 14;

/// Content of a [`Cursor`].
#[derive(Serialize, Deserialize)]
struct VerifyProgress {
    after: Digest,
    done: u64,
    total: u64,
    damaged: u64,
}

/// Implements [`Backend::verify`].
pub(super) fn step(postgres: &Postgres, from: Option<&Cursor>) -> Result<VerifyStep, Error> {
    let invalid =
        |_| Error::Unusable("cannot continue the verification: invalid cursor; start from the beginning".to_owned());
    let progress = from.map(|cursor| serde_json::from_str::<VerifyProgress>(&cursor.0)).transpose().map_err(invalid)?;
    let after = progress.as_ref().map(|progress| progress.after);
    let (done, total, damaged) = match &progress {
        Some(progress) => (progress.done, progress.total, progress.damaged),
        None => (0, postgres.stats()?.bytes, 0),
    };
    let mut entries = postgres.list(&ListQuery { prefix: Prefix::ALL, after, limit: STEP_ENTRIES })?;
    let mut size = 0;
    let fitting = entries.iter().take_while(|entry| {
        size += entry.length;
        size <= STEP_BYTES
    });
    let count = fitting.count().max(1);
    entries.truncate(count);
    let digests: Vec<_> = entries.iter().map(|entry| entry.digest).collect();
    let mut step = VerifyStep { next: None, messages: 0, bytes: 0, done, total, damage: Vec::new() };
    postgres.for_each_row(&digests, |digest, stored| {
        match stored {
            Some(bytes) if digest.matches(&bytes) => {
                step.messages += 1;
                step.bytes += bytes.len() as u64;
            }
            Some(_) => step.damage.push(Damage::Corrupt { digest }),
            // The row was removed after it was listed.
            None => {}
        }
        Ok(())
    })?;
    step.done += entries.iter().map(|entry| entry.length).sum::<u64>();
    let damaged = damaged + step.damage.len() as u64;
    match digests.last() {
        Some(last) => {
            step.total = step.total.max(step.done);
            let progress = VerifyProgress { after: *last, done: step.done, total: step.total, damaged };
            step.next = Some(Cursor(serde_json::to_string(&progress).expect("the progress is plain data")));
        }
        None => {
            step.done = step.total;
            record_verification(postgres, damaged);
        }
    }
    Ok(step)
}

/// Records a complete verification for `stats`. An error is ignored, so that a read-only database can be verified.
fn record_verification(postgres: &Postgres, damaged: u64) {
    let damaged = i64::try_from(damaged).unwrap_or(i64::MAX);
    let _ = postgres.pool.run(Idempotent::No, async |session| {
        Ok(session.execute("INSERT INTO messages_verified (damaged) VALUES ($1)", &[&damaged]).await?)
    });
}

/// Implements [`Backend::repair`].
pub(super) fn repair(postgres: &Postgres, damage: &[Damage]) -> Result<(), Error> {
    for damage in damage {
        let Damage::Corrupt { digest } = *damage else { continue };
        let is_moved = postgres.pool.run(Idempotent::Yes, async |session| quarantine_message(session, digest).await)?;
        if is_moved {
            let notice = format!("corrupt message {digest} moved to the table messages_quarantine");
            (postgres.events)(StoreEvent::Message(notice));
        }
    }
    Ok(())
}

/// Moves the row of `digest` to the quarantine if it is still corrupt. Returns whether it was moved.
async fn quarantine_message(session: &Object, digest: Digest) -> Result<bool, QueryError> {
    const SELECT_FOR_UPDATE: &str = "SELECT message FROM messages WHERE digest = $1 FOR UPDATE";
    const QUARANTINE: &str = "INSERT INTO messages_quarantine (digest, message, stored_at) \
         SELECT digest, message, stored_at FROM messages WHERE digest = $1";
    const DELETE: &str = "DELETE FROM messages WHERE digest = $1";
    let key = digest.as_bytes().as_slice();
    session.batch_execute("BEGIN").await?;
    let row = session.query_opt(SELECT_FOR_UPDATE, &[&key]).await?;
    let stored = row.map(|row| row.try_get::<_, Vec<u8>>(0)).transpose()?;
    let is_corrupt = stored.is_some_and(|bytes| !digest.matches(&bytes));
    if is_corrupt {
        session.execute(QUARANTINE, &[&key]).await?;
        session.execute(DELETE, &[&key]).await?;
    }
    session.batch_execute("COMMIT").await?;
    Ok(is_corrupt)
}
