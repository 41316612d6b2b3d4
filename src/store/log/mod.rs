//! The log: append-only segment files that hold the messages. The log is the source of truth, and the index is rebuilt
//! from it. A synced record is never changed; space is only freed by deleting whole segments.

mod compression;
mod direct;
mod position;
mod record;
mod scan;
mod segment;
mod segment_set;
mod writer;

pub use compression::{compress, decompress};
pub use position::{LogPosition, RecordLocation};
pub use record::{HEADER_LEN, RecordHeader, RecordKind, RecordTag, Salt, to_system_time, unix_now};
pub use scan::{ScanItem, SegmentPart, payload_matches};
pub use segment::{SEGMENT_HEADER_LEN, recover_salt, segment_path};
pub use segment_set::{Log, LogEnd};
pub use writer::{APPENDED_SEGMENT, AppendError, Record, SegmentWriter};
