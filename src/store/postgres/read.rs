//! What only looks: some at a time, so that memory stays flat, and each message as it is stored, right or wrong.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use tokio_postgres::Row;

use super::session::{Again, Failed};
use super::{COUNT, PART, Postgres, bytes, digest, digests, unsigned};
use crate::digest::Digest;
use crate::messages::{Entry, Error, Page};
#[cfg(doc)]
use crate::store::Backend;

impl Postgres {
    /// See [`Backend::get`].
    pub(super) fn got(&self, wanted: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut wanted = &wanted[..wanted.len().min(COUNT)];
        if wanted.len() > 1 {
            let lengths = self.lengths(wanted)?;
            let mut size = 0;
            let fits = wanted.iter().take_while(|digest| {
                size += lengths.get(digest).copied().unwrap_or(0);
                size <= PART
            });
            wanted = &wanted[..fits.count().max(1)];
        }
        let mut found = self.fetch(wanted)?;
        // The same digest may be asked for twice; nearly always it is not.
        let twice = wanted.iter().collect::<BTreeSet<_>>().len() < wanted.len();
        Ok(wanted.iter().map(|digest| if twice { found.get(digest).cloned() } else { found.remove(digest) }).collect())
    }

    /// See [`Backend::has`].
    pub(super) fn there(&self, wanted: &[Digest]) -> Result<Vec<bool>, Error> {
        const HAS: &str = "SELECT digest FROM messages WHERE digest = ANY($1)";
        let mut has = Vec::with_capacity(wanted.len());
        for part in wanted.chunks(COUNT) {
            let keys = bytes(part);
            let there = self.sessions.run(Again::Yes, async |session| {
                let has = session.prepare_cached(HAS).await?;
                digests(&session.query(&has, &[&keys]).await?)
            })?;
            has.extend(part.iter().map(|digest| there.contains(digest)));
        }
        Ok(has)
    }

    /// See [`Backend::list`].
    pub(super) fn listed(&self, page: &Page) -> Result<Vec<Entry>, Error> {
        // Two, so that the index is entered at the right place.
        const FROM: &str = "SELECT digest, octet_length(message)::bigint, stored_at FROM messages \
             WHERE digest >= $1 AND digest <= $2 ORDER BY digest LIMIT $3";
        const AFTER: &str = "SELECT digest, octet_length(message)::bigint, stored_at FROM messages \
             WHERE digest > $1 AND digest <= $2 ORDER BY digest LIMIT $3";
        let (first, last) = page.prefix.range().into_inner();
        let after = page.after.filter(|after| *after >= first);
        let (text, first) = after.map_or((FROM, first), |after| (AFTER, after));
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        self.sessions.run(Again::Yes, async |session| {
            let statement = session.prepare_cached(text).await?;
            let (first, last) = (first.as_bytes().as_slice(), last.as_bytes().as_slice());
            session.query(&statement, &[&first, &last, &limit]).await?.iter().map(entry).collect()
        })
    }

    /// How long each of the messages is that are there.
    pub(super) fn lengths(&self, wanted: &[Digest]) -> Result<HashMap<Digest, u64>, Error> {
        const LENGTHS: &str = "SELECT digest, octet_length(message)::bigint FROM messages WHERE digest = ANY($1)";
        let keys = bytes(wanted);
        self.sessions.run(Again::Yes, async |session| {
            let lengths = session.prepare_cached(LENGTHS).await?;
            let rows = session.query(&lengths, &[&keys]).await?;
            rows.iter().map(|row| Ok((digest(row)?, unsigned(row.try_get(1)?)))).collect()
        })
    }

    /// Hands over what is stored under each of the digests, in order.
    pub(super) fn look_at(
        &self,
        mut wanted: &[Digest],
        mut look: impl FnMut(Digest, Option<Vec<u8>>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        while !wanted.is_empty() {
            let got = self.got(wanted)?;
            let (these, others) = wanted.split_at(got.len());
            wanted = others;
            these.iter().zip(got).try_for_each(|(digest, stored)| look(*digest, stored))?;
        }
        Ok(())
    }

    /// The messages of all these, which fit in memory.
    fn fetch(&self, wanted: &[Digest]) -> Result<HashMap<Digest, Vec<u8>>, Error> {
        const GET: &str = "SELECT digest, message FROM messages WHERE digest = ANY($1)";
        let keys = bytes(wanted);
        self.sessions.run(Again::Yes, async |session| {
            let get = session.prepare_cached(GET).await?;
            let rows = session.query(&get, &[&keys]).await?;
            rows.iter().map(|row| Ok((digest(row)?, row.try_get(1)?))).collect()
        })
    }
}

fn entry(row: &Row) -> Result<Entry, Failed> {
    let stored_at: SystemTime = row.try_get(2)?;
    let seconds = stored_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let stored_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Ok(Entry { digest: digest(row)?, length: unsigned(row.try_get(1)?), stored_at })
}
