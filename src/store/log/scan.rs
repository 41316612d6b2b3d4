//! Reads a segment from front to back and finds every record, whatever bytes are between them. It is the only reader of
//! the log: recovery, verification and compaction use it. Damage affects only the record that it hits: after it, the
//! search continues for the next valid header.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::compression;
use super::position::RecordLocation;
use super::record::{HEADER_LEN, RECORD_ALIGN, RECORD_MAGIC, RecordHeader, RecordKind, Salt};

/// Part of a segment that a scanner finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentPart {
    /// A record with a valid header. Its stored bytes are not hashed yet.
    Record(RecordHeader, RecordLocation),
    /// Bytes that are not a record: offset in the segment, and length. Zeros at the end of a segment are not a gap.
    Gap(u64, u64),
}

/// Item that a scan finds in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanItem {
    /// A message whose stored bytes hash to its digest, or a tombstone.
    Valid(RecordHeader, RecordLocation),
    /// A record with a valid header whose stored bytes do not hash to its digest.
    Corrupt(RecordHeader, RecordLocation),
    /// Bytes that are not a record: offset in the segment, and length.
    Gap(u64, u64),
}

/// End of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanEnd {
    /// Offset after the last complete record.
    pub offset: u64,
    /// Corrupt records and gaps after `offset`. Without them, the segment has only zeros after `offset`.
    pub torn: Vec<ScanItem>,
}

/// Iterator over the records and gaps of a segment. The payload of the last record can be read from it.
pub struct SegmentScanner {
    buffer: ReadAheadBuffer,
    number: u32,
    salt: Salt,
    /// Offset from which the next header is searched.
    offset: u64,
    /// End of the bytes that belong to a record or were returned as a gap.
    covered: u64,
    /// Record that follows a gap that was returned last.
    pending: Option<(u64, RecordHeader)>,
    /// Record that was returned last, and its offset.
    last: Option<(u64, RecordHeader)>,
}

impl SegmentScanner {
    /// Creates a scanner of the segment `number` from the offset `start` to its end, or to `limit` if that is less.
    pub(super) fn new(file: Arc<File>, number: u32, salt: Salt, start: u64, limit: u64) -> io::Result<Self> {
        let buffer = ReadAheadBuffer::new(file, limit)?;
        Ok(Self { buffer, number, salt, offset: start, covered: start, pending: None, last: None })
    }

    /// Returns the offset after the last returned part.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the next part, or `None` at the end of the segment.
    pub fn next_part(&mut self) -> io::Result<Option<SegmentPart>> {
        self.last = None;
        let next = match self.pending.take() {
            Some(pending) => Some(pending),
            None => self.next_header()?,
        };
        let Some((at, header)) = next else { return self.trailing_gap() };
        if at > self.covered {
            let gap = SegmentPart::Gap(self.covered, at - self.covered);
            (self.covered, self.offset, self.pending) = (at, at, Some((at, header)));
            return Ok(Some(gap));
        }
        self.last = Some((at, header));
        let location = RecordLocation::new(&header, self.number, at, self.payload()?);
        // Records may follow within the length of a record that the segment does not have completely.
        let is_complete = at + HEADER_LEN as u64 + u64::from(header.payload_len()) <= self.buffer.file_len;
        self.offset = if is_complete { at + header.record_len() } else { at + HEADER_LEN as u64 };
        self.covered = self.covered.max(at + header.record_len());
        Ok(Some(SegmentPart::Record(header, location)))
    }

    /// Returns the stored bytes of the record that was returned last, fewer where the segment ends.
    pub fn payload(&mut self) -> io::Result<&[u8]> {
        match self.last {
            Some((at, header)) => self.buffer.read(at + HEADER_LEN as u64, header.payload_len() as usize),
            None => Ok(&[]),
        }
    }

    /// Hashes the stored bytes of the record that was returned last. If they do not match, the record may be torn and
    /// others may follow within its length, so the search continues after its header.
    fn check_payload(&mut self) -> io::Result<bool> {
        let Some((at, header)) = self.last else { return Ok(false) };
        let is_intact = payload_matches(&header, self.payload()?);
        if !is_intact {
            self.offset = at + HEADER_LEN as u64;
        }
        Ok(is_intact)
    }

    /// Returns the bytes after the last record if they are not all zeros.
    fn trailing_gap(&mut self) -> io::Result<Option<SegmentPart>> {
        let (start, is_zero) = (self.covered, self.buffer.is_zero_from(self.covered)?);
        self.covered = self.covered.max(self.buffer.file_len);
        self.offset = self.covered;
        Ok((!is_zero).then_some(SegmentPart::Gap(start, self.covered - start)))
    }

    /// Returns the first valid header from `offset` on, and its offset.
    fn next_header(&mut self) -> io::Result<Option<(u64, RecordHeader)>> {
        let mut at = self.offset;
        loop {
            let bytes = self.buffer.read_ahead(at, HEADER_LEN)?;
            let Some(last) = bytes.len().checked_sub(HEADER_LEN) else { return Ok(None) };
            for index in (0..=last).step_by(RECORD_ALIGN).filter(|index| bytes[*index..].starts_with(&RECORD_MAGIC)) {
                let offset = at + index as u64;
                if let Some(header) = RecordHeader::decode(&bytes[index..], &self.salt, self.number, offset) {
                    return Ok(Some((offset, header)));
                }
            }
            at += ((last / RECORD_ALIGN + 1) * RECORD_ALIGN) as u64;
        }
    }
}

/// Hashes all records of a segment. Calls `visit` for each item before the end of the last complete record.
pub fn scan<E: From<io::Error>>(
    mut scanner: SegmentScanner,
    mut visit: impl FnMut(ScanItem) -> Result<(), E>,
) -> Result<ScanEnd, E> {
    let mut end = scanner.offset();
    let mut torn = Vec::new();
    while let Some(part) = scanner.next_part()? {
        match part {
            SegmentPart::Gap(offset, length) => torn.push(ScanItem::Gap(offset, length)),
            SegmentPart::Record(header, location) if scanner.check_payload()? => {
                torn.drain(..).try_for_each(&mut visit)?;
                visit(ScanItem::Valid(header, location))?;
                end = scanner.offset();
            }
            SegmentPart::Record(header, location) => torn.push(ScanItem::Corrupt(header, location)),
        }
    }
    Ok(ScanEnd { offset: end, torn })
}

/// Reads from `offset` into `bytes`. Returns the number of bytes read, which is smaller at the end of the file.
pub fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < bytes.len() {
        match file.read_at(&mut bytes[count..], offset + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Returns whether the stored bytes after a header are complete and hash to its digest.
pub fn payload_matches(header: &RecordHeader, payload: &[u8]) -> bool {
    payload.len() == header.payload_len() as usize
        && match header.kind {
            RecordKind::Message { .. } => header.digest.matches(payload),
            RecordKind::Compressed { .. } => {
                compression::decompress(payload).is_some_and(|message| header.digest.matches(&message))
            }
            RecordKind::Tombstone { .. } => true,
        }
}

/// Part of a file in memory, which moves forward as the file is read.
struct ReadAheadBuffer {
    file: Arc<File>,
    /// Length of the file, or the limit up to which it is read if that is less.
    file_len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl ReadAheadBuffer {
    /// Minimum number of bytes that are read at once.
    const READ_AHEAD_BYTES: usize = 1 << 18;

    fn new(file: Arc<File>, limit: u64) -> io::Result<Self> {
        let file_len = file.metadata()?.len().min(limit);
        Ok(Self { file, file_len, start: 0, bytes: Vec::new() })
    }

    /// Returns `length` bytes from `offset`, fewer at the end of the file.
    fn read(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        self.read_ahead(offset, length).map(|bytes| &bytes[..length.min(bytes.len())])
    }

    /// Returns at least `length` bytes from `offset`, fewer at the end of the file, and all bytes after them in memory.
    fn read_ahead(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let available = usize::try_from(self.file_len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(available);
        let buffered = self.start..=self.start + self.bytes.len() as u64;
        if !buffered.contains(&offset) || !buffered.contains(&(offset + length as u64)) {
            self.bytes.resize(length.max(Self::READ_AHEAD_BYTES).min(available), 0);
            let count = read_up_to(&self.file, &mut self.bytes, offset)?;
            // The file was truncated meanwhile, which removes only zeros or a batch that was rolled back.
            if count < self.bytes.len() {
                self.bytes.truncate(count);
                self.file_len = offset + count as u64;
            }
            self.start = offset;
        }
        let index = usize::try_from(offset - self.start).expect("the offset is in the buffer");
        Ok(&self.bytes[index..])
    }

    fn is_zero_from(&mut self, mut offset: u64) -> io::Result<bool> {
        loop {
            let bytes = self.read(offset, Self::READ_AHEAD_BYTES)?;
            if bytes.is_empty() {
                return Ok(true);
            }
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset += bytes.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::store::log::{Log, LogPosition, RecordTag, SEGMENT_HEADER_LEN, SegmentWriter, segment_path};

    #[test]
    fn scan_ends_cleanly_when_trailing_zeros_are_truncated_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::open(dir.path(), [7; 16], 1 << 30).unwrap());
        let log_end = log.replay(LogPosition::START, |_, _| io::Result::Ok(())).unwrap();
        let mut writer = SegmentWriter::new(log, &log_end).unwrap();
        writer.append_one(RecordTag::Message, Digest::compute(b"foo"), b"foo");
        let end = writer.end().offset;
        let file = File::options().read(true).write(true).open(segment_path(dir.path(), 1)).unwrap();
        file.set_len(2 * ReadAheadBuffer::READ_AHEAD_BYTES as u64).unwrap();
        let mut items = 0;
        let file = Arc::new(file);
        let scanner = SegmentScanner::new(file.clone(), 1, [7; 16], SEGMENT_HEADER_LEN, u64::MAX).unwrap();
        let end_of_scan = scan(scanner, |_| {
            items += 1;
            file.set_len(end)
        });
        assert_eq!((end_of_scan.unwrap(), items), (ScanEnd { offset: end, torn: Vec::new() }, 1));
    }
}
