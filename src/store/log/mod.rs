//! The log: append-only segment files that hold the messages. It is the truth; the index only finds things in it.
//! Nothing that was synced is ever changed.

mod compression;
mod direct;
mod position;
mod record;
mod scan;
mod segment;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

pub use compression::{compress, decompress};
pub use position::{LogPosition, RecordLocation};
pub use record::{HEADER_LEN, RECORD_ALIGN, RecordHeader, RecordKind, Salt, to_system_time, unix_now};
pub use scan::{ScanEnd, ScanItem, checksum_ok};
pub use segment::{SEGMENT_HEADER_LEN, recover_salt, segment_path};
pub use writer::{AppendError, Record, SegmentWriter};

use crate::fs;
use segment::{segment_header, segment_ids};

/// The segments, open for reading.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    salt: Salt,
    /// A segment is closed before it grows beyond this, unless one record alone is larger.
    segment_size: u64,
    segments: RwLock<BTreeMap<u32, Arc<File>>>,
    /// Everything before this is durable, and can be found.
    durable_end: Mutex<LogPosition>,
}

impl Log {
    /// The length in bytes that a segment is meant to have.
    pub fn segment_size(&self) -> u64 {
        self.segment_size
    }

    /// Opens the segments that are in `dir`, which must exist.
    pub fn open(dir: &Path, salt: Salt, segment_size: u64) -> io::Result<Self> {
        let mut segments = BTreeMap::new();
        for number in segment_ids(dir)? {
            segments.insert(number, Arc::new(File::options().read(true).write(true).open(segment_path(dir, number))?));
        }
        Ok(Self {
            dir: dir.to_owned(),
            salt,
            segment_size,
            segments: RwLock::new(segments),
            durable_end: Mutex::new(LogPosition::START),
        })
    }

    /// The bytes behind a record's header, as they are; `None` where there are not so many.
    pub fn read(&self, position: &RecordLocation) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.segment(position.segment) else { return Ok(None) };
        let mut bytes = vec![0; position.payload_len as usize];
        match file.read_exact_at(&mut bytes, position.offset + record::HEADER_LEN as u64) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The header at a position, if one stands there.
    pub fn read_header(&self, position: &RecordLocation) -> io::Result<Option<RecordHeader>> {
        let Some(file) = self.segment(position.segment) else { return Ok(None) };
        let mut bytes = [0; record::HEADER_LEN];
        match file.read_exact_at(&mut bytes, position.offset) {
            Ok(()) => Ok(RecordHeader::decode(&bytes, &self.salt, position.segment, position.offset)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the log ends: everything before is durable, and can be found.
    pub fn durable_end(&self) -> LogPosition {
        *self.durable_end.lock().expect(LOCK_POISONED)
    }

    /// Says that everything up to `end` is durable, and can be found.
    pub fn set_durable_end(&self, end: LogPosition) {
        *self.durable_end.lock().expect(LOCK_POISONED) = end;
    }

    /// The numbers of the segments, in order.
    pub fn segment_ids(&self) -> Vec<u32> {
        self.read_segments().keys().copied().collect()
    }

    /// The length of a segment's file in bytes; `None` if there is none.
    pub fn segment_len(&self, number: u32) -> io::Result<Option<u64>> {
        self.segment(number).map(|file| Ok(file.metadata()?.len())).transpose()
    }

    /// Calls `visit` for all that a segment holds, damage included.
    pub fn scan<E: From<io::Error>>(
        &self,
        number: u32,
        mut visit: impl FnMut(ScanItem) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(file) = self.segment(number) else { return Ok(()) };
        let end = scan::scan(&file, number, &self.salt, SEGMENT_HEADER_LEN, &mut visit)?;
        end.torn.into_iter().try_for_each(visit)
    }

    /// Bytes of a segment as they are, fewer at its end; `None` if there is no such segment.
    pub fn read_range(&self, number: u32, offset: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.segment(number) else { return Ok(None) };
        let left = usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        let count = scan::read_up_to(&file, &mut bytes, offset)?;
        bytes.truncate(count);
        Ok(Some(bytes))
    }

    /// The header that `bytes` begin with, if they stand at this place.
    pub fn decode_header(&self, bytes: &[u8], segment: u32, offset: u64) -> Option<RecordHeader> {
        RecordHeader::decode(bytes, &self.salt, segment, offset)
    }

    /// Removes a segment that nothing is needed of any more. Who reads it now still can.
    ///
    /// Until that is durable it counts as there, since a power cut could bring it back.
    pub fn delete_segment(&self, number: u32) -> io::Result<()> {
        match std::fs::remove_file(segment_path(&self.dir, number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::sync_dir(&self.dir)?,
        }
        self.segments.write().expect(LOCK_POISONED).remove(&number);
        Ok(())
    }

    /// Reads everything from `from` on; what does not count at the end of the last segment is left in [`LogEnd::end`].
    pub fn replay<E: From<io::Error>>(
        &self,
        from: LogPosition,
        mut visit: impl FnMut(u32, ScanItem) -> Result<(), E>,
    ) -> Result<LogEnd, E> {
        let segments: Vec<_> = self.read_segments().range(from.segment..).map(|(n, file)| (*n, file.clone())).collect();
        let mut tail =
            LogEnd { segment: from.segment, end: ScanEnd { offset: from.offset, torn: Vec::new(), clean: true } };
        for (index, (number, file)) in segments.iter().enumerate() {
            let start = if *number == from.segment { from.offset } else { SEGMENT_HEADER_LEN };
            let mut end = scan::scan(file, *number, &self.salt, start, |found| visit(*number, found))?;
            if index + 1 < segments.len() {
                // Nothing is appended to it any more: what stands at its end stays there, and is damage.
                end.torn.drain(..).try_for_each(|found| visit(*number, found))?;
            }
            tail = LogEnd { segment: *number, end };
        }
        Ok(tail)
    }

    /// Makes everything from `from` on durable: a process that was killed may have written what it did not sync.
    pub fn sync_from(&self, from: LogPosition) -> io::Result<()> {
        let segments: Vec<_> = self.read_segments().range(from.segment..).map(|(_, file)| file.clone()).collect();
        segments.iter().try_for_each(|file| Ok(rustix::fs::fdatasync(file)?))
    }

    /// Whether `point` lies within the log. It may lie in a segment that is gone, if others follow.
    pub fn contains(&self, point: LogPosition) -> io::Result<bool> {
        match self.segment(point.segment) {
            Some(file) => Ok(file.metadata()?.len() >= point.offset),
            None if point == LogPosition::START => Ok(true),
            None => Ok(self.read_segments().keys().any(|number| *number > point.segment)),
        }
    }

    /// The bytes that the segments have on disk.
    pub fn disk_usage(&self) -> io::Result<u64> {
        let segments: Vec<_> = self.read_segments().values().cloned().collect();
        segments.iter().map(|file| Ok(file.metadata()?.blocks() * 512)).sum()
    }

    /// How many bytes a replay from `from` reads.
    pub fn bytes_after(&self, from: LogPosition) -> io::Result<u64> {
        let segments: Vec<_> = self.read_segments().range(from.segment..).map(|(_, file)| file.clone()).collect();
        let lengths = segments.iter().map(|file| Ok(file.metadata()?.len()));
        Ok(lengths.sum::<io::Result<u64>>()?.saturating_sub(from.offset))
    }

    fn segment(&self, number: u32) -> Option<Arc<File>> {
        self.read_segments().get(&number).cloned()
    }

    fn read_segments(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<u32, Arc<File>>> {
        self.segments.read().expect(LOCK_POISONED)
    }

    /// Makes the segment `number`, durably.
    fn create_segment(&self, number: u32) -> io::Result<Arc<File>> {
        let path = segment_path(&self.dir, number);
        let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
        let made = file.write_all(&segment_header(number, &self.salt)).and_then(|()| file.sync_all());
        if let Err(error) = made.and_then(|()| fs::sync_dir(&self.dir)) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let file = Arc::new(file);
        self.segments.write().expect(LOCK_POISONED).insert(number, file.clone());
        Ok(file)
    }

    /// Removes the segments from `number` on: those that a group began and could not fill.
    fn delete_segments_from(&self, number: u32) -> io::Result<()> {
        let mut segments = self.segments.write().expect(LOCK_POISONED);
        for (number, _) in segments.split_off(&number) {
            std::fs::remove_file(segment_path(&self.dir, number))?;
        }
        fs::sync_dir(&self.dir)
    }
}

const LOCK_POISONED: &str = "nobody panics while holding this";

/// Where a replay ended.
#[derive(Debug)]
pub struct LogEnd {
    /// The last segment.
    pub segment: u32,
    /// How it ends.
    pub end: ScanEnd,
}

impl LogEnd {
    /// Just behind the last whole record.
    pub fn position(&self) -> LogPosition {
        LogPosition { segment: self.segment, offset: self.end.offset }
    }
}
