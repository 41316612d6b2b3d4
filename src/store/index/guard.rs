//! Keeps sled from what it does not survive: files that are missing, batches that were lost, an open that never
//! comes back. Each would be a hang or a wrong answer; here it becomes [`Damaged`], and the tree is made anew.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mark::Mark;
use super::tree::Damaged;
use crate::durable;
use crate::store::log::Point;

/// After so many attempts to open the tree that did not come back, no other is made.
const ATTEMPTS: u64 = 2;

/// Room on the disk that is kept for opening the tree, which writes.
const RESERVE: u64 = 2 << 20;

/// Watches over the tree in one directory, from files beside it.
pub struct Guard {
    dir: PathBuf,
    metadata: PathBuf,
    seal: PathBuf,
    known: PathBuf,
    attempts: PathBuf,
    reserve: PathBuf,
}

/// How the tree was left by its last flush.
#[derive(Serialize, Deserialize)]
struct Seal {
    mark: Mark,
    /// How far the log went beyond that when the store was closed, and how many messages there were then.
    end: Point,
    messages: u64,
    logs: Vec<SealedLog>,
}

/// What a log of sled's began with then. It may have grown since.
#[derive(Serialize, Deserialize)]
struct SealedLog {
    number: u64,
    length: usize,
    crc32: u32,
}

impl Seal {
    /// What was known. Of the segments, only what the tree knew.
    fn into_mark(self) -> Mark {
        Mark { point: self.end, messages: self.messages, ..self.mark }
    }
}

impl Guard {
    /// For the tree in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            metadata: dir.join("metadata"),
            seal: dir.with_extension("seal"),
            known: dir.with_extension("known"),
            attempts: dir.with_extension("opening"),
            reserve: dir.with_extension("reserve"),
        }
    }

    /// Before the tree is opened: is everything there that sled counts on?
    pub fn before_open(&self) -> Result<(), Damaged> {
        if self.attempts.metadata().is_ok_and(|data| data.len() >= ATTEMPTS) {
            return Err(Damaged::new("the last attempts to open it did not come back"));
        }
        self.check_files().map_err(|error| Damaged::from(&error))?;
        // Only a hint for the next process: if it cannot be left, nothing is lost.
        let _ =
            File::options().create(true).append(true).open(&self.attempts).and_then(|mut file| file.write_all(b"."));
        Ok(())
    }

    /// After the tree was opened anew by who had it open.
    pub fn after_reopen(&self) {
        let _ = std::fs::remove_file(&self.attempts);
    }

    /// After the tree was opened and answered with its sentinel: is it as new as it was before?
    pub fn after_open(&self, mark: Option<&Mark>) -> Result<(), Damaged> {
        self.after_reopen();
        match self.read_seal() {
            Some(seal) if mark.is_none_or(|mark| mark.point < seal.mark.point) => {
                Err(Damaged::new("it is shorter than it was"))
            }
            _ => {
                // Now, since a disk that is full before the first flush would not let the tree be opened again.
                self.keep_reserve();
                Ok(())
            }
        }
    }

    /// After the tree was flushed with this sentinel. The seal need not survive a power cut: without it less is seen.
    pub fn after_flush(&self, mark: &Mark) {
        let logs = self.files().unwrap_or_default().1.into_iter().filter_map(|number| {
            let bytes = std::fs::read(self.log(number)).ok()?;
            Some(SealedLog { number, length: bytes.len(), crc32: crc32fast::hash(&bytes) })
        });
        let seal = Seal { mark: mark.clone(), end: mark.point, messages: mark.messages, logs: logs.collect() };
        if self.read_seal().is_none() {
            // sled does not sync all that it writes when it makes a tree; without this a power cut costs a rebuild.
            let _ = durable::sync_tree(&self.dir).and_then(|()| durable::sync_dir(durable::parent(&self.dir)));
        }
        self.keep_reserve();
        self.write_seal(&seal);
    }

    /// After the log grew by a little that the tree was spared; false if there is no seal to say so.
    pub fn after_growth(&self, end: Point, messages: u64) -> bool {
        let Some(seal) = self.read_seal() else { return false };
        if seal.end != end {
            self.write_seal(&Seal { end, messages, ..seal });
        }
        true
    }

    fn write_seal(&self, seal: &Seal) {
        let seal = serde_json::to_string(seal).expect("it is plain data");
        let _ = std::fs::write(&self.seal, format!("{:08x} {seal}", crc32fast::hash(seal.as_bytes())));
    }

    /// Before the tree is made anew: from now on its seal is no more than what was known, and says so until that is
    /// [settled](Guard::settle), however often the making is interrupted.
    pub fn reset(&self) {
        let _ = std::fs::remove_file(&self.attempts);
        if self.known().is_some() {
            let _ = std::fs::remove_file(&self.seal);
        } else {
            let _ = std::fs::rename(&self.seal, &self.known);
        }
    }

    /// What was known when the store was last closed.
    pub fn sealed(&self) -> Option<Mark> {
        self.read_seal().map(Seal::into_mark)
    }

    /// The same of a tree that had to be made anew, if it was not settled.
    pub fn known(&self) -> Option<Mark> {
        read(&self.known).map(Seal::into_mark)
    }

    /// What is gone of what was known has been said.
    pub fn settle(&self) {
        let _ = std::fs::remove_file(&self.known);
    }

    /// Gives the reserve back to the disk; false if it is spent already.
    pub fn spend_reserve(&self) -> bool {
        std::fs::remove_file(&self.reserve).is_ok()
    }

    /// Puts a new reserve by, where there is room.
    fn keep_reserve(&self) {
        if !self.reserve.exists() {
            let allocate = |file| Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, RESERVE)?);
            let kept = File::create(&self.reserve).and_then(allocate);
            if kept.is_err() {
                self.spend_reserve();
            }
        }
    }

    fn read_seal(&self) -> Option<Seal> {
        read(&self.seal)
    }

    /// sled keeps where its leaves are in a snapshot and the logs that follow it, and takes what is left of them for
    /// the whole.
    fn check_files(&self) -> io::Result<()> {
        let (snapshot, logs) = match self.files() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            files => files?,
        };
        let Some(snapshot) = snapshot else {
            return if logs.is_empty() { Ok(()) } else { Err(io::Error::other("its snapshot is missing")) };
        };
        for log in self.read_seal().into_iter().flat_map(|seal| seal.logs).filter(|log| log.number > snapshot) {
            let bytes = std::fs::read(self.log(log.number)).unwrap_or_default();
            if bytes.get(..log.length).is_none_or(|bytes| crc32fast::hash(bytes) != log.crc32) {
                return Err(io::Error::other("its log is not as it was left"));
            }
        }
        Ok(())
    }

    /// The number of sled's snapshot, and those of its logs.
    fn files(&self) -> io::Result<(Option<u64>, Vec<u64>)> {
        let (mut snapshot, mut logs) = (None, Vec::new());
        for entry in std::fs::read_dir(&self.metadata)? {
            let name = entry?.file_name();
            let numbered = |prefix: &str| u64::from_str_radix(name.to_str()?.strip_prefix(prefix)?, 16).ok();
            snapshot = snapshot.max(numbered("snapshot_"));
            logs.extend(numbered("log_"));
        }
        Ok((snapshot, logs))
    }

    fn log(&self, number: u64) -> PathBuf {
        self.metadata.join(format!("log_{number:016x}"))
    }
}

/// `None` if there is no seal, or one that a kill cut short.
fn read(path: &Path) -> Option<Seal> {
    let text = std::fs::read_to_string(path).ok()?;
    let (crc32, seal) = text.split_once(' ')?;
    let is_whole = u32::from_str_radix(crc32, 16).ok()? == crc32fast::hash(seal.as_bytes());
    if is_whole { serde_json::from_str(seal).ok() } else { None }
}
