//! Conversion of digests and rows.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use tokio_postgres::Row;

use super::error::QueryError;
use crate::digest::Digest;
use crate::message_store::{Entry, Error};

/// Returns the digests as a parameter of a statement.
pub(super) fn digest_keys(digests: &[Digest]) -> Vec<&[u8]> {
    digests.iter().map(|digest| digest.as_bytes().as_slice()).collect()
}

/// Returns the digests in the first column.
pub(super) fn row_digests(rows: &[Row]) -> Result<BTreeSet<Digest>, QueryError> {
    rows.iter().map(row_digest).collect()
}

/// Returns the digest in the first column.
pub(super) fn row_digest(row: &Row) -> Result<Digest, QueryError> {
    let bytes: &[u8] = row.try_get(0)?;
    let digest = bytes.try_into().map(Digest::from_bytes);
    digest.map_err(|_| {
        QueryError::Store(Error::Unusable("invalid digest in the table `messages`: not 32 bytes".to_owned()))
    })
}

/// Returns the entry in a row of a listing.
pub(super) fn row_entry(row: &Row) -> Result<Entry, QueryError> {
    let stored_at: SystemTime = row.try_get(2)?;
    let seconds = stored_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |duration| duration.as_secs());
    let stored_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Ok(Entry { digest: row_digest(row)?, length: unsigned(row.try_get(1)?), stored_at })
}

/// Converts a number that is never negative.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
