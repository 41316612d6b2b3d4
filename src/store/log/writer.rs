//! The writing end of the log: a group of messages in one write, one sync, then their positions.
//! After an error the log is as it was before the group, or nothing is ever appended again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::io::Errno;

use super::direct::{DirectWriter, WRITE_CHUNK};
use super::record::{RECORD_ALIGN, RecordHeader, RecordKind};
use super::{Log, LogEnd, LogPosition, RecordLocation, SEGMENT_HEADER_LEN, segment_path};
#[cfg(test)]
use crate::digest::Digest;

/// Zeros are written so far ahead of small groups: to sync bytes in space that the file system has allocated
/// is cheaper than to sync a file that grew.
const PREALLOCATE: u64 = 1 << 18;
/// Larger groups pay for their own space.
const MAX_PREALLOCATED_BATCH: usize = 1 << 16;
/// Groups of so many bytes, so many a record, are written past the page cache.
const DIRECT_MIN_BATCH: usize = 1 << 17;
const DIRECT_MIN_RECORD: usize = 1 << 12;
/// The same of so many bytes, whatever the records: what is loaded in bulk had better not drive out of memory what is
/// read.
const DIRECT_MIN_BULK: usize = 1 << 19;

/// Appends to the last segment. There is one, and one thread at a time has it.
#[derive(Debug)]
pub struct SegmentWriter {
    log: Arc<Log>,
    file: Option<Arc<File>>,
    /// Where the next record goes: all before it is durable.
    end: LogPosition,
    /// How far the last segment is filled, with zeros behind `end`.
    preallocated_end: u64,
    buffer: Vec<u8>,
    /// Whether the group in hand is written past the page cache.
    is_direct: bool,
    /// How, once there was such a group in this segment.
    direct: Option<DirectWriter>,
}

/// What is appended: a header, and the bytes that follow it.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Of a removal that is new, the number is made: it speaks of all segments up to its own.
    pub header: RecordHeader,
    /// As many as the header says.
    pub payload: &'a [u8],
}

/// Why a group was not appended.
#[derive(Debug)]
pub enum AppendError {
    /// There is no room for it. The log is as it was: the next group may fit.
    NoSpace,
    /// What reached the disk is not known. Nothing must be appended any more.
    WriteFailed(io::Error),
}

impl SegmentWriter {
    /// Goes on where a replay ended. What stands behind must be gone.
    pub fn new(log: Arc<Log>, tail: &LogEnd) -> io::Result<Self> {
        let file = log.segment(tail.segment);
        let filled = file.as_ref().map_or(Ok(0), |file| file.metadata().map(|data| data.len()))?;
        let end = tail.position();
        log.set_durable_end(end);
        Ok(Self { log, file, end, preallocated_end: filled, buffer: Vec::new(), is_direct: false, direct: None })
    }

    /// Where the next record goes.
    pub fn end(&self) -> LogPosition {
        self.end
    }

    /// Begins a new segment, so that nothing more is appended to the one before.
    pub fn roll_segment(&mut self) -> Result<(), AppendError> {
        match self.file {
            Some(_) => self.start_segment(self.end.segment + 1),
            None => Ok(()),
        }
    }

    /// Appends records and syncs them: when this returns their positions, they survive a power cut.
    pub fn append(&mut self, group: &[Record]) -> Result<Vec<RecordLocation>, AppendError> {
        let before = (self.end, self.preallocated_end, self.file.clone());
        let bytes: usize = group.iter().map(|record| record.payload.len()).sum();
        self.is_direct = bytes >= DIRECT_MIN_BATCH.max(group.len() * DIRECT_MIN_RECORD).min(DIRECT_MIN_BULK);
        let appended = self.write_batch(group);
        if let Err(AppendError::NoSpace) = appended {
            self.buffer.clear();
            self.direct = None;
            self.rollback(before)?;
        }
        appended
    }

    /// Removes what a group that did not fit has left behind, so that the log holds nothing unacknowledged.
    fn rollback(&mut self, (end, filled, file): (LogPosition, u64, Option<Arc<File>>)) -> Result<(), AppendError> {
        let first_made = if file.is_some() { end.segment + 1 } else { end.segment };
        self.log.delete_segments_from(first_made).map_err(AppendError::WriteFailed)?;
        if let Some(file) = &file {
            let zeros = vec![0; usize::try_from(filled - end.offset).expect("at most PREALLOCATE")];
            let taken_back = file
                .set_len(filled)
                .and_then(|()| file.write_all_at(&zeros, end.offset))
                .and_then(|()| file.sync_all());
            taken_back.map_err(AppendError::WriteFailed)?;
        }
        (self.end, self.preallocated_end, self.file) = (end, filled, file);
        Ok(())
    }

    fn write_batch(&mut self, group: &[Record]) -> Result<Vec<RecordLocation>, AppendError> {
        let mut positions = Vec::with_capacity(group.len());
        for Record { mut header, payload: bytes } in group.iter().copied() {
            self.ensure_capacity(header.record_len())?;
            let at = self.end.offset + self.buffer.len() as u64;
            let segment = self.end.segment;
            if header.kind == RecordKind::Tombstone && header.len_or_bound == 0 {
                header.len_or_bound = segment;
            }
            positions.push(RecordLocation::new(&header, segment, at, bytes));
            self.buffer.extend_from_slice(&header.encode(&self.log.salt, segment, at));
            if bytes.len() >= WRITE_CHUNK || self.is_direct {
                self.flush_buffer()?;
                self.write(bytes)?;
            } else {
                self.buffer.extend_from_slice(bytes);
            }
            // The padding is written too: the log must not end beyond its file.
            self.buffer.resize(self.buffer.len() + bytes.len().next_multiple_of(RECORD_ALIGN) - bytes.len(), 0);
            if self.buffer.len() >= WRITE_CHUNK {
                self.flush_buffer()?;
            }
        }
        self.seal_segment()?;
        Ok(positions)
    }

    /// Sees to it that there is a segment with room for `size` bytes.
    fn ensure_capacity(&mut self, size: u64) -> Result<(), AppendError> {
        let end = self.end.offset + self.buffer.len() as u64;
        if self.file.is_some() && (end == SEGMENT_HEADER_LEN || end + size <= self.log.segment_size) {
            return Ok(());
        }
        let mut number = self.end.segment;
        if self.file.is_some() {
            self.seal_segment()?;
            number += 1;
        }
        self.start_segment(number)
    }

    fn start_segment(&mut self, number: u32) -> Result<(), AppendError> {
        let file = self.log.create_segment(number).map_err(classify_error)?;
        if let Some(before) = self.file.replace(file) {
            // Zeros behind its end are of use no more; if they stay, that is only a little space.
            let _ = before.set_len(self.end.offset);
        }
        self.end = LogPosition { segment: number, offset: SEGMENT_HEADER_LEN };
        self.preallocated_end = SEGMENT_HEADER_LEN;
        self.direct = None;
        Ok(())
    }

    /// Writes what is gathered, with zeros behind it if it is little, and syncs the segment.
    fn seal_segment(&mut self) -> Result<(), AppendError> {
        let after = self.end.offset + self.buffer.len() as u64;
        if after > self.preallocated_end && self.buffer.len() < MAX_PREALLOCATED_BATCH && !self.is_direct {
            // The zeros are a favour: where there is no room for them, the group goes without.
            match self.write_zeros(after, after.next_multiple_of(PREALLOCATE)) {
                Err(AppendError::WriteFailed(error)) => return Err(AppendError::WriteFailed(error)),
                Ok(()) | Err(AppendError::NoSpace) => {}
            }
        }
        self.flush_buffer()?;
        let end = self.end.offset;
        if let Some(direct) = self.direct() {
            let filled = direct.flush(end).map_err(classify_error)?;
            self.preallocated_end = self.preallocated_end.max(filled);
        }
        rustix::fs::fdatasync(self.file()).map_err(|errno| AppendError::WriteFailed(errno.into()))
    }

    fn write_zeros(&mut self, from: u64, to: u64) -> Result<(), AppendError> {
        let zeros = vec![0; usize::try_from(to - from).expect("at most PREALLOCATE")];
        self.file().write_all_at(&zeros, from).map_err(classify_error)?;
        self.preallocated_end = to;
        Ok(())
    }

    fn flush_buffer(&mut self) -> Result<(), AppendError> {
        let buffer = std::mem::take(&mut self.buffer);
        let written = self.write(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        written
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        let end = self.end.offset;
        match self.direct() {
            Some(direct) => direct.write(end, bytes).map_err(classify_error)?,
            None => self.file().write_all_at(bytes, end).map_err(classify_error)?,
        }
        self.end.offset += bytes.len() as u64;
        self.preallocated_end = self.preallocated_end.max(self.end.offset);
        Ok(())
    }

    /// The way past the page cache, for a group that takes it and where there is one.
    fn direct(&mut self) -> Option<&mut DirectWriter> {
        if self.is_direct && self.direct.is_none() {
            let path = segment_path(&self.log.dir, self.end.segment);
            self.direct = DirectWriter::open(&path, self.file.clone()?).ok();
            // Where there is none, the rest of the group is gathered like any other.
            self.is_direct = self.direct.is_some();
        }
        if self.is_direct { self.direct.as_mut() } else { None }
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("ensure_capacity has created a segment")
    }
}

/// Tells a full disk from a broken one.
fn classify_error(error: io::Error) -> AppendError {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => AppendError::NoSpace,
        _ => AppendError::WriteFailed(error),
    }
}

#[cfg(test)]
impl SegmentWriter {
    /// Appends one record, for tests of what stands on the log.
    pub fn append_one(&mut self, kind: RecordKind, digest: Digest, bytes: &[u8]) -> RecordLocation {
        self.append(&[record(kind, digest, bytes)]).unwrap()[0]
    }
}

#[cfg(test)]
fn record(kind: RecordKind, digest: Digest, bytes: &[u8]) -> Record<'_> {
    let number = u32::try_from(bytes.len()).unwrap();
    Record { header: RecordHeader { kind, len_or_bound: number, time: 0, digest }, payload: bytes }
}

#[cfg(test)]
mod tests {
    use super::super::ScanItem;
    use super::*;

    /// A message of its own for each number.
    fn message(number: usize, length: usize) -> Vec<u8> {
        let mut bytes = Digest::compute(&number.to_le_bytes()).as_bytes().repeat(length.div_ceil(32));
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn batches_of_all_sizes_are_contiguous_with_buffered_and_direct_writes() {
        let dir = tempfile::tempdir().unwrap();
        let log = || Arc::new(Log::open(dir.path(), [7; 16], 3 << 19).unwrap());
        let replayed = || {
            let mut all = Vec::new();
            let tail = log().replay(LogPosition::START, |_, found| {
                all.push(found);
                io::Result::Ok(())
            });
            (all, tail.unwrap())
        };
        let mut appender = SegmentWriter::new(log(), &replayed().1).unwrap();
        let mut stored = Vec::new();
        // Large groups begin and end amid a block and in another segment, with small ones between them.
        let groups =
            [(3, 100), (40, 8000), (1, 5), (20, 9001), (2, 70), (9, 200_001), (1, 3 << 20), (2000, 300), (40, 5000)];
        for (group, (count, length)) in groups.iter().cycle().take(30).copied().enumerate() {
            let messages: Vec<_> = (0..count).map(|at| message(group * 100 + at, length + at)).collect();
            let records: Vec<_> =
                messages.iter().map(|bytes| record(RecordKind::Message, Digest::compute(bytes), bytes)).collect();
            let positions = appender.append(&records).unwrap();
            stored.extend(records.iter().map(|record| record.header).zip(positions));
            let (all, tail) = replayed();
            assert!(tail.end.torn.is_empty() && tail.end.clean && tail.position() == appender.end(), "{tail:?}");
            let expected: Vec<_> =
                stored.iter().map(|(header, position)| ScanItem::Valid(*header, *position)).collect();
            assert!(all == expected, "after group {group}");
            if group % 7 == 6 {
                appender = SegmentWriter::new(log(), &tail).unwrap();
            }
        }
        let there = log();
        let whole = |(header, position): &(RecordHeader, RecordLocation)| {
            there.read(position).unwrap().is_some_and(|bytes| header.digest.matches(&bytes))
        };
        assert!(stored.iter().all(whole));
    }

    #[test]
    fn a_large_batch_is_written_where_o_direct_is_unavailable() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::open(dir.path(), [7; 16], 1 << 30).unwrap());
        let tail = log.replay(LogPosition::START, |_, _| io::Result::Ok(())).unwrap();
        let mut appender = SegmentWriter::new(log.clone(), &tail).unwrap();
        let mut append = |messages: &[Vec<u8>]| {
            let records: Vec<_> =
                messages.iter().map(|bytes| record(RecordKind::Message, Digest::compute(bytes), bytes)).collect();
            let positions = appender.append(&records).unwrap();
            let read = positions.iter().map(|position| log.read(position).unwrap().unwrap());
            assert!(read.eq(messages.iter().cloned()));
        };
        append(&[message(0, 100)]);
        // What has no name cannot be opened in another way.
        std::fs::remove_file(segment_path(dir.path(), 1)).unwrap();
        append(&(1..40).map(|number| message(number, 9000)).collect::<Vec<_>>());
        append(&[message(40, 3 << 20), message(41, 5)]);
    }
}
