//! Where records stand: positions of records, and points between them.

use serde::{Deserialize, Serialize};

use super::compression;
use super::record::{self, RecordHeader, RecordKind};
use super::segment::SEGMENT_HEADER_LEN;

/// Where a record stands, and what is known of it without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLocation {
    /// What it says.
    pub kind: RecordKind,
    /// The number of the segment.
    pub segment: u32,
    /// Of the record's header; a multiple of 8.
    pub offset: u64,
    /// How many bytes follow the header.
    pub payload_len: u32,
    /// The length of the message.
    pub message_len: u32,
    /// When it was stored, in seconds since 1970.
    pub time: u32,
}

impl RecordLocation {
    /// Of a record at an offset of a segment, with `bytes` behind its header.
    pub fn new(header: &RecordHeader, segment: u32, offset: u64, bytes: &[u8]) -> Self {
        let stored = header.payload_len();
        let length = match header.kind {
            RecordKind::Compressed => compression::uncompressed_len(bytes).unwrap_or(stored),
            RecordKind::Message | RecordKind::Tombstone => stored,
        };
        Self { kind: header.kind, segment, offset, payload_len: stored, message_len: length, time: header.time }
    }

    /// Whether a message stands there.
    pub fn is_message(&self) -> bool {
        self.kind != RecordKind::Tombstone
    }

    /// What the record takes in the log, in bytes.
    pub fn record_len(&self) -> u64 {
        record::record_len_for(self.payload_len)
    }

    /// Where in the log it stands.
    pub fn log_position(&self) -> LogPosition {
        LogPosition { segment: self.segment, offset: self.offset }
    }

    /// Where in the log it ends.
    pub fn end(&self) -> LogPosition {
        LogPosition { segment: self.segment, offset: self.offset + self.record_len() }
    }
}

/// A point between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    /// The number of the segment.
    pub segment: u32,
    /// In the segment.
    pub offset: u64,
}

impl LogPosition {
    /// Before all records.
    pub const START: Self = Self { segment: 1, offset: SEGMENT_HEADER_LEN };
}
