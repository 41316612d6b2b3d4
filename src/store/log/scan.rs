//! Reads a segment from front to back and finds every complete record, whatever bytes are between them. Damage affects
//! only the record that it hits: after it, the scan searches for the next valid header.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::RecordLocation;
use super::compression;
use super::record::{HEADER_LEN, RECORD_ALIGN, RECORD_MAGIC, RecordHeader, RecordKind, Salt};

/// Item that a scan finds in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanItem {
    /// A message whose stored bytes hash to its digest, or a tombstone.
    Valid(RecordHeader, RecordLocation),
    /// A record with a valid header whose stored bytes do not hash to its digest.
    Corrupt(RecordHeader, RecordLocation),
    /// Bytes between records that are not a record: offset in the segment, and length.
    Gap(u64, u64),
}

/// End of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanEnd {
    /// Offset after the last complete record.
    pub offset: u64,
    /// Corrupt records and gaps after `offset`, up to the last valid header.
    pub torn: Vec<ScanItem>,
    /// `true` if the segment has only zeros after `offset`.
    pub clean: bool,
}

/// Scans the segment `number` from the offset `start`. Calls `visit` for each item before the end of the last complete
/// record.
pub fn scan<E: From<io::Error>>(
    file: &File,
    number: u32,
    salt: &Salt,
    start: u64,
    mut visit: impl FnMut(ScanItem) -> Result<(), E>,
) -> Result<ScanEnd, E> {
    let mut buffer = ReadAheadBuffer::new(file)?;
    let mut end = start;
    let mut torn = Vec::new();
    let mut offset = start;
    while let Some((at, header)) = next_header(&mut buffer, number, salt, offset)? {
        if at > offset {
            torn.push(ScanItem::Gap(offset, at - offset));
        }
        let payload = buffer.read(at + HEADER_LEN as u64, header.payload_len() as usize)?;
        let location = RecordLocation::new(&header, number, at, payload);
        if payload_matches(&header, payload) {
            torn.drain(..).try_for_each(&mut visit)?;
            visit(ScanItem::Valid(header, location))?;
            offset = at + header.record_len();
            end = offset;
        } else {
            torn.push(ScanItem::Corrupt(header, location));
            // The record may be torn and others may follow within its length, so the search continues after its header.
            offset = at + HEADER_LEN as u64;
        }
    }
    let clean = torn.is_empty() && buffer.is_zero_from(end)?;
    Ok(ScanEnd { offset: end, torn, clean })
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

/// Returns the first valid header at or after `offset`, and its offset.
fn next_header(
    buffer: &mut ReadAheadBuffer,
    number: u32,
    salt: &Salt,
    offset: u64,
) -> io::Result<Option<(u64, RecordHeader)>> {
    let mut at = offset;
    loop {
        let bytes = buffer.read_ahead(at, HEADER_LEN)?;
        let Some(last) = bytes.len().checked_sub(HEADER_LEN) else { return Ok(None) };
        for index in (0..=last).step_by(RECORD_ALIGN).filter(|index| bytes[*index..].starts_with(&RECORD_MAGIC)) {
            let offset = at + index as u64;
            if let Some(header) = RecordHeader::decode(&bytes[index..], salt, number, offset) {
                return Ok(Some((offset, header)));
            }
        }
        at += ((last / RECORD_ALIGN + 1) * RECORD_ALIGN) as u64;
    }
}

/// Part of a file in memory, which moves forward as the file is read.
struct ReadAheadBuffer<'a> {
    file: &'a File,
    file_len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> ReadAheadBuffer<'a> {
    /// Minimum number of bytes that are read at once.
    const READ_AHEAD_BYTES: usize = 1 << 18;

    fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self { file, file_len: file.metadata()?.len(), start: 0, bytes: Vec::new() })
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
            let count = read_up_to(self.file, &mut self.bytes, offset)?;
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
        let log = std::sync::Arc::new(Log::open(dir.path(), [7; 16], 1 << 30).unwrap());
        let log_end = log.replay(LogPosition::START, |_, _| io::Result::Ok(())).unwrap();
        let mut writer = SegmentWriter::new(log, &log_end).unwrap();
        writer.append_one(RecordTag::Message, Digest::compute(b"foo"), b"foo");
        let end = writer.end().offset;
        let file = File::options().read(true).write(true).open(segment_path(dir.path(), 1)).unwrap();
        file.set_len(2 * ReadAheadBuffer::READ_AHEAD_BYTES as u64).unwrap();
        let mut items = 0;
        let scanned = scan(&file, 1, &[7; 16], SEGMENT_HEADER_LEN, |_| {
            items += 1;
            file.set_len(end)
        });
        assert_eq!((scanned.unwrap(), items), (ScanEnd { offset: end, torn: Vec::new(), clean: true }, 1));
    }
}
