//! Verification in steps. The first phase reads the log from front to back, hashes each record on all cores and
//! compares it with the index; the second phase compares each index entry with the log.

mod chunk;

use std::io;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::shared::Shared;
use crate::digest::{Digest, Prefix};
use crate::json_message::rfc3339;
use crate::message_store::{Cursor, Damage, Error, ListQuery, VerifyStep};
use crate::store::log::LogPosition;
use chunk::SegmentChunk;

/// Number of index entries that a step of the second phase compares.
const ENTRIES_PER_STEP: usize = 1 << 14;

/// Time and result of the last verification that ran to the end; content of the file `verified`.
#[derive(Debug, Serialize, Deserialize)]
pub struct LastVerification {
    #[serde(with = "rfc3339")]
    pub time: SystemTime,
    pub damaged: u64,
}

/// Content of a [`Cursor`]: the start of the next step, and the number of damaged items so far.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Progress {
    phase: Phase,
    damaged: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Phase {
    /// The log is being read, from this position.
    Log(LogPosition),
    /// The index is being compared, after this digest.
    Index(Option<Digest>),
}

/// Returns the result of the last verification that ran to the end; `None` if there was none, or if its file is
/// damaged.
pub fn last_verification(store: &Path) -> Option<LastVerification> {
    serde_json::from_slice(&std::fs::read(store.join("verified")).ok()?).ok()
}

/// See [`crate::message_store::MessageStore::verify`].
pub fn step(shared: &Shared, from: Option<&Cursor>) -> Result<VerifyStep, Error> {
    let start = Progress { phase: Phase::Log(LogPosition::START), damaged: 0 };
    let parse = |cursor: &Cursor| serde_json::from_str(&cursor.0);
    let invalid_cursor =
        |_| Error::Unusable("cannot continue the verification: invalid cursor; start it again".to_owned());
    let Progress { phase, damaged } = from.map_or(Ok(start), parse).map_err(invalid_cursor)?;
    let (mut step, next) = match phase {
        Phase::Log(position) => {
            let read = SegmentChunk::read(shared, position);
            let (chunk, next) = read.map_err(|cause| shared.read_error(position.segment, cause))?;
            (chunk.verify()?, Some(next.map_or(Phase::Index(None), Phase::Log)))
        }
        Phase::Index(after) => verify_entries(shared, after)?,
    };
    let io_error = |cause| Error::io(format!("cannot read the log of {}", shared.path.display()), cause);
    (step.done, step.total) = log_progress(shared, next).map_err(io_error)?;
    if next.is_none() {
        step.damage.extend(recorded_losses(shared)?);
    }
    let damaged = damaged + step.damage.len() as u64;
    match next {
        Some(phase) => {
            let progress = Progress { phase, damaged };
            step.next = Some(Cursor(serde_json::to_string(&progress).expect("plain data can be serialized")));
        }
        None => {
            let last_verification = LastVerification { time: SystemTime::now(), damaged };
            // An error is ignored: the file is informative, and a full disk must not fail the verification.
            let _ = std::fs::write(
                shared.path.join("verified"),
                serde_json::to_vec(&last_verification).expect("plain data can be serialized"),
            );
        }
    }
    Ok(step)
}

/// Returns the recorded losses. A message that is in the index is left out: an earlier step has verified it.
fn recorded_losses(shared: &Shared) -> Result<Vec<Damage>, Error> {
    let mut damage = Vec::new();
    for digest in shared.losses.digests() {
        if shared.index.get(&digest)?.is_none() {
            damage.push(Damage::Lost { digest });
        }
    }
    damage.extend(shared.losses.unknown());
    Ok(damage)
}

/// Returns the number of log bytes that are verified before `next`, and in total.
fn log_progress(shared: &Shared, next: Option<Phase>) -> io::Result<(u64, u64)> {
    let (mut done, mut total) = (0, 0);
    for number in shared.log.segment_ids() {
        let length = shared.log.segment_len(number)?.unwrap_or(0);
        total += length;
        done += match next {
            Some(Phase::Log(position)) if number > position.segment => 0,
            Some(Phase::Log(position)) if number == position.segment => position.offset.min(length),
            _ => length,
        };
    }
    Ok((done, total))
}

/// Compares index entries with the log. Returns the start of the next step, if entries are left.
fn verify_entries(shared: &Shared, after: Option<Digest>) -> Result<(VerifyStep, Option<Phase>), Error> {
    let mut entries = shared.index.list_page(&ListQuery { prefix: Prefix::ALL, after, limit: ENTRIES_PER_STEP })?;
    let next = entries.last().map(|(digest, _)| Phase::Index(Some(*digest)));
    // Sorted by position, so that the log is read from front to back.
    entries.sort_unstable_by_key(|(_, location)| location.log_position());
    let mut damage = Vec::new();
    for (digest, location) in entries {
        // The second condition excludes a record that was relocated or removed since the entries were listed.
        if !shared.record_matches(&digest, &location)? && shared.index.find(&digest)? == Some(location) {
            damage.push(Damage::Lost { digest });
        }
    }
    Ok((VerifyStep { damage, ..VerifyStep::EMPTY }, next))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::store::Backend;
    use crate::store::local::group_commit::Change;
    use crate::store::local::{LocalStore, Options};

    fn open_store(dir: &Path) -> LocalStore {
        let options = Options {
            path: dir.to_owned(),
            create: true,
            lock_timeout: Duration::ZERO,
            owner: "a test".to_owned(),
            index_cache: 1 << 20,
            segment_size: 1 << 30,
            compression: None,
            events: Arc::new(|_| ()),
        };
        LocalStore::open(&options).unwrap()
    }

    #[test]
    fn verify_finds_an_unindexed_message_and_repair_indexes_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = open_store(dir.path());
        let messages = [b"foo".to_vec(), b"bar".to_vec()];
        store.put(messages.iter().map(|message| (Digest::compute(message), message.clone())).collect()).unwrap();
        let digest = Digest::compute(b"foo");
        let location = store.shared.index.get(&digest).unwrap().unwrap();
        store.shared.submit(Change::DropTombstones(vec![(digest, location)])).unwrap();
        assert_eq!(store.get(&[digest]).unwrap(), [None]);
        let step = store.verify(None).unwrap();
        assert_eq!((step.messages, step.damage.as_slice()), (1, [Damage::Unindexed { digest }].as_slice()));
        store.repair(&step.damage).unwrap();
        assert_eq!(store.get(&[digest]).unwrap(), [Some(b"foo".to_vec())]);
        assert_eq!(store.verify(None).unwrap().damage, []);
        assert_eq!(store.stats().unwrap().messages, 2);
    }

    #[test]
    fn repairing_any_segment_keeps_the_last_one_writable() {
        let dir = tempfile::tempdir().unwrap();
        let store = open_store(dir.path());
        let put = |message: &[u8]| store.put(vec![(Digest::compute(message), message.to_vec())]).unwrap();
        put(b"foo");
        let gap = |segment| Damage::Gap { segment, offset: 64, length: 8 };
        store.repair(&[gap(1), gap(2), gap(2), gap(3)]).unwrap();
        store.repair(&[gap(2), gap(3), gap(4)]).unwrap();
        put(b"bar");
        drop(store);
        let store = open_store(dir.path());
        for message in [b"foo", b"bar"] {
            assert_eq!(store.get(&[Digest::compute(message)]).unwrap(), [Some(message.to_vec())]);
        }
    }
}
