//! What only looks: some at a time, so that memory stays flat, and each message as it is stored, right or wrong.

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
    /// See [`Backend::get`].
    pub(super) fn get_batch(&self, wanted: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut wanted = &wanted[..wanted.len().min(STATEMENT_ROWS)];
        if wanted.len() > 1 {
            let lengths = self.lengths(wanted)?;
            let mut size = 0;
            let fits = wanted.iter().take_while(|digest| {
                size += lengths.get(digest).copied().unwrap_or(0);
                size <= STATEMENT_BYTES
            });
            wanted = &wanted[..fits.count().max(1)];
        }
        let mut found = self.fetch(wanted)?;
        // The same digest may be asked for twice; nearly always it is not.
        let twice = wanted.iter().collect::<BTreeSet<_>>().len() < wanted.len();
        Ok(wanted.iter().map(|digest| if twice { found.get(digest).cloned() } else { found.remove(digest) }).collect())
    }

    /// See [`Backend::has`].
    pub(super) fn has_batch(&self, wanted: &[Digest]) -> Result<Vec<bool>, Error> {
        const HAS: &str = "SELECT digest FROM messages WHERE digest = ANY($1)";
        let mut has = Vec::with_capacity(wanted.len());
        for part in wanted.chunks(STATEMENT_ROWS) {
            let keys = digest_keys(part);
            let there = self.pool.run(Idempotent::Yes, async |session| {
                let has = session.prepare_cached(HAS).await?;
                row_digests(&session.query(&has, &[&keys]).await?)
            })?;
            has.extend(part.iter().map(|digest| there.contains(digest)));
        }
        Ok(has)
    }

    /// See [`Backend::list`].
    pub(super) fn list_page(&self, page: &ListQuery) -> Result<Vec<Entry>, Error> {
        // Two, so that the index is entered at the right place.
        const LIST_FROM: &str = "SELECT digest, octet_length(message)::bigint, stored_at FROM messages \
             WHERE digest >= $1 AND digest <= $2 ORDER BY digest LIMIT $3";
        const LIST_AFTER: &str = "SELECT digest, octet_length(message)::bigint, stored_at FROM messages \
             WHERE digest > $1 AND digest <= $2 ORDER BY digest LIMIT $3";
        let (first, last) = page.prefix.range().into_inner();
        let after = page.after.filter(|after| *after >= first);
        let (text, first) = after.map_or((LIST_FROM, first), |after| (LIST_AFTER, after));
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        self.pool.run(Idempotent::Yes, async |session| {
            let statement = session.prepare_cached(text).await?;
            let (first, last) = (first.as_bytes().as_slice(), last.as_bytes().as_slice());
            session.query(&statement, &[&first, &last, &limit]).await?.iter().map(entry).collect()
        })
    }

    /// How long each of the messages is that are there.
    pub(super) fn lengths(&self, wanted: &[Digest]) -> Result<HashMap<Digest, u64>, Error> {
        const LENGTHS: &str = "SELECT digest, octet_length(message)::bigint FROM messages WHERE digest = ANY($1)";
        let keys = digest_keys(wanted);
        self.pool.run(Idempotent::Yes, async |session| {
            let lengths = session.prepare_cached(LENGTHS).await?;
            let rows = session.query(&lengths, &[&keys]).await?;
            rows.iter().map(|row| Ok((row_digest(row)?, unsigned(row.try_get(1)?)))).collect()
        })
    }

    /// Hands over what is stored under each of the digests, in order.
    pub(super) fn for_each_row(
        &self,
        mut wanted: &[Digest],
        mut look: impl FnMut(Digest, Option<Vec<u8>>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        while !wanted.is_empty() {
            let got = self.get_batch(wanted)?;
            let (these, others) = wanted.split_at(got.len());
            wanted = others;
            these.iter().zip(got).try_for_each(|(digest, stored)| look(*digest, stored))?;
        }
        Ok(())
    }

    /// The messages of all these, which fit in memory.
    fn fetch(&self, wanted: &[Digest]) -> Result<HashMap<Digest, Vec<u8>>, Error> {
        const GET: &str = "SELECT digest, message FROM messages WHERE digest = ANY($1)";
        let keys = digest_keys(wanted);
        self.pool.run(Idempotent::Yes, async |session| {
            let get = session.prepare_cached(GET).await?;
            let rows = session.query(&get, &[&keys]).await?;
            rows.iter().map(|row| Ok((row_digest(row)?, row.try_get(1)?))).collect()
        })
    }
}

fn entry(row: &Row) -> Result<Entry, QueryError> {
    let stored_at: SystemTime = row.try_get(2)?;
    let seconds = stored_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let stored_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Ok(Entry { digest: row_digest(row)?, length: unsigned(row.try_get(1)?), stored_at })
}
