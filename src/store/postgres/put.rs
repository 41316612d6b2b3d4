//! Puts. A row that exists already is compared with the message before it is acknowledged, and replaced if it differs.

use std::collections::{BTreeMap, BTreeSet};

use super::pool::Idempotent;
use super::{MAX_ATTEMPTS, Postgres, digest_keys, row_digests};
use crate::digest::Digest;
use crate::message_store::Error;

impl Postgres {
    /// Stores the messages of `part` and returns the digests of the new ones. Rows are inserted in the order of their
    /// digests, so that concurrent puts do not deadlock.
    pub(super) fn put_batch(&self, part: &BTreeMap<Digest, Vec<u8>>) -> Result<BTreeSet<Digest>, Error> {
        // No conflict target is named, because partitions may be foreign tables, which do not support one.
        const INSERT: &str = "INSERT INTO messages (digest, message) SELECT * FROM unnest($1::bytea[], $2::bytea[]) \
             ON CONFLICT DO NOTHING RETURNING digest";
        let mut new = BTreeSet::new();
        let mut pending: Vec<_> = part.keys().copied().collect();
        for _ in 0..MAX_ATTEMPTS {
            let keys = digest_keys(&pending);
            let messages: Vec<_> = pending.iter().map(|digest| part[digest].as_slice()).collect();
            let stored = self.pool.run(Idempotent::Yes, async |session| {
                let statement = session.prepare_cached(INSERT).await?;
                row_digests(&session.query(&statement, &[&keys, &messages]).await?)
            })?;
            pending.retain(|digest| !stored.contains(digest));
            new.extend(stored);
            pending = self.repair_stored(part, &pending, &mut new)?;
            if pending.is_empty() {
                return Ok(new);
            }
        }
        let cause = "cannot store a message: other clients remove it again and again".to_owned();
        Err(Error::Server { server: self.pool.name().to_owned(), cause })
    }

    /// Compares the rows of `existing` with the messages of `part`, and replaces corrupt rows. Returns the digests that
    /// must be put again: rows that were removed meanwhile, and replaced ones, so that they are compared once more.
    fn repair_stored(
        &self,
        part: &BTreeMap<Digest, Vec<u8>>,
        existing: &[Digest],
        new: &mut BTreeSet<Digest>,
    ) -> Result<Vec<Digest>, Error> {
        const UPDATE_CORRUPT: &str = "UPDATE messages SET message = $2, stored_at = now() WHERE digest = $1";
        let mut pending = Vec::new();
        self.for_each_row(existing, |digest, stored| {
            let message = &part[&digest];
            match stored {
                Some(stored) if stored == *message => {}
                None => pending.push(digest),
                Some(_) => {
                    self.pool.run(Idempotent::Yes, async |session| {
                        let statement = session.prepare_cached(UPDATE_CORRUPT).await?;
                        Ok(session.execute(&statement, &[&digest.as_bytes().as_slice(), message]).await?)
                    })?;
                    new.insert(digest);
                    pending.push(digest);
                }
            }
            Ok(())
        })?;
        Ok(pending)
    }
}
