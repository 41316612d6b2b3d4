//! Puts: what seems to be known is read back and compared before it is acknowledged, and mended if it is corrupt.

use std::collections::{BTreeMap, BTreeSet};

use super::pool::Idempotent;
use super::{MAX_ATTEMPTS, Postgres, digest_keys, row_digests};
use crate::digest::Digest;
use crate::message_store::Error;

impl Postgres {
    /// Puts some, in the order of their digests, so that two that put the same do not wait for each other.
    pub(super) fn put_batch(&self, part: &BTreeMap<Digest, Vec<u8>>) -> Result<BTreeSet<Digest>, Error> {
        // Without a conflict target, partitions may be foreign tables.
        const INSERT: &str = "INSERT INTO messages (digest, message) SELECT * FROM unnest($1::bytea[], $2::bytea[]) \
             ON CONFLICT DO NOTHING RETURNING digest";
        let mut new = BTreeSet::new();
        let mut left: Vec<_> = part.keys().copied().collect();
        for _ in 0..MAX_ATTEMPTS {
            let keys = digest_keys(&left);
            let messages: Vec<_> = left.iter().map(|digest| part[digest].as_slice()).collect();
            let stored = self.pool.run(Idempotent::Yes, async |session| {
                let put = session.prepare_cached(INSERT).await?;
                row_digests(&session.query(&put, &[&keys, &messages]).await?)
            })?;
            left.retain(|digest| !stored.contains(digest));
            new.extend(stored);
            left = self.repair_stored(part, &left, &mut new)?;
            if left.is_empty() {
                return Ok(new);
            }
        }
        let why = "a message is removed as often as it is put".to_owned();
        Err(Error::Server { server: self.pool.name().to_owned(), cause: why })
    }

    /// Looks at what seems to be known: mends what is corrupt, and answers with what is not there any more.
    fn repair_stored(
        &self,
        part: &BTreeMap<Digest, Vec<u8>>,
        known: &[Digest],
        new: &mut BTreeSet<Digest>,
    ) -> Result<Vec<Digest>, Error> {
        const UPDATE_CORRUPT: &str = "UPDATE messages SET message = $2, stored_at = now() WHERE digest = $1";
        let mut absent = Vec::new();
        self.for_each_row(known, |digest, stored| {
            let message = &part[&digest];
            match stored {
                Some(stored) if stored == *message => {}
                None => absent.push(digest),
                Some(_) => {
                    self.pool.run(Idempotent::Yes, async |session| {
                        let mend = session.prepare_cached(UPDATE_CORRUPT).await?;
                        Ok(session.execute(&mend, &[&digest.as_bytes().as_slice(), message]).await?)
                    })?;
                    new.insert(digest);
                    // Looked at once more.
                    absent.push(digest);
                }
            }
            Ok(())
        })?;
        Ok(absent)
    }
}
