//! Keeps sled from what it does not survive: files that are missing, batches that were lost, an open that never
//! comes back. Each would be a hang or a wrong answer; here it becomes [`IndexError`], and the tree is made anew.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::sled_store::IndexError;
use super::totals::Totals;
use crate::fs;
use crate::store::log::LogPosition;

/// After so many attempts to open the tree that did not come back, no other is made.
const MAX_OPEN_ATTEMPTS: u64 = 2;

/// Room on the disk that is kept for opening the tree, which writes.
const RESERVED_BYTES: u64 = 2 << 20;

/// Watches over the tree in one directory, from files beside it.
pub struct SledGuard {
    dir: PathBuf,
    metadata: PathBuf,
    checkpoint: PathBuf,
    previous: PathBuf,
    open_attempts: PathBuf,
    reserved: PathBuf,
}

/// How the tree was left by its last flush.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    totals: Totals,
    /// How far the log went beyond that when the store was closed, and how many messages there were then.
    end: LogPosition,
    messages: u64,
    logs: Vec<SledLogChecksum>,
}

/// What a log of sled's began with then. It may have grown since.
#[derive(Serialize, Deserialize)]
struct SledLogChecksum {
    number: u64,
    length: usize,
    crc32: u32,
}

impl Checkpoint {
    /// What was known. Of the segments, only what the tree knew.
    fn into_totals(self) -> Totals {
        Totals { position: self.end, messages: self.messages, ..self.totals }
    }
}

impl SledGuard {
    /// For the tree in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            metadata: dir.join("metadata"),
            checkpoint: dir.with_extension("checkpoint"),
            previous: dir.with_extension("checkpoint.previous"),
            open_attempts: dir.with_extension("open-attempts"),
            reserved: dir.with_extension("reserved"),
        }
    }

    /// Before the tree is opened: is everything there that sled counts on?
    pub fn before_open(&self) -> Result<(), IndexError> {
        if self.open_attempts.metadata().is_ok_and(|data| data.len() >= MAX_OPEN_ATTEMPTS) {
            return Err(IndexError::new("the last attempts to open it did not come back"));
        }
        self.check_files().map_err(|error| IndexError::from(&error))?;
        // Only a hint for the next process: if it cannot be left, nothing is lost.
        let _ = File::options()
            .create(true)
            .append(true)
            .open(&self.open_attempts)
            .and_then(|mut file| file.write_all(b"."));
        Ok(())
    }

    /// After the tree was opened anew by who had it open.
    pub fn after_reopen(&self) {
        let _ = std::fs::remove_file(&self.open_attempts);
    }

    /// After the tree was opened and answered with its sentinel: is it as new as it was before?
    pub fn after_open(&self, mark: Option<&Totals>) -> Result<(), IndexError> {
        self.after_reopen();
        match self.read_checkpoint() {
            Some(seal) if mark.is_none_or(|mark| mark.position < seal.totals.position) => {
                Err(IndexError::new("it is shorter than it was"))
            }
            _ => {
                // Now, since a disk that is full before the first flush would not let the tree be opened again.
                self.reserve_space();
                Ok(())
            }
        }
    }

    /// After the tree was flushed with this sentinel. The seal need not survive a power cut: without it less is seen.
    pub fn after_flush(&self, mark: &Totals) {
        let logs = self.sled_files().unwrap_or_default().1.into_iter().filter_map(|number| {
            let bytes = std::fs::read(self.sled_log_path(number)).ok()?;
            Some(SledLogChecksum { number, length: bytes.len(), crc32: crc32fast::hash(&bytes) })
        });
        let seal =
            Checkpoint { totals: mark.clone(), end: mark.position, messages: mark.messages, logs: logs.collect() };
        if self.read_checkpoint().is_none() {
            // sled does not sync all that it writes when it makes a tree; without this a power cut costs a rebuild.
            let _ = fs::sync_tree(&self.dir).and_then(|()| fs::sync_dir(fs::parent_dir(&self.dir)));
        }
        self.reserve_space();
        self.write_checkpoint(&seal);
    }

    /// After the log grew by a little that the tree was spared; false if there is no seal to say so.
    pub fn update_checkpoint(&self, end: LogPosition, messages: u64) -> bool {
        let Some(seal) = self.read_checkpoint() else { return false };
        if seal.end != end {
            self.write_checkpoint(&Checkpoint { end, messages, ..seal });
        }
        true
    }

    fn write_checkpoint(&self, seal: &Checkpoint) {
        let seal = serde_json::to_string(seal).expect("it is plain data");
        let _ = std::fs::write(&self.checkpoint, format!("{:08x} {seal}", crc32fast::hash(seal.as_bytes())));
    }

    /// Before the tree is made anew: from now on its seal is no more than what was known, and says so until that is
    /// [settled](SledGuard::discard_previous), however often the making is interrupted.
    pub fn retire_checkpoint(&self) {
        let _ = std::fs::remove_file(&self.open_attempts);
        if self.previous_checkpoint().is_some() {
            let _ = std::fs::remove_file(&self.checkpoint);
        } else {
            let _ = std::fs::rename(&self.checkpoint, &self.previous);
        }
    }

    /// What was known when the store was last closed.
    pub fn checkpoint(&self) -> Option<Totals> {
        self.read_checkpoint().map(Checkpoint::into_totals)
    }

    /// The same of a tree that had to be made anew, if it was not settled.
    pub fn previous_checkpoint(&self) -> Option<Totals> {
        read_checkpoint_file(&self.previous).map(Checkpoint::into_totals)
    }

    /// What is gone of what was known has been said.
    pub fn discard_previous(&self) {
        let _ = std::fs::remove_file(&self.previous);
    }

    /// Gives the reserve back to the disk; false if it is spent already.
    pub fn release_reserve(&self) -> bool {
        std::fs::remove_file(&self.reserved).is_ok()
    }

    /// Puts a new reserve by, where there is room.
    fn reserve_space(&self) {
        if !self.reserved.exists() {
            let allocate =
                |file| Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, RESERVED_BYTES)?);
            let kept = File::create(&self.reserved).and_then(allocate);
            if kept.is_err() {
                self.release_reserve();
            }
        }
    }

    fn read_checkpoint(&self) -> Option<Checkpoint> {
        read_checkpoint_file(&self.checkpoint)
    }

    /// sled keeps where its leaves are in a snapshot and the logs that follow it, and takes what is left of them for
    /// the whole.
    fn check_files(&self) -> io::Result<()> {
        let (snapshot, logs) = match self.sled_files() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            files => files?,
        };
        let Some(snapshot) = snapshot else {
            return if logs.is_empty() { Ok(()) } else { Err(io::Error::other("its snapshot is missing")) };
        };
        for log in self.read_checkpoint().into_iter().flat_map(|seal| seal.logs).filter(|log| log.number > snapshot) {
            let bytes = std::fs::read(self.sled_log_path(log.number)).unwrap_or_default();
            if bytes.get(..log.length).is_none_or(|bytes| crc32fast::hash(bytes) != log.crc32) {
                return Err(io::Error::other("its log is not as it was left"));
            }
        }
        Ok(())
    }

    /// The number of sled's snapshot, and those of its logs.
    fn sled_files(&self) -> io::Result<(Option<u64>, Vec<u64>)> {
        let (mut snapshot, mut logs) = (None, Vec::new());
        for entry in std::fs::read_dir(&self.metadata)? {
            let name = entry?.file_name();
            let numbered = |prefix: &str| u64::from_str_radix(name.to_str()?.strip_prefix(prefix)?, 16).ok();
            snapshot = snapshot.max(numbered("snapshot_"));
            logs.extend(numbered("log_"));
        }
        Ok((snapshot, logs))
    }

    fn sled_log_path(&self, number: u64) -> PathBuf {
        self.metadata.join(format!("log_{number:016x}"))
    }
}

/// `None` if there is no seal, or one that a kill cut short.
fn read_checkpoint_file(path: &Path) -> Option<Checkpoint> {
    let text = std::fs::read_to_string(path).ok()?;
    let (crc32, seal) = text.split_once(' ')?;
    let is_whole = u32::from_str_radix(crc32, 16).ok()? == crc32fast::hash(seal.as_bytes());
    if is_whole { serde_json::from_str(seal).ok() } else { None }
}
