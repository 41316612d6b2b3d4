//! Reads. Each statement returns a bounded number of bytes, so memory use is bounded. Messages are returned as stored;
//! the caller hashes them.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use tokio_postgres::Row;

use super::pool::{Idempotent, QueryError};
use super::{Postgres, STATEMENT_BYTES, STATEMENT_ROWS, digest_keys, row_digest, row_digests, unsigned};
use crate::digest::Digest;
use crate::message_store::{Entry, Error, ListQuery};
#[cfg(doc)]
use crate::store::Backend;

impl Postgres {
    /// Implements [`Backend::get`].
    pub(super) fn get_batch(&self, digests: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut digests = &digests[..digests.len().min(STATEMENT_ROWS)];
        if digests.len() > 1 {
            let lengths = self.lengths(digests)?;
            let mut size = 0;
            let fitting = digests.iter().take_while(|digest| {
                size += lengths.get(digest).copied().unwrap_or(0);
                size <= STATEMENT_BYTES
            });
            digests = &digests[..fitting.count().max(1)];
        }
        let mut messages = self.fetch(digests)?;
        // A message is copied only if its digest may be requested again.
        let has_duplicates = digests.iter().collect::<BTreeSet<_>>().len() < digests.len();
        let take = |digest| if has_duplicates { messages.get(digest).cloned() } else { messages.remove(digest) };
        Ok(digests.iter().map(take).collect())
    }

    /// Implements [`Backend::has`].
    pub(super) fn has_batch(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        const HAS: &str = "SELECT digest FROM messages WHERE digest = ANY($1)";
        let mut results = Vec::with_capacity(digests.len());
        for part in digests.chunks(STATEMENT_ROWS) {
            let keys = digest_keys(part);
            let stored = self.pool.run(Idempotent::Yes, async |session| {
                let statement = session.prepare_cached(HAS).await?;
                row_digests(&session.query(&statement, &[&keys]).await?)
            })?;
            results.extend(part.iter().map(|digest| stored.contains(digest)));
        }
        Ok(results)
    }

    /// Implements [`Backend::list`].
    pub(super) fn list_page(&self, page: &ListQuery) -> Result<Vec<Entry>, Error> {
        // One condition per bound, so that PostgreSQL starts the index scan at the first entry of the page.
        const LIST_FROM: &str = "SELECT digest, octet_length(message)::bigint, stored_at FROM messages \
             WHERE digest >= $1 AND digest <= $2 ORDER BY digest LIMIT $3";
        const LIST_AFTER: &str = "SELECT digest, octet_length(message)::bigint, stored_at FROM messages \
             WHERE digest > $1 AND digest <= $2 ORDER BY digest LIMIT $3";
        let (first, last) = page.prefix.range().into_inner();
        let after = page.after.filter(|after| *after >= first);
        let (sql, first) = after.map_or((LIST_FROM, first), |after| (LIST_AFTER, after));
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        self.pool.run(Idempotent::Yes, async |session| {
            let statement = session.prepare_cached(sql).await?;
            let (first, last) = (first.as_bytes().as_slice(), last.as_bytes().as_slice());
            session.query(&statement, &[&first, &last, &limit]).await?.iter().map(entry).collect()
        })
    }

    /// Returns the lengths in bytes of those messages that are stored.
    pub(super) fn lengths(&self, digests: &[Digest]) -> Result<HashMap<Digest, u64>, Error> {
        const LENGTHS: &str = "SELECT digest, octet_length(message)::bigint FROM messages WHERE digest = ANY($1)";
        let keys = digest_keys(digests);
        self.pool.run(Idempotent::Yes, async |session| {
            let statement = session.prepare_cached(LENGTHS).await?;
            let rows = session.query(&statement, &[&keys]).await?;
            rows.iter().map(|row| Ok((row_digest(row)?, unsigned(row.try_get(1)?)))).collect()
        })
    }

    /// Calls `visit` for each digest in order, with the stored bytes or `None`. Stops at the first error.
    pub(super) fn for_each_row(
        &self,
        mut digests: &[Digest],
        mut visit: impl FnMut(Digest, Option<Vec<u8>>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        while !digests.is_empty() {
            let messages = self.get_batch(digests)?;
            let (fetched, remaining) = digests.split_at(messages.len());
            digests = remaining;
            fetched.iter().zip(messages).try_for_each(|(digest, stored)| visit(*digest, stored))?;
        }
        Ok(())
    }

    /// Returns the stored bytes of all `digests` at once. The caller must ensure that they fit in memory.
    fn fetch(&self, digests: &[Digest]) -> Result<HashMap<Digest, Vec<u8>>, Error> {
        const GET: &str = "SELECT digest, message FROM messages WHERE digest = ANY($1)";
        let keys = digest_keys(digests);
        self.pool.run(Idempotent::Yes, async |session| {
            let statement = session.prepare_cached(GET).await?;
            let rows = session.query(&statement, &[&keys]).await?;
            rows.iter().map(|row| Ok((row_digest(row)?, row.try_get(1)?))).collect()
        })
    }
}

fn entry(row: &Row) -> Result<Entry, QueryError> {
    let stored_at: SystemTime = row.try_get(2)?;
    let seconds = stored_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |duration| duration.as_secs());
    let stored_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Ok(Entry { digest: row_digest(row)?, length: unsigned(row.try_get(1)?), stored_at })
}
