//! Detects states of sled that would end in a hang or a wrong answer: missing files, lost batches, and an open that
//! does not return. Each becomes an [`IndexError`], after which the index is rebuilt. The checkpoint, a file beside the
//! index, records the state of the last flush. See docs/design.md, "The sled guard".

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::IndexError;
use super::totals::Totals;
use crate::fs;
use crate::store::log::LogPosition;

/// Number of attempts to open sled that did not return, after which it is not opened.
const MAX_OPEN_ATTEMPTS: u64 = 2;

/// Disk space in bytes that is reserved for opening sled, which writes files.
const RESERVED_BYTES: u64 = 2 << 20;

/// The guard of the sled database in one directory. Its files are beside that directory.
pub struct SledGuard {
    dir: PathBuf,
    metadata: PathBuf,
    checkpoint: PathBuf,
    previous: PathBuf,
    open_attempts: PathBuf,
    reserved: PathBuf,
}

/// The state of the index after its last flush.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    totals: Totals,
    /// End of the log when the checkpoint was written. It is after `totals.position` if entries were deferred.
    end: LogPosition,
    /// Number of messages up to `end`.
    messages: u64,
    logs: Vec<SledLogChecksum>,
}

/// The content of one of sled's metadata logs. The file may have grown since.
#[derive(Serialize, Deserialize)]
struct SledLogChecksum {
    number: u64,
    length: usize,
    crc32: u32,
}

impl Checkpoint {
    /// Returns the totals up to `end`. Only the position and the number of messages include deferred entries.
    fn into_totals(self) -> Totals {
        Totals { position: self.end, messages: self.messages, ..self.totals }
    }
}

impl SledGuard {
    /// Creates the guard of the sled database in `dir`. Does not touch any file.
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

    /// Fails if sled must not be opened, because its files are incomplete or earlier attempts did not return. Counts
    /// the attempt that follows.
    pub fn before_open(&self) -> Result<(), IndexError> {
        if self.open_attempts.metadata().is_ok_and(|metadata| metadata.len() >= MAX_OPEN_ATTEMPTS) {
            return Err(IndexError::corrupt(format!(
                "the last {MAX_OPEN_ATTEMPTS} attempts to open sled did not return"
            )));
        }
        self.check_files()?;
        // Errors are ignored: the count is only a hint for the next process.
        let _ = File::options()
            .create(true)
            .append(true)
            .open(&self.open_attempts)
            .and_then(|mut file| file.write_all(b"."));
        Ok(())
    }

    /// Resets the number of attempts after an attempt to open sled has returned, whatever its result.
    pub fn after_attempt(&self) {
        let _ = std::fs::remove_file(&self.open_attempts);
    }

    /// Fails if the manifest, whose totals are `totals`, is older than the checkpoint. Called after the manifest has
    /// been read.
    pub fn check_manifest(&self, totals: Option<&Totals>) -> Result<(), IndexError> {
        match self.read_checkpoint()? {
            Some(checkpoint) if totals.is_none_or(|totals| totals.position < checkpoint.totals.position) => {
                Err(IndexError::corrupt("the manifest of the index is missing or older than the checkpoint"))
            }
            _ => {
                // Not only after a flush: if the disk fills up before the first one, the index could not be reopened.
                self.reserve_space();
                Ok(())
            }
        }
    }

    /// Writes the checkpoint of a flush. It is not synced: without it less damage is detected, but nothing is lost.
    pub fn after_flush(&self, totals: &Totals) {
        let logs = self.sled_files().unwrap_or_default().1.into_iter().filter_map(|number| {
            let bytes = std::fs::read(self.sled_log_path(number)).ok()?;
            Some(SledLogChecksum { number, length: bytes.len(), crc32: crc32fast::hash(&bytes) })
        });
        let checkpoint = Checkpoint {
            totals: totals.clone(),
            end: totals.position,
            messages: totals.messages,
            logs: logs.collect(),
        };
        if !self.checkpoint.exists() {
            // sled does not sync everything when it creates a database; without this, a power cut costs a rebuild.
            let _ = fs::sync_tree(&self.dir).and_then(|()| fs::sync_dir(fs::parent_dir(&self.dir)));
        }
        self.reserve_space();
        self.write_checkpoint(&checkpoint);
    }

    /// Updates the checkpoint after the log has grown by entries that are not flushed. Returns `false` if there is no
    /// checkpoint.
    pub fn update_checkpoint(&self, end: LogPosition, messages: u64) -> bool {
        let Ok(Some(checkpoint)) = self.read_checkpoint() else { return false };
        if checkpoint.end != end {
            self.write_checkpoint(&Checkpoint { end, messages, ..checkpoint });
        }
        true
    }

    fn write_checkpoint(&self, checkpoint: &Checkpoint) {
        let json = serde_json::to_string(checkpoint).expect("a checkpoint is serializable");
        let _ = std::fs::write(&self.checkpoint, format!("{:08x} {json}", crc32fast::hash(json.as_bytes())));
    }

    /// Makes the checkpoint the previous one, before a rebuild. It stays until [`SledGuard::discard_previous`], even
    /// if rebuilds are interrupted. The checkpoint of an interrupted rebuild is deleted.
    pub fn retire_checkpoint(&self) -> Result<(), IndexError> {
        self.after_attempt();
        if self.previous_checkpoint()?.is_some() {
            let _ = std::fs::remove_file(&self.checkpoint);
        } else {
            let _ = std::fs::rename(&self.checkpoint, &self.previous);
        }
        Ok(())
    }

    /// Returns the totals of the checkpoint, if there is one.
    pub fn checkpoint(&self) -> Result<Option<Totals>, IndexError> {
        Ok(self.read_checkpoint()?.map(Checkpoint::into_totals))
    }

    /// Returns the totals of the previous checkpoint, if there is one.
    pub fn previous_checkpoint(&self) -> Result<Option<Totals>, IndexError> {
        Ok(read_checkpoint_file(&self.previous)?.map(Checkpoint::into_totals))
    }

    /// Deletes the previous checkpoint, after losses were reported.
    pub fn discard_previous(&self) {
        let _ = std::fs::remove_file(&self.previous);
    }

    /// Releases the reserved disk space. Returns `false` if none was reserved.
    pub fn release_reserve(&self) -> bool {
        std::fs::remove_file(&self.reserved).is_ok()
    }

    /// Reserves disk space if none is reserved and there is enough.
    fn reserve_space(&self) {
        if !self.reserved.exists() {
            let allocate =
                |file| Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, RESERVED_BYTES)?);
            let allocated = File::create(&self.reserved).and_then(allocate);
            if allocated.is_err() {
                self.release_reserve();
            }
        }
    }

    fn read_checkpoint(&self) -> Result<Option<Checkpoint>, IndexError> {
        read_checkpoint_file(&self.checkpoint)
    }

    /// Compares sled's metadata with the checkpoint. sled finds its leaves through a snapshot and the logs after it,
    /// and would accept any remainder of them as complete.
    fn check_files(&self) -> Result<(), IndexError> {
        let (snapshot, logs) = match self.sled_files() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            files => files?,
        };
        let Some(snapshot) = snapshot else {
            return if logs.is_empty() { Ok(()) } else { Err(IndexError::corrupt("sled's snapshot is missing")) };
        };
        let checksums = self.read_checkpoint()?.into_iter().flat_map(|checkpoint| checkpoint.logs);
        for log in checksums.filter(|log| log.number > snapshot) {
            let bytes = read_file(&self.sled_log_path(log.number))?.unwrap_or_default();
            if bytes.get(..log.length).is_none_or(|bytes| crc32fast::hash(bytes) != log.crc32) {
                return Err(IndexError::corrupt("a metadata log of sled does not match the checkpoint"));
            }
        }
        Ok(())
    }

    /// Returns the number of sled's newest snapshot, and the numbers of its metadata logs.
    fn sled_files(&self) -> io::Result<(Option<u64>, Vec<u64>)> {
        let (mut snapshot, mut logs) = (None, Vec::new());
        for entry in std::fs::read_dir(&self.metadata)? {
            let name = entry?.file_name();
            let number = |prefix: &str| u64::from_str_radix(name.to_str()?.strip_prefix(prefix)?, 16).ok();
            snapshot = snapshot.max(number("snapshot_"));
            logs.extend(number("log_"));
        }
        Ok((snapshot, logs))
    }

    fn sled_log_path(&self, number: u64) -> PathBuf {
        self.metadata.join(format!("log_{number:016x}"))
    }
}

/// Reads a checkpoint. Returns `None` if the file is missing, or incomplete because its writer was killed.
fn read_checkpoint_file(path: &Path) -> Result<Option<Checkpoint>, IndexError> {
    Ok(read_file(path)?.and_then(|bytes| decode_checkpoint(&bytes)))
}

/// Reads a file, `None` if it cannot be read. Fails only for a shortage, which says nothing about the file.
fn read_file(path: &Path) -> Result<Option<Vec<u8>>, IndexError> {
    match std::fs::read(path).map_err(IndexError::from) {
        Err(error) if error.is_shortage() => Err(error),
        result => Ok(result.ok()),
    }
}

fn decode_checkpoint(bytes: &[u8]) -> Option<Checkpoint> {
    let (crc32, json) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
    let is_intact = u32::from_str_radix(crc32, 16).ok()? == crc32fast::hash(json.as_bytes());
    if is_intact { serde_json::from_str(json).ok() } else { None }
}
