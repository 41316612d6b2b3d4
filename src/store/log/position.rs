//! Where records stand: positions of records, and points between them.

use serde::{Deserialize, Serialize};

use super::compression;
use super::files::FIRST_RECORD;
use super::record::{self, Header, Kind};

/// Where a record stands, and what is known of it without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// What it says.
    pub kind: Kind,
    /// The number of the segment.
    pub segment: u32,
    /// Of the record's header; a multiple of 8.
    pub offset: u64,
    /// How many bytes follow the header.
    pub stored: u32,
    /// The length of the message.
    pub length: u32,
    /// When it was stored, in seconds since 1970.
    pub time: u32,
}

impl Position {
    /// Of a record at an offset of a segment, with `bytes` behind its header.
    pub fn of(header: &Header, segment: u32, offset: u64, bytes: &[u8]) -> Self {
        let stored = header.stored();
        let length = match header.kind {
            Kind::Compressed => compression::length(bytes).unwrap_or(stored),
            Kind::Message | Kind::Removal => stored,
        };
        Self { kind: header.kind, segment, offset, stored, length, time: header.time }
    }

    /// Whether a message stands there.
    pub fn is_message(&self) -> bool {
        self.kind != Kind::Removal
    }

    /// What the record takes in the log, in bytes.
    pub fn size(&self) -> u64 {
        record::size(self.stored)
    }

    /// Where in the log it stands.
    pub fn point(&self) -> Point {
        Point { segment: self.segment, offset: self.offset }
    }

    /// Where in the log it ends.
    pub fn end(&self) -> Point {
        Point { segment: self.segment, offset: self.offset + self.size() }
    }
}

/// A point between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Point {
    /// The number of the segment.
    pub segment: u32,
    /// In the segment.
    pub offset: u64,
}

impl Point {
    /// Before all records.
    pub const START: Self = Self { segment: 1, offset: FIRST_RECORD };
}
