//! Reads a segment from front to back and finds every record that is whole, whatever stands between them.
//! Damage costs the record that it hits, no other: after it the scan looks for the next header that counts.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::RecordLocation;
use super::compression;
use super::record::{HEADER_LEN, RECORD_ALIGN, RECORD_MAGIC, RecordHeader, RecordKind, Salt};

/// What the scan comes upon, with the offset in the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanItem {
    /// A record whose bytes hash to its digest, or one that has none.
    Valid(RecordHeader, RecordLocation),
    /// A record whose header counts, but whose bytes do not hash to its digest.
    Corrupt(RecordHeader, RecordLocation),
    /// So many bytes, between records, that are none.
    Gap(u64, u64),
}

/// How a segment ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanEnd {
    /// Just behind the last whole record.
    pub offset: u64,
    /// What stands behind it and is neither a whole record nor zeros.
    pub torn: Vec<ScanItem>,
    /// Whether anything but zeros stands behind it.
    pub clean: bool,
}

/// Scans the segment `number` from `start`, calling `visit` for all that stands before its end.
pub fn scan<E: From<io::Error>>(
    file: &File,
    number: u32,
    salt: &Salt,
    start: u64,
    mut visit: impl FnMut(ScanItem) -> Result<(), E>,
) -> Result<ScanEnd, E> {
    let mut window = ReadAheadBuffer::new(file)?;
    let mut end = start;
    let mut torn = Vec::new();
    let mut offset = start;
    while let Some((at, header)) = next_header(&mut window, number, salt, offset)? {
        if at > offset {
            torn.push(ScanItem::Gap(offset, at - offset));
        }
        let bytes = window.read(at + HEADER_LEN as u64, header.payload_len() as usize)?;
        let position = RecordLocation::new(&header, number, at, bytes);
        if checksum_ok(&header, bytes) {
            torn.drain(..).try_for_each(&mut visit)?;
            visit(ScanItem::Valid(header, position))?;
            offset = at + header.record_len();
            end = offset;
        } else {
            torn.push(ScanItem::Corrupt(header, position));
            // Its length may be right or not; only a search from here misses nothing.
            offset = at + HEADER_LEN as u64;
        }
    }
    let clean = torn.is_empty() && window.is_zero_from(end)?;
    Ok(ScanEnd { offset: end, torn, clean })
}

/// Fills `bytes` from `offset` on and says how many there were: fewer at the end of the file.
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

/// Whether `bytes`, which stand behind `header`, are what it says.
pub fn checksum_ok(header: &RecordHeader, bytes: &[u8]) -> bool {
    let names = |message: &[u8]| header.digest.matches(message);
    bytes.len() == header.payload_len() as usize
        && match header.kind {
            RecordKind::Message => names(bytes),
            RecordKind::Compressed => compression::decompress(bytes).is_some_and(|message| names(&message)),
            RecordKind::Tombstone => true,
        }
}

/// The next header at or behind `offset`, and where it stands.
fn next_header(
    window: &mut ReadAheadBuffer,
    number: u32,
    salt: &Salt,
    offset: u64,
) -> io::Result<Option<(u64, RecordHeader)>> {
    let mut at = offset;
    loop {
        let bytes = window.read_ahead(at, HEADER_LEN)?;
        let Some(last) = bytes.len().checked_sub(HEADER_LEN) else { return Ok(None) };
        // Most of what is no header does not even begin like one.
        for begin in (0..=last).step_by(RECORD_ALIGN).filter(|begin| bytes[*begin..].starts_with(&RECORD_MAGIC)) {
            let place = at + begin as u64;
            if let Some(header) = RecordHeader::decode(&bytes[begin..], salt, number, place) {
                return Ok(Some((place, header)));
            }
        }
        at += ((last / RECORD_ALIGN + 1) * RECORD_ALIGN) as u64;
    }
}

/// The part of a file that is in memory; it moves forward as it is read.
struct ReadAheadBuffer<'a> {
    file: &'a File,
    file_len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> ReadAheadBuffer<'a> {
    /// What is read ahead.
    const READ_AHEAD_BYTES: usize = 1 << 18;

    fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self { file, file_len: file.metadata()?.len(), start: 0, bytes: Vec::new() })
    }

    /// `length` bytes from `offset`, fewer at the end of the file.
    fn read(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        self.read_ahead(offset, length).map(|bytes| &bytes[..length.min(bytes.len())])
    }

    /// The same, and what is in memory behind them.
    fn read_ahead(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let available = usize::try_from(self.file_len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(available);
        let held = self.start..=self.start + self.bytes.len() as u64;
        if !held.contains(&offset) || !held.contains(&(offset + length as u64)) {
            self.bytes.resize(length.max(Self::READ_AHEAD_BYTES).min(available), 0);
            let count = read_up_to(self.file, &mut self.bytes, offset)?;
            // It has become shorter meanwhile. What was cut off is no record: zeros, or a group that failed.
            if count < self.bytes.len() {
                self.bytes.truncate(count);
                self.file_len = offset + count as u64;
            }
            self.start = offset;
        }
        let from = usize::try_from(offset - self.start).expect("it fits in the window");
        Ok(&self.bytes[from..])
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
    use crate::store::log::{Log, LogPosition, SEGMENT_HEADER_LEN, SegmentWriter, segment_path};

    #[test]
    fn scan_ends_cleanly_when_trailing_zeros_are_truncated_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let log = std::sync::Arc::new(Log::open(dir.path(), [7; 16], 1 << 30).unwrap());
        let tail = log.replay(LogPosition::START, |_, _| io::Result::Ok(())).unwrap();
        let mut appender = SegmentWriter::new(log, &tail).unwrap();
        appender.append_one(RecordKind::Message, Digest::compute(b"foo"), b"foo");
        let end = appender.end().offset;
        let file = File::options().read(true).write(true).open(segment_path(dir.path(), 1)).unwrap();
        file.set_len(2 * ReadAheadBuffer::READ_AHEAD_BYTES as u64).unwrap();
        let mut found = 0;
        let scanned = scan(&file, 1, &[7; 16], SEGMENT_HEADER_LEN, |_| {
            found += 1;
            file.set_len(end)
        });
        assert_eq!((scanned.unwrap(), found), (ScanEnd { offset: end, torn: Vec::new(), clean: true }, 1));
    }
}
