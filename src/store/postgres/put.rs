//! Puts: what seems to be known is read back and compared before it is acknowledged, and mended if it is corrupt.

use std::collections::{BTreeMap, BTreeSet};

use super::session::Again;
use super::{Postgres, TURNS, bytes, digests};
use crate::digest::Digest;
use crate::messages::Error;

impl Postgres {
    /// Puts some, in the order of their digests, so that two that put the same do not wait for each other.
    pub(super) fn put_part(&self, part: &BTreeMap<Digest, Vec<u8>>) -> Result<BTreeSet<Digest>, Error> {
        // Without a conflict target, partitions may be foreign tables.
        const PUT: &str = "INSERT INTO messages (digest, message) SELECT * FROM unnest($1::bytea[], $2::bytea[]) \
             ON CONFLICT DO NOTHING RETURNING digest";
        let mut new = BTreeSet::new();
        let mut left: Vec<_> = part.keys().copied().collect();
        for _ in 0..TURNS {
            let keys = bytes(&left);
            let messages: Vec<_> = left.iter().map(|digest| part[digest].as_slice()).collect();
            let stored = self.sessions.run(Again::Yes, async |session| {
                let put = session.prepare_cached(PUT).await?;
                digests(&session.query(&put, &[&keys, &messages]).await?)
            })?;
            left.retain(|digest| !stored.contains(digest));
            new.extend(stored);
            left = self.unkept(part, &left, &mut new)?;
            if left.is_empty() {
                return Ok(new);
            }
        }
        let why = "a message is removed as often as it is put".to_owned();
        Err(Error::Server { server: self.sessions.name().to_owned(), why })
    }

    /// Looks at what seems to be known: mends what is corrupt, and answers with what is not there any more.
    fn unkept(
        &self,
        part: &BTreeMap<Digest, Vec<u8>>,
        known: &[Digest],
        new: &mut BTreeSet<Digest>,
    ) -> Result<Vec<Digest>, Error> {
        const MEND: &str = "UPDATE messages SET message = $2, stored_at = now() WHERE digest = $1";
        let mut absent = Vec::new();
        self.look_at(known, |digest, stored| {
            let message = &part[&digest];
            match stored {
                Some(stored) if stored == *message => {}
                None => absent.push(digest),
                Some(_) => {
                    self.sessions.run(Again::Yes, async |session| {
                        let mend = session.prepare_cached(MEND).await?;
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
