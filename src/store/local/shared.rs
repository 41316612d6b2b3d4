//! State that the threads of a local store share, and reads of single messages.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::compactor::Compactor;
use super::group_commit::{Change, CommitQueue};
use crate::digest::Digest;
use crate::message_store::Error;
use crate::store::index::Index;
use crate::store::log::{self, Log, RecordLocation, RecordTag};
use crate::store::losses::Losses;
use crate::store::{EventSink, StoreEvent};

/// State that the threads of a store share.
pub struct Shared {
    pub path: PathBuf,
    pub log: Arc<Log>,
    pub index: Index,
    pub losses: Arc<Losses>,
    pub commit_queue: CommitQueue,
    pub compactor: Compactor,
    pub events: EventSink,
}

/// Message that the index has, as read from the log. Its digest is not verified.
pub struct StoredMessage {
    pub location: RecordLocation,
    /// Bytes of the message; `None` if the log is too short or the bytes cannot be decompressed.
    pub message: Option<Vec<u8>>,
}

impl Shared {
    /// Returns the message of a digest, or `None` if it is absent.
    pub fn fetch(&self, digest: &Digest) -> Result<Option<StoredMessage>, Error> {
        self.fetch_at(digest, self.index.get(digest)?)
    }

    /// Returns the message at `indexed`, the location that the index has for the digest.
    pub fn fetch_at(
        &self,
        digest: &Digest,
        mut indexed: Option<RecordLocation>,
    ) -> Result<Option<StoredMessage>, Error> {
        while let Some(location) = indexed {
            let payload = self.read(&location)?;
            if payload.is_none() {
                indexed = self.index.get(digest)?;
                if indexed != Some(location) {
                    // Compaction has moved the record and deleted its segment since the lookup.
                    continue;
                }
            }
            let message = match location.kind {
                RecordTag::Compressed => payload.and_then(|payload| log::decompress(&payload)),
                RecordTag::Message | RecordTag::Tombstone => payload,
            };
            return Ok(Some(StoredMessage { location, message }));
        }
        Ok(None)
    }

    /// Commits a change. Blocks until it is durable, and returns the flags that [`Change`] documents.
    pub fn submit(&self, change: Change) -> Result<Vec<bool>, Error> {
        self.commit_queue.submit(change, &self.index)
    }

    /// Deletes the recorded losses of messages that are in the log: the process may have been killed after they were
    /// stored again. Reports the other losses, unless they were reported already.
    pub fn reconcile_losses(&self) -> Result<(), Error> {
        let mut stored = Vec::new();
        for digest in self.losses.digests() {
            if let Some(location) = self.index.get(&digest)?
                && self.record_matches(&digest, &location)?
            {
                stored.push(digest);
            }
        }
        self.losses.remove_stored(&stored)?;
        if let Some(report) = self.losses.report() {
            (self.events)(StoreEvent::Warning(report));
        }
        Ok(())
    }

    /// Returns [`Error::Lost`] if the loss of an absent message is recorded.
    pub fn check_not_lost(&self, digest: &Digest) -> Result<(), Error> {
        if self.losses.contains(digest) { Err(Error::Lost(*digest)) } else { Ok(()) }
    }

    /// Returns whether the log has a valid header at `location` that matches it, so that a replay finds the record.
    pub fn record_matches(&self, digest: &Digest, location: &RecordLocation) -> Result<bool, Error> {
        let header = self.log.read_header(location).map_err(|cause| self.read_error(location.segment, cause))?;
        let RecordLocation { kind, payload_len, .. } = *location;
        Ok(header.is_some_and(|header| {
            (header.digest, header.kind.tag(), header.payload_len()) == (*digest, kind, payload_len)
        }))
    }

    /// Returns the stored bytes of a record, or `None` if the log is too short.
    pub fn read(&self, location: &RecordLocation) -> Result<Option<Vec<u8>>, Error> {
        self.log.read(location).map_err(|cause| self.read_error(location.segment, cause))
    }

    pub fn read_error(&self, segment: u32, cause: io::Error) -> Error {
        Error::io(format!("cannot read segment {segment} of {}", self.path.display()), cause)
    }
}
