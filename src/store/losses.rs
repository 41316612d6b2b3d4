//! The file `losses`: messages that the store had and that are not in its log any more. A loss is recorded durably
//! before anything else is written, and stays recorded until its messages are stored again or the user accepts it.
//! See docs/formats.md, "Losses file".

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::fs;
use crate::message_store::{Damage, Error};

/// Format version of the file.
const VERSION: u32 = 1;
/// Maximum number of digests in the file. Further messages are only counted.
const MAX_DIGESTS: usize = 1 << 16;

/// The recorded losses of a store.
#[derive(Debug)]
pub struct Losses {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    record: LossRecord,
    /// `true` if a loss was reported to the user since the store was opened.
    was_reported: bool,
}

/// Content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LossRecord {
    version: u32,
    /// Number of lost messages whose digests are unknown.
    unknown: u64,
    /// Digests of lost messages. The value is the number of the missing segment while the totals of the index or its
    /// checkpoint still count the message.
    digests: BTreeMap<Digest, Option<u32>>,
}

impl LossRecord {
    const EMPTY: Self = Self { version: VERSION, unknown: 0, digests: BTreeMap::new() };

    fn count(&self) -> u64 {
        self.unknown + self.digests.len() as u64
    }
}

impl Losses {
    /// Reads the losses of the store in `dir`. A file that cannot be parsed counts as one lost message.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("losses");
        let record = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or(LossRecord { unknown: 1, ..LossRecord::EMPTY }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => LossRecord::EMPTY,
            Err(error) => return Err(error),
        };
        Ok(Self { path, state: Mutex::new(State { record, was_reported: false }) })
    }

    /// Returns the number of lost messages.
    pub fn count(&self) -> u64 {
        self.state.lock().record.count()
    }

    /// Returns whether the loss of this message is recorded.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.state.lock().record.digests.contains_key(digest)
    }

    /// Returns the lost messages whose digests are unknown, as damage.
    pub fn unknown(&self) -> Option<Damage> {
        let messages = self.state.lock().record.unknown;
        (messages > 0).then_some(Damage::LostUnknown { messages })
    }

    /// Returns the number of recorded messages that are still counted in totals with live bytes in `segments`.
    pub fn counted_in(&self, segments: impl Fn(u32) -> bool) -> u64 {
        let state = self.state.lock();
        state.record.digests.values().filter(|segment| segment.is_some_and(&segments)).count() as u64
    }

    /// Records lost messages with the numbers of their segments, while the totals still count the messages.
    pub fn record_digests(&self, lost: impl Iterator<Item = (Digest, u32)>) -> Result<(), Error> {
        self.update(|record| {
            for (digest, segment) in lost {
                if record.digests.len() < MAX_DIGESTS || record.digests.contains_key(&digest) {
                    record.digests.insert(digest, Some(segment));
                }
            }
        })
    }

    /// Records `unknown` further lost messages. The totals do not count any recorded message afterwards. Messages for
    /// which `is_stored` returns `true` are not lost.
    pub fn settle(&self, unknown: u64, is_stored: impl Fn(&Digest) -> bool) -> Result<(), Error> {
        self.update(|record| {
            record.unknown += unknown;
            record.digests.retain(|digest, _| !is_stored(digest));
            record.digests.values_mut().for_each(|segment| *segment = None);
        })
    }

    /// Deletes the records of messages that are durably stored again.
    pub fn remove_stored(&self, digests: &[Digest]) -> Result<(), Error> {
        let stored: Vec<_> = digests.iter().filter(|digest| self.contains(digest)).collect();
        if stored.is_empty() {
            return Ok(());
        }
        self.update(|record| {
            for digest in stored {
                record.digests.remove(digest);
            }
        })
    }

    /// Returns the digests of all recorded messages.
    pub fn digests(&self) -> Vec<Digest> {
        self.state.lock().record.digests.keys().copied().collect()
    }

    /// Deletes the records of losses that the user accepts.
    pub fn accept(&self, damage: &[Damage]) -> Result<(), Error> {
        self.update(|record| {
            for item in damage {
                match item {
                    Damage::Lost { digest } => drop(record.digests.remove(digest)),
                    Damage::LostUnknown { messages } => record.unknown = record.unknown.saturating_sub(*messages),
                    Damage::Corrupt { .. } | Damage::Unindexed { .. } | Damage::Gap { .. } => {}
                }
            }
        })
    }

    /// Notes that a loss was reported to the user.
    pub fn mark_reported(&self) {
        self.state.lock().was_reported = true;
    }

    /// Returns the report of the recorded losses, unless there are none or a loss was reported already.
    pub fn report(&self) -> Option<String> {
        let state = self.state.lock();
        (state.record.count() > 0 && !state.was_reported).then(|| Error::DataLoss(state.record.count()).to_string())
    }

    /// Changes the record and writes it durably. Without lost messages, the file is deleted.
    fn update(&self, change: impl FnOnce(&mut LossRecord)) -> Result<(), Error> {
        let mut state = self.state.lock();
        let mut record = state.record.clone();
        change(&mut record);
        if record == state.record {
            return Ok(());
        }
        let written = match record.count() {
            0 => std::fs::remove_file(&self.path).and_then(|()| fs::sync_dir(fs::parent_dir(&self.path))),
            _ => {
                let json = serde_json::to_vec(&record).expect("plain data can be serialized");
                fs::write_atomic(&self.path, 0o600, |file| file.write_all(&json))
            }
        };
        written.map_err(|cause| Error::io(format!("cannot record lost messages in {}", self.path.display()), cause))?;
        state.record = record;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_durable_until_stored_again_or_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let [foo, bar, baz] = [b"foo", b"bar", b"baz"].map(|message| Digest::compute(message));
        let losses = Losses::open(dir.path()).unwrap();
        assert_eq!((losses.count(), losses.report()), (0, None));
        losses.record_digests([(foo, 2), (bar, 3), (baz, 3)].into_iter()).unwrap();
        assert_eq!(losses.counted_in(|segment| segment == 3), 2);
        losses.settle(5, |digest| *digest == baz).unwrap();

        let losses = Losses::open(dir.path()).unwrap();
        assert_eq!((losses.count(), losses.counted_in(|_| true)), (7, 0));
        assert!(losses.contains(&foo) && !losses.contains(&baz));
        assert!(losses.report().is_some());
        losses.remove_stored(&[foo]).unwrap();
        assert_eq!(losses.digests(), [bar]);
        let unknown = Damage::LostUnknown { messages: 5 };
        assert_eq!(losses.unknown(), Some(unknown.clone()));
        losses.accept(&[Damage::Lost { digest: bar }, unknown]).unwrap();
        assert_eq!(losses.count(), 0);
        assert!(!dir.path().join("losses").exists());
    }

    #[test]
    fn a_damaged_losses_file_counts_as_a_loss() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("losses"), b"{").unwrap();
        let losses = Losses::open(dir.path()).unwrap();
        assert_eq!(losses.count(), 1);
        losses.accept(&[losses.unknown().unwrap()]).unwrap();
        assert_eq!(Losses::open(dir.path()).unwrap().count(), 0);
    }
}
