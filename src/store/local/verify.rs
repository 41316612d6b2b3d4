//! Verification, step by step: first the log from front to back, each record hashed again on all cores and compared
//! with the index; then the index from first to last, each entry compared with the log.

mod chunk;

use std::io;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Shared;
use crate::digest::{Digest, Prefix};
use crate::json_message::rfc3339;
use crate::message_store::{Cursor, Damage, Error, ListQuery, VerifyStep};
use crate::store::log::LogPosition;
use chunk::SegmentChunk;

/// Entries of the index that a step looks at.
const ENTRIES_PER_STEP: usize = 1 << 14;

const EMPTY: VerifyStep = VerifyStep { next: None, messages: 0, bytes: 0, done: 0, total: 0, damage: Vec::new() };

/// When everything was last verified to the end, and what was found.
#[derive(Debug, Serialize, Deserialize)]
pub struct LastVerification {
    #[serde(with = "rfc3339")]
    pub time: SystemTime,
    pub damaged: u64,
}

/// How far a verification is, and how much damage it found up to there.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Progress {
    phase: Phase,
    damaged: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Phase {
    Log(LogPosition),
    Index(Option<Digest>),
}

/// What the last verification found, if there was one.
pub fn last_verification(store: &Path) -> Option<LastVerification> {
    serde_json::from_slice(&std::fs::read(store.join("verified")).ok()?).ok()
}

/// See [`crate::message_store::MessageStore::verify`].
pub fn step(core: &Shared, from: Option<&Cursor>) -> Result<VerifyStep, Error> {
    let start = Progress { phase: Phase::Log(LogPosition::START), damaged: 0 };
    let parse = |cursor: &Cursor| serde_json::from_str(&cursor.0);
    let foreign = |_| Error::Unusable("it is not known where to go on with verifying; begin anew".to_owned());
    let Progress { phase: at, damaged } = from.map_or(Ok(start), parse).map_err(foreign)?;
    let (mut verified, next) = match at {
        Phase::Log(point) => {
            let mut window = SegmentChunk::new(core, point);
            let next = window.read().map_err(|why| core.read_error(point.segment, why))?;
            (window.verify()?, Some(next.map_or(Phase::Index(None), Phase::Log)))
        }
        Phase::Index(after) => verify_entries(core, after)?,
    };
    let failed = |why| Error::io(format!("cannot read the log of {}", core.path.display()), why);
    (verified.done, verified.total) = log_progress(core, next).map_err(failed)?;
    let damaged = damaged + verified.damage.len() as u64;
    match next {
        Some(at) => {
            let progress = Progress { phase: at, damaged };
            verified.next = Some(Cursor(serde_json::to_string(&progress).expect("it is plain data")));
        }
        None => {
            let last_verification = LastVerification { time: SystemTime::now(), damaged };
            // Only what `stats` tells: a disk that is full takes nothing from the verification.
            let _ = std::fs::write(
                core.path.join("verified"),
                serde_json::to_vec(&last_verification).expect("it is plain data"),
            );
        }
    }
    Ok(verified)
}

/// How much of the log is read by then, and how much there is.
fn log_progress(core: &Shared, next: Option<Phase>) -> io::Result<(u64, u64)> {
    let (mut done, mut total) = (0, 0);
    for number in core.log.segment_ids() {
        let length = core.log.segment_len(number)?.unwrap_or(0);
        total += length;
        done += match next {
            Some(Phase::Log(point)) if number > point.segment => 0,
            Some(Phase::Log(point)) if number == point.segment => point.offset.min(length),
            _ => length,
        };
    }
    Ok((done, total))
}

/// Compares entries of the index with the log; answers where to go on.
fn verify_entries(core: &Shared, after: Option<Digest>) -> Result<(VerifyStep, Option<Phase>), Error> {
    let mut entries = core.index.list_page(&ListQuery { prefix: Prefix::ALL, after, limit: ENTRIES_PER_STEP })?;
    let next = entries.last().map(|(digest, _)| Phase::Index(Some(*digest)));
    // In the order of the log, so that they are read from front to back.
    entries.sort_unstable_by_key(|(_, position)| position.log_position());
    let mut damage = Vec::new();
    for (digest, position) in entries {
        // It may have been moved or removed in the meantime.
        if !core.record_matches(&digest, &position)? && core.index.find(&digest)? == Some(position) {
            damage.push(Damage::Lost { digest });
        }
    }
    Ok((VerifyStep { damage, ..EMPTY }, next))
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
        let local = open_store(dir.path());
        let messages = [b"foo".to_vec(), b"bar".to_vec()];
        local.put(messages.iter().map(|message| (Digest::compute(message), message.clone())).collect()).unwrap();
        let digest = Digest::compute(b"foo");
        let position = local.shared.index.get(&digest).unwrap().unwrap();
        local.shared.submit(Change::DropTombstones(vec![(digest, position)])).unwrap();
        assert_eq!(local.get(&[digest]).unwrap(), [None]);
        let found = local.verify(None).unwrap();
        assert_eq!((found.messages, found.damage.as_slice()), (1, [Damage::Unindexed { digest }].as_slice()));
        local.repair(&found.damage).unwrap();
        assert_eq!(local.get(&[digest]).unwrap(), [Some(b"foo".to_vec())]);
        assert_eq!(local.verify(None).unwrap().damage, []);
        assert_eq!(local.stats().unwrap().messages, 2);
    }

    #[test]
    fn repairing_any_segment_keeps_the_last_one_writable() {
        let dir = tempfile::tempdir().unwrap();
        let local = open_store(dir.path());
        let put = |message: &[u8]| local.put(vec![(Digest::compute(message), message.to_vec())]).unwrap();
        put(b"foo");
        let gap = |segment| Damage::Gap { segment, offset: 64, length: 8 };
        local.repair(&[gap(1), gap(2), gap(2), gap(3)]).unwrap();
        local.repair(&[gap(2), gap(3), gap(4)]).unwrap();
        put(b"bar");
        drop(local);
        let local = open_store(dir.path());
        for message in [b"foo", b"bar"] {
            assert_eq!(local.get(&[Digest::compute(message)]).unwrap(), [Some(message.to_vec())]);
        }
    }
}
