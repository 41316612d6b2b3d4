//! The open segment files of a log, and the position up to which their records are durable.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::position::{LogPosition, RecordLocation};
use super::record::{self, RecordHeader, Salt};
use super::scan::{self, ScanEnd, ScanItem, SegmentScanner};
use super::segment::{SEGMENT_HEADER_LEN, segment_header, segment_ids, segment_path};
use crate::fs;

/// Segments of a store. All segment files are open.
#[derive(Debug)]
pub struct Log {
    pub(super) dir: PathBuf,
    pub(super) salt: Salt,
    /// Maximum length of a segment in bytes. A longer record gets a segment of its own.
    pub(super) segment_size: u64,
    segments: RwLock<BTreeMap<u32, Arc<File>>>,
    /// Position up to which all records are durable and in the index.
    durable_end: Mutex<LogPosition>,
}

impl Log {
    /// Returns the maximum length of a segment in bytes.
    pub fn segment_size(&self) -> u64 {
        self.segment_size
    }

    /// Opens all segments in `dir`, which must exist.
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

    /// Reads the stored bytes of a record. Returns `None` if the segment does not exist or is too short.
    pub fn read(&self, location: &RecordLocation) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.segment(location.segment) else { return Ok(None) };
        let mut payload = vec![0; location.payload_len as usize];
        match file.read_exact_at(&mut payload, location.offset + record::HEADER_LEN as u64) {
            Ok(()) => Ok(Some(payload)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the header of a record. Returns `None` if there is no valid header at the location.
    pub fn read_header(&self, location: &RecordLocation) -> io::Result<Option<RecordHeader>> {
        let Some(file) = self.segment(location.segment) else { return Ok(None) };
        let mut bytes = [0; record::HEADER_LEN];
        match file.read_exact_at(&mut bytes, location.offset) {
            Ok(()) => Ok(RecordHeader::decode(&bytes, &self.salt, location.segment, location.offset)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the position up to which all records are durable and in the index.
    pub fn durable_end(&self) -> LogPosition {
        *self.durable_end.lock()
    }

    /// Sets the position up to which all records are durable and in the index.
    pub fn set_durable_end(&self, end: LogPosition) {
        *self.durable_end.lock() = end;
    }

    /// Returns the numbers of all segments, in ascending order.
    pub fn segment_ids(&self) -> Vec<u32> {
        self.read_segments().keys().copied().collect()
    }

    /// Returns the length of a segment file in bytes, or `None` if there is no such segment.
    pub fn segment_len(&self, number: u32) -> io::Result<Option<u64>> {
        self.segment(number).map(|file| Ok(file.metadata()?.len())).transpose()
    }

    /// Returns a scanner of a segment from `position` to its end, or to `limit` if that is less. Returns `None` if there is
    /// no such segment.
    pub fn scanner(&self, position: LogPosition, limit: u64) -> io::Result<Option<SegmentScanner>> {
        let LogPosition { segment, offset } = position;
        let Some(file) = self.segment(segment) else { return Ok(None) };
        SegmentScanner::new(file, segment, self.salt, offset, limit).map(Some)
    }

    /// Calls `visit` for each record and gap of a sealed segment, in order.
    pub fn scan<E: From<io::Error>>(
        &self,
        number: u32,
        mut visit: impl FnMut(ScanItem) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = LogPosition { segment: number, offset: SEGMENT_HEADER_LEN };
        let Some(scanner) = self.scanner(start, u64::MAX)? else { return Ok(()) };
        let end = scan::scan(scanner, &mut visit)?;
        end.torn.into_iter().try_for_each(visit)
    }

    /// Reads up to `length` bytes of a segment, fewer at its end. Returns `None` if there is no such segment.
    pub fn read_range(&self, number: u32, offset: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.segment(number) else { return Ok(None) };
        let available = usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(available)];
        let count = scan::read_up_to(&file, &mut bytes, offset)?;
        bytes.truncate(count);
        Ok(Some(bytes))
    }

    /// Deletes a segment. A read that is in progress can be completed.
    ///
    /// The segment is listed until the deletion is durable, because a power cut could bring the file back.
    pub fn delete_segment(&self, number: u32) -> io::Result<()> {
        match std::fs::remove_file(segment_path(&self.dir, number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::sync_dir(&self.dir)?,
        }
        self.segments.write().remove(&number);
        Ok(())
    }

    /// Calls `visit` with the segment number for each record and gap from `from` to the end of the log.
    ///
    /// Items after the last complete record of the log are not visited: they are in [`LogEnd::end`].
    pub fn replay<E: From<io::Error>>(
        &self,
        from: LogPosition,
        mut visit: impl FnMut(u32, ScanItem) -> Result<(), E>,
    ) -> Result<LogEnd, E> {
        let segments: Vec<_> = self.read_segments().range(from.segment..).map(|(n, file)| (*n, file.clone())).collect();
        let mut log_end = LogEnd { segment: from.segment, end: ScanEnd { offset: from.offset, torn: Vec::new() } };
        for (index, (number, file)) in segments.iter().enumerate() {
            let start = if *number == from.segment { from.offset } else { SEGMENT_HEADER_LEN };
            let scanner = SegmentScanner::new(file.clone(), *number, self.salt, start, u64::MAX)?;
            let mut end = scan::scan(scanner, |item| visit(*number, item))?;
            if index + 1 < segments.len() {
                // A segment that is not the last one was completed, so an incomplete record at its end is damage.
                end.torn.drain(..).try_for_each(|item| visit(*number, item))?;
            }
            log_end = LogEnd { segment: *number, end };
        }
        Ok(log_end)
    }

    /// Syncs all segments from `from` on. A process that was killed may have written records that it did not sync.
    pub fn sync_from(&self, from: LogPosition) -> io::Result<()> {
        let segments: Vec<_> = self.read_segments().range(from.segment..).map(|(_, file)| file.clone()).collect();
        segments.iter().try_for_each(|file| Ok(rustix::fs::fdatasync(file)?))
    }

    /// Returns whether `position` lies within the log. It may lie in a deleted segment if a later segment exists.
    pub fn contains(&self, position: LogPosition) -> io::Result<bool> {
        match self.segment(position.segment) {
            Some(file) => Ok(file.metadata()?.len() >= position.offset),
            None if position == LogPosition::START => Ok(true),
            None => Ok(self.read_segments().keys().any(|number| *number > position.segment)),
        }
    }

    /// Returns the disk space that the segments occupy, in bytes.
    pub fn disk_usage(&self) -> io::Result<u64> {
        let segments: Vec<_> = self.read_segments().values().cloned().collect();
        segments.iter().map(|file| Ok(file.metadata()?.blocks() * 512)).sum()
    }

    /// Returns the number of bytes that a replay from `from` reads.
    pub fn bytes_after(&self, from: LogPosition) -> io::Result<u64> {
        let segments: Vec<_> = self.read_segments().range(from.segment..).map(|(_, file)| file.clone()).collect();
        let lengths = segments.iter().map(|file| Ok(file.metadata()?.len()));
        Ok(lengths.sum::<io::Result<u64>>()?.saturating_sub(from.offset))
    }

    pub(super) fn segment(&self, number: u32) -> Option<Arc<File>> {
        self.read_segments().get(&number).cloned()
    }

    fn read_segments(&self) -> RwLockReadGuard<'_, BTreeMap<u32, Arc<File>>> {
        self.segments.read()
    }

    /// Creates the segment `number`. The file, its header and its name are durable on return.
    pub(super) fn create_segment(&self, number: u32) -> io::Result<Arc<File>> {
        let path = segment_path(&self.dir, number);
        let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
        let written = file.write_all(&segment_header(number, &self.salt)).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::sync_dir(&self.dir)) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let file = Arc::new(file);
        self.segments.write().insert(number, file.clone());
        Ok(file)
    }

    /// Deletes the segments from `number` on, which a batch has started that did not fit on the disk.
    pub(super) fn delete_segments_from(&self, number: u32) -> io::Result<()> {
        let mut segments = self.segments.write();
        for (number, _) in segments.split_off(&number) {
            std::fs::remove_file(segment_path(&self.dir, number))?;
        }
        fs::sync_dir(&self.dir)
    }
}

/// End of the log after a replay.
#[derive(Debug)]
pub struct LogEnd {
    /// Number of the last segment.
    pub segment: u32,
    /// End of the last segment.
    pub end: ScanEnd,
}

impl LogEnd {
    /// Returns the position after the last complete record.
    pub fn position(&self) -> LogPosition {
        LogPosition { segment: self.segment, offset: self.end.offset }
    }
}
