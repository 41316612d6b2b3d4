//! Reads. Each statement returns a bounded number of bytes, so memory use is bounded. Messages are returned as stored;
//! the caller hashes them.

use std::collections::{BTreeSet, HashMap};

use super::options::{STATEMENT_BYTES, STATEMENT_ROWS};
use super::pool::{ConnectionPool, Idempotent};
use super::rows::{digest_keys, row_digest, row_digests, row_entry, unsigned};
use super::statements::{GET, HAS, LENGTHS, LIST_AFTER, LIST_FROM};
use crate::digest::Digest;
use crate::message_store::{Entry, Error, ListQuery};
#[cfg(doc)]
use crate::store::Backend;

/// Treatment of rows whose replication to a synchronous standby is not complete.
#[derive(Clone, Copy)]
pub(super) enum Replication {
    /// Rows are returned without waiting.
    Ignore,
    /// Rows are returned when they are replicated.
    Await,
}

/// Implements [`Backend::get`].
pub(super) fn get(
    pool: &ConnectionPool,
    replication: Replication,
    digests: &[Digest],
) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let mut digests = &digests[..digests.len().min(STATEMENT_ROWS)];
    if digests.len() > 1 {
        let lengths = lengths(pool, digests)?;
        let mut size = 0;
        let fitting = digests.iter().take_while(|digest| {
            size += lengths.get(digest).copied().unwrap_or(0);
            size <= STATEMENT_BYTES
        });
        digests = &digests[..fitting.count().max(1)];
    }
    let mut messages = fetch(pool, replication, digests)?;
    // A message is copied only if its digest may be requested again.
    let has_duplicates = digests.iter().collect::<BTreeSet<_>>().len() < digests.len();
    let take = |digest| if has_duplicates { messages.get(digest).cloned() } else { messages.remove(digest) };
    Ok(digests.iter().map(take).collect())
}

/// Implements [`Backend::has`].
pub(super) fn has(pool: &ConnectionPool, digests: &[Digest]) -> Result<Vec<bool>, Error> {
    let mut results = Vec::with_capacity(digests.len());
    for part in digests.chunks(STATEMENT_ROWS) {
        let keys = digest_keys(part);
        let stored = pool.run(Idempotent::Yes, async |session| row_digests(&session.read(&HAS, [&keys]).await?))?;
        results.extend(part.iter().map(|digest| stored.contains(digest)));
    }
    Ok(results)
}

/// Implements [`Backend::list`].
pub(super) fn list(pool: &ConnectionPool, page: &ListQuery) -> Result<Vec<Entry>, Error> {
    let (first, last) = page.prefix.range().into_inner();
    let after = page.after.filter(|after| *after >= first);
    let (statement, first) = after.map_or((LIST_FROM, first), |after| (LIST_AFTER, after));
    let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
    pool.run(Idempotent::Yes, async |session| {
        let (first, last) = (first.as_bytes().as_slice(), last.as_bytes().as_slice());
        session.read(&statement, [&first, &last, &limit]).await?.iter().map(row_entry).collect()
    })
}

/// Returns the lengths in bytes of those messages that are stored.
pub(super) fn lengths(pool: &ConnectionPool, digests: &[Digest]) -> Result<HashMap<Digest, u64>, Error> {
    let keys = digest_keys(digests);
    pool.run(Idempotent::Yes, async |session| {
        let rows = session.read(&LENGTHS, [&keys]).await?;
        rows.iter().map(|row| Ok((row_digest(row)?, unsigned(row.try_get(1)?)))).collect()
    })
}

/// Calls `visit` for each digest in order, with the stored bytes or `None`. Stops at the first error.
pub(super) fn for_each_row(
    pool: &ConnectionPool,
    replication: Replication,
    mut digests: &[Digest],
    mut visit: impl FnMut(Digest, Option<Vec<u8>>) -> Result<(), Error>,
) -> Result<(), Error> {
    while !digests.is_empty() {
        let messages = get(pool, replication, digests)?;
        let (fetched, remaining) = digests.split_at(messages.len());
        digests = remaining;
        fetched.iter().zip(messages).try_for_each(|(digest, stored)| visit(*digest, stored))?;
    }
    Ok(())
}

/// Returns the stored bytes of all `digests` at once. The caller makes sure that they fit in memory.
fn fetch(
    pool: &ConnectionPool,
    replication: Replication,
    digests: &[Digest],
) -> Result<HashMap<Digest, Vec<u8>>, Error> {
    let keys = digest_keys(digests);
    pool.run(Idempotent::Yes, async |session| {
        let rows = match replication {
            Replication::Ignore => session.read(&GET, [&keys]).await?,
            Replication::Await => session.write(&GET, [&keys]).await?,
        };
        rows.iter().map(|row| Ok((row_digest(row)?, row.try_get(1)?))).collect()
    })
}
