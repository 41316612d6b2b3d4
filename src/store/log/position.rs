//! Places in the log: the location of a record, and positions between records.

use serde::{Deserialize, Serialize};

use super::compression;
use super::record::{self, RecordHeader, RecordKind, RecordTag};
use super::segment::SEGMENT_HEADER_LEN;

/// Location of a record, and the properties that are known without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLocation {
    /// Kind of the record.
    pub kind: RecordTag,
    /// Number of the segment.
    pub segment: u32,
    /// Offset of the record's header in the segment; a multiple of 8.
    pub offset: u64,
    /// Number of stored bytes after the header.
    pub payload_len: u32,
    /// Length of the message in bytes.
    pub message_len: u32,
    /// Time of storage, in seconds since 1970.
    pub time: u32,
}

impl RecordLocation {
    /// Creates the location of a record from its place, its header and the `payload` after the header.
    pub fn new(header: &RecordHeader, segment: u32, offset: u64, payload: &[u8]) -> Self {
        let payload_len = header.payload_len();
        let message_len = match header.kind {
            RecordKind::Compressed { len } => compression::uncompressed_len(payload).unwrap_or(len),
            RecordKind::Message { .. } | RecordKind::Tombstone { .. } => payload_len,
        };
        Self { kind: header.kind.tag(), segment, offset, payload_len, message_len, time: header.time }
    }

    /// Returns whether the record holds a message, so is not a tombstone.
    pub fn is_message(&self) -> bool {
        self.kind != RecordTag::Tombstone
    }

    /// Returns the length of the record in bytes, header and padding included.
    pub fn record_len(&self) -> u64 {
        record::record_len_for(self.payload_len)
    }

    /// Returns the position of the record's first byte.
    pub fn log_position(&self) -> LogPosition {
        LogPosition { segment: self.segment, offset: self.offset }
    }

    /// Returns the position after the record.
    pub fn end(&self) -> LogPosition {
        LogPosition { segment: self.segment, offset: self.offset + self.record_len() }
    }
}

/// Position in the log, at the beginning or the end of a record. Positions are ordered like the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    /// Number of the segment.
    pub segment: u32,
    /// Offset in the segment, in bytes.
    pub offset: u64,
}

impl LogPosition {
    /// Position before all records.
    pub const START: Self = Self { segment: 1, offset: SEGMENT_HEADER_LEN };
}
