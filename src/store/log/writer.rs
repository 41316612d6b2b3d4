//! The writer of the log: appends a batch of records and syncs it, then returns their locations. A batch that does not
//! fit on the disk is rolled back; after any other error, nothing may be appended any more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::io::Errno;

use super::direct::{DirectWriter, WRITE_CHUNK};
use super::position::{LogPosition, RecordLocation};
#[cfg(test)]
use super::record::RecordTag;
use super::record::{RECORD_ALIGN, RecordHeader, RecordKind};
use super::segment::{SEGMENT_HEADER_LEN, segment_path};
use super::segment_set::{Log, LogEnd};
#[cfg(test)]
use crate::digest::Digest;

/// Step in bytes to which a segment is preallocated for small batches: a sync is cheaper if the file does not grow.
const PREALLOCATE: u64 = 1 << 18;
/// Length in bytes from which on a batch is written without preallocation.
const MAX_PREALLOCATED_BATCH: usize = 1 << 16;
/// Minimum payload bytes of a batch that is written with `O_DIRECT`, if its records are long enough.
const DIRECT_MIN_BATCH: usize = 1 << 17;
/// Minimum average payload bytes of the records of such a batch.
const DIRECT_MIN_RECORD: usize = 1 << 12;
/// Payload bytes from which on a batch is written with `O_DIRECT` whatever the length of its records, so that bulk
/// loads do not evict the page cache.
const DIRECT_MIN_BULK: usize = 1 << 19;

/// Appends records to the last segment. A log has one writer.
#[derive(Debug)]
pub struct SegmentWriter {
    log: Arc<Log>,
    /// The last segment; `None` before the first record of an empty log.
    file: Option<Arc<File>>,
    /// Position of the next record.
    end: LogPosition,
    /// Offset up to which the last segment is filled, with zeros after `end`.
    preallocated_end: u64,
    buffer: Vec<u8>,
    /// `true` while a batch is written with `O_DIRECT`.
    is_direct: bool,
    /// `O_DIRECT` writer of the last segment, opened on first use.
    direct: Option<DirectWriter>,
}

/// Stands for the number of the segment to which a new tombstone is appended. Segments are counted from 1.
pub const APPENDED_SEGMENT: u32 = 0;

/// Record to append.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Header of the record. A tombstone with [`APPENDED_SEGMENT`] gets the number of the segment it is appended to.
    pub header: RecordHeader,
    /// Stored bytes, as many as the header says.
    pub payload: &'a [u8],
}

/// Reason why a batch was not appended.
#[derive(Debug)]
pub enum AppendError {
    /// The disk or the quota is full. The log is unchanged, and a later batch may fit.
    NoSpace,
    /// A write or a sync failed. The content of the disk is unknown, and nothing may be appended any more.
    WriteFailed(io::Error),
}

impl SegmentWriter {
    /// Creates a writer that continues where a replay ended. Bytes after the last complete record must have been
    /// removed, except zeros.
    pub fn new(log: Arc<Log>, log_end: &LogEnd) -> io::Result<Self> {
        let file = log.segment(log_end.segment);
        let preallocated_end = file.as_ref().map_or(Ok(0), |file| file.metadata().map(|metadata| metadata.len()))?;
        let end = log_end.position();
        log.set_durable_end(end);
        Ok(Self { log, file, end, preallocated_end, buffer: Vec::new(), is_direct: false, direct: None })
    }

    /// Returns the position of the next record.
    pub fn end(&self) -> LogPosition {
        self.end
    }

    /// Starts a new segment, so that nothing more is appended to the current one. Does nothing if the log is empty.
    pub fn roll_segment(&mut self) -> Result<(), AppendError> {
        match self.file {
            Some(_) => self.start_segment(self.end.segment + 1),
            None => Ok(()),
        }
    }

    /// Appends a batch of records and syncs it. The records are durable on return.
    pub fn append(&mut self, batch: &[Record]) -> Result<Vec<RecordLocation>, AppendError> {
        let before = (self.end, self.preallocated_end, self.file.clone());
        let bytes: usize = batch.iter().map(|record| record.payload.len()).sum();
        self.is_direct = bytes >= DIRECT_MIN_BATCH.max(batch.len() * DIRECT_MIN_RECORD).min(DIRECT_MIN_BULK);
        let appended = self.write_batch(batch);
        if let Err(AppendError::NoSpace) = appended {
            self.buffer.clear();
            self.direct = None;
            self.rollback(before)?;
        }
        appended
    }

    /// Restores the log to its state before a batch that did not fit on the disk.
    fn rollback(
        &mut self,
        (end, preallocated_end, file): (LogPosition, u64, Option<Arc<File>>),
    ) -> Result<(), AppendError> {
        let first_new_segment = if file.is_some() { end.segment + 1 } else { end.segment };
        self.log.delete_segments_from(first_new_segment).map_err(AppendError::WriteFailed)?;
        if let Some(file) = &file {
            let zeros = vec![0; usize::try_from(preallocated_end - end.offset).expect("at most PREALLOCATE")];
            let restored = file
                .set_len(preallocated_end)
                .and_then(|()| file.write_all_at(&zeros, end.offset))
                .and_then(|()| file.sync_all());
            restored.map_err(AppendError::WriteFailed)?;
        }
        (self.end, self.preallocated_end, self.file) = (end, preallocated_end, file);
        Ok(())
    }

    fn write_batch(&mut self, batch: &[Record]) -> Result<Vec<RecordLocation>, AppendError> {
        let mut locations = Vec::with_capacity(batch.len());
        for Record { mut header, payload } in batch.iter().copied() {
            self.ensure_capacity(header.record_len())?;
            let offset = self.end.offset + self.buffer.len() as u64;
            let segment = self.end.segment;
            if header.kind == (RecordKind::Tombstone { up_to_segment: APPENDED_SEGMENT }) {
                header.kind = RecordKind::Tombstone { up_to_segment: segment };
            }
            locations.push(RecordLocation::new(&header, segment, offset, payload));
            self.buffer.extend_from_slice(&header.encode(&self.log.salt, segment, offset));
            if payload.len() >= WRITE_CHUNK || self.is_direct {
                self.flush_buffer()?;
                self.write(payload)?;
            } else {
                self.buffer.extend_from_slice(payload);
            }
            // The padding is written too, so that the end of the log is not after the end of the file.
            self.buffer.resize(self.buffer.len() + payload.len().next_multiple_of(RECORD_ALIGN) - payload.len(), 0);
            if self.buffer.len() >= WRITE_CHUNK {
                self.flush_buffer()?;
            }
        }
        self.sync_segment()?;
        Ok(locations)
    }

    /// Starts a new segment unless the current one has room for `length` bytes or is empty.
    fn ensure_capacity(&mut self, length: u64) -> Result<(), AppendError> {
        let end = self.end.offset + self.buffer.len() as u64;
        if self.file.is_some() && (end == SEGMENT_HEADER_LEN || end + length <= self.log.segment_size) {
            return Ok(());
        }
        let mut number = self.end.segment;
        if self.file.is_some() {
            self.sync_segment()?;
            number += 1;
        }
        self.start_segment(number)
    }

    fn start_segment(&mut self, number: u32) -> Result<(), AppendError> {
        let file = self.log.create_segment(number).map_err(classify_error)?;
        if let Some(previous) = self.file.replace(file) {
            // Preallocated space is not needed any more. An error is ignored: the zeros only occupy space.
            let _ = previous.set_len(self.end.offset);
        }
        self.end = LogPosition { segment: number, offset: SEGMENT_HEADER_LEN };
        self.preallocated_end = SEGMENT_HEADER_LEN;
        self.direct = None;
        Ok(())
    }

    /// Writes the buffer, preallocates space after a small batch, and syncs the segment.
    fn sync_segment(&mut self) -> Result<(), AppendError> {
        let end = self.end.offset + self.buffer.len() as u64;
        if end > self.preallocated_end && self.buffer.len() < MAX_PREALLOCATED_BATCH && !self.is_direct {
            // Preallocation is optional: on a full disk, the batch is written without it.
            match self.write_zeros(end, end.next_multiple_of(PREALLOCATE)) {
                Err(AppendError::WriteFailed(error)) => return Err(AppendError::WriteFailed(error)),
                Ok(()) | Err(AppendError::NoSpace) => {}
            }
        }
        self.flush_buffer()?;
        let end = self.end.offset;
        if let Some(direct) = self.direct() {
            let padded_end = direct.flush(end).map_err(classify_error)?;
            self.preallocated_end = self.preallocated_end.max(padded_end);
        }
        rustix::fs::fdatasync(self.file()).map_err(|errno| AppendError::WriteFailed(errno.into()))
    }

    fn write_zeros(&mut self, start: u64, end: u64) -> Result<(), AppendError> {
        let zeros = vec![0; usize::try_from(end - start).expect("at most PREALLOCATE")];
        self.file().write_all_at(&zeros, start).map_err(classify_error)?;
        self.preallocated_end = end;
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

    /// Returns the `O_DIRECT` writer if the current batch is written with it and the file system supports it.
    fn direct(&mut self) -> Option<&mut DirectWriter> {
        if self.is_direct && self.direct.is_none() {
            let path = segment_path(&self.log.dir, self.end.segment);
            self.direct = DirectWriter::open(&path, self.file.clone()?).ok();
            // Without support, the remaining records of the batch are written through the page cache.
            self.is_direct = self.direct.is_some();
        }
        if self.is_direct { self.direct.as_mut() } else { None }
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("ensure_capacity has created a segment")
    }
}

/// Separates a full disk from all other errors.
fn classify_error(error: io::Error) -> AppendError {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => AppendError::NoSpace,
        _ => AppendError::WriteFailed(error),
    }
}

#[cfg(test)]
impl SegmentWriter {
    /// Appends one record.
    pub fn append_one(&mut self, kind: RecordTag, digest: Digest, payload: &[u8]) -> RecordLocation {
        self.append(&[record(kind, digest, payload)]).unwrap()[0]
    }
}

#[cfg(test)]
fn record(kind: RecordTag, digest: Digest, payload: &[u8]) -> Record<'_> {
    let len = u32::try_from(payload.len()).unwrap();
    let kind = match kind {
        RecordTag::Message => RecordKind::Message { len },
        RecordTag::Compressed => RecordKind::Compressed { len },
        RecordTag::Tombstone => RecordKind::Tombstone { up_to_segment: APPENDED_SEGMENT },
    };
    Record { header: RecordHeader { kind, time: 0, digest }, payload }
}

#[cfg(test)]
mod tests {
    use super::super::scan::ScanItem;
    use super::*;

    /// Returns a message of `length` bytes, different for each `number`.
    fn message(number: usize, length: usize) -> Vec<u8> {
        let mut bytes = Digest::compute(&number.to_le_bytes()).as_bytes().repeat(length.div_ceil(32));
        bytes.truncate(length);
        bytes
    }

    fn message_records(messages: &[Vec<u8>]) -> Vec<Record<'_>> {
        messages.iter().map(|bytes| record(RecordTag::Message, Digest::compute(bytes), bytes)).collect()
    }

    #[test]
    fn batches_of_all_sizes_are_contiguous_with_buffered_and_direct_writes() {
        let dir = tempfile::tempdir().unwrap();
        let open_log = || Arc::new(Log::open(dir.path(), [7; 16], 3 << 19).unwrap());
        let replay = || {
            let mut items = Vec::new();
            let log_end = open_log().replay(LogPosition::START, |_, item| {
                items.push(item);
                io::Result::Ok(())
            });
            (items, log_end.unwrap())
        };
        let mut writer = SegmentWriter::new(open_log(), &replay().1).unwrap();
        let mut stored = Vec::new();
        // Large batches begin and end inside a block and continue in another segment, with small ones between them.
        let batches =
            [(3, 100), (40, 8000), (1, 5), (20, 9001), (2, 70), (9, 200_001), (1, 3 << 20), (2000, 300), (40, 5000)];
        for (batch, (count, length)) in batches.iter().cycle().take(30).copied().enumerate() {
            let messages: Vec<_> = (0..count).map(|index| message(batch * 100 + index, length + index)).collect();
            let records = message_records(&messages);
            let locations = writer.append(&records).unwrap();
            stored.extend(records.iter().map(|record| record.header).zip(locations));
            let (items, log_end) = replay();
            assert!(log_end.end.torn.is_empty(), "{log_end:?}");
            assert_eq!(log_end.position(), writer.end());
            let expected: Vec<_> =
                stored.iter().map(|(header, location)| ScanItem::Valid(*header, *location)).collect();
            assert!(items == expected, "after batch {batch}");
            if batch % 7 == 6 {
                writer = SegmentWriter::new(open_log(), &log_end).unwrap();
            }
        }
        let log = open_log();
        let is_readable = |(header, location): &(RecordHeader, RecordLocation)| {
            log.read(location).unwrap().is_some_and(|payload| header.digest.matches(&payload))
        };
        assert!(stored.iter().all(is_readable));
    }

    #[test]
    fn segments_of_format_1_are_written_byte_for_byte() {
        let golden: [&[u8]; 2] = [
            include_bytes!("../../../tests/golden/store-1/log/00000001.log"),
            include_bytes!("../../../tests/golden/store-1/log/00000002.log"),
        ];
        let salt = *golden[0][20..].first_chunk().unwrap();
        let [read_dir, written_dir] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for (bytes, number) in golden.iter().zip(1..) {
            std::fs::write(segment_path(read_dir.path(), number), bytes).unwrap();
        }
        let log = Log::open(read_dir.path(), salt, 1 << 10).unwrap();
        let mut records = Vec::new();
        let replayed = log.replay(LogPosition::START, |_, item| {
            let ScanItem::Valid(header, location) = item else { panic!("{item:?}") };
            records.push((header, log.read(&location)?.unwrap()));
            io::Result::Ok(())
        });
        assert!(replayed.unwrap().end.torn.is_empty());
        assert_eq!(records.len(), 5);

        let log = Arc::new(Log::open(written_dir.path(), salt, 1 << 10).unwrap());
        let log_end = log.replay(LogPosition::START, |_, _| io::Result::Ok(())).unwrap();
        let mut writer = SegmentWriter::new(log, &log_end).unwrap();
        for (header, payload) in &records {
            writer.append(&[Record { header: *header, payload }]).unwrap();
        }
        for (bytes, number) in golden.iter().zip(1..) {
            let written = std::fs::read(segment_path(written_dir.path(), number)).unwrap();
            assert_eq!(&written[..bytes.len()], *bytes);
            assert!(written[bytes.len()..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_large_batch_is_written_where_o_direct_is_unavailable() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::open(dir.path(), [7; 16], 1 << 30).unwrap());
        let log_end = log.replay(LogPosition::START, |_, _| io::Result::Ok(())).unwrap();
        let mut writer = SegmentWriter::new(log.clone(), &log_end).unwrap();
        let mut append = |messages: &[Vec<u8>]| {
            let locations = writer.append(&message_records(messages)).unwrap();
            let read = locations.iter().map(|location| log.read(location).unwrap().unwrap());
            assert!(read.eq(messages.iter().cloned()));
        };
        append(&[message(0, 100)]);
        // A deleted file cannot be opened again, so `O_DIRECT` is unavailable.
        std::fs::remove_file(segment_path(dir.path(), 1)).unwrap();
        append(&(1..40).map(|number| message(number, 9000)).collect::<Vec<_>>());
        append(&[message(40, 3 << 20), message(41, 5)]);
    }
}
