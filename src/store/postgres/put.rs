//! Puts. A row that exists already is compared with the message before it is acknowledged, and replaced if it differs.
//! Rows that exist are acknowledged only after a commit that waited for the synchronous standby.

use std::collections::{BTreeMap, BTreeSet};

use super::options::{MAX_ATTEMPTS, STATEMENT_BYTES, STATEMENT_ROWS};
use super::pool::{ConnectionPool, Idempotent};
use super::read::{Replication, for_each_row};
use super::rows::{digest_keys, row_digests};
use super::statements::{INSERT, UPDATE_CORRUPT};
use crate::digest::Digest;
use crate::message_store::Error;

/// Stores a batch in statements of bounded size. Returns, for each message in order, whether it was written.
pub(super) fn put(pool: &ConnectionPool, batch: Vec<(Digest, Vec<u8>)>) -> Result<Vec<bool>, Error> {
    let digests: Vec<_> = batch.iter().map(|(digest, _)| *digest).collect();
    let mut pending: BTreeMap<_, _> = batch.into_iter().collect();
    let mut new = BTreeSet::new();
    while !pending.is_empty() {
        let (mut part, mut size) = (BTreeMap::new(), 0);
        while let Some((digest, message)) = pending.pop_first() {
            size += message.len() as u64;
            part.insert(digest, message);
            if size >= STATEMENT_BYTES || part.len() == STATEMENT_ROWS {
                break;
            }
        }
        new.extend(put_part(pool, &part)?);
    }
    Ok(digests.iter().map(|digest| new.remove(digest)).collect())
}

/// Stores the messages of `part` and returns the digests of the new ones. Rows are inserted in the order of their
/// digests, so that concurrent puts do not deadlock.
fn put_part(pool: &ConnectionPool, part: &BTreeMap<Digest, Vec<u8>>) -> Result<BTreeSet<Digest>, Error> {
    let mut new = BTreeSet::new();
    let mut pending: Vec<_> = part.keys().copied().collect();
    for _ in 0..MAX_ATTEMPTS {
        let keys = digest_keys(&pending);
        let messages: Vec<_> = pending.iter().map(|digest| part[digest].as_slice()).collect();
        let stored =
            pool.run(Idempotent::Yes, async |session| row_digests(&session.write(&INSERT, [&keys, &messages]).await?))?;
        pending.retain(|digest| !stored.contains(digest));
        new.extend(stored);
        pending = repair_stored(pool, part, &pending, &mut new)?;
        if pending.is_empty() {
            return Ok(new);
        }
    }
    let cause = "cannot store a message: other clients remove it again and again".to_owned();
    Err(Error::Server { server: pool.name().to_owned(), cause })
}

/// Compares the rows of `existing` with the messages of `part`, and replaces corrupt rows. Returns the digests that
/// must be put again: rows that were removed meanwhile, and replaced ones, so that they are compared once more.
fn repair_stored(
    pool: &ConnectionPool,
    part: &BTreeMap<Digest, Vec<u8>>,
    existing: &[Digest],
    new: &mut BTreeSet<Digest>,
) -> Result<Vec<Digest>, Error> {
    let mut pending = Vec::new();
    for_each_row(pool, Replication::Await, existing, |digest, stored| {
        let message = &part[&digest];
        match stored {
            Some(stored) if stored == *message => {}
            None => pending.push(digest),
            Some(_) => {
                pool.run(Idempotent::Yes, async |session| {
                    session.write(&UPDATE_CORRUPT, [&digest.as_bytes().as_slice(), message]).await
                })?;
                new.insert(digest);
                pending.push(digest);
            }
        }
        Ok(())
    })?;
    Ok(pending)
}
