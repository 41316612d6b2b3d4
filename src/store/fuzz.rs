//! Properties of the log scanner that hold for any input.

use std::io;

use super::log::{Log, LogPosition, SEGMENT_HEADER_LEN, ScanItem, payload_matches, recover_salt, segment_path};

/// Replays a log with one segment, which consists of `bytes`. Asserts that the items are in order and within the file,
/// and that the stored bytes of each valid record hash to its digest.
pub fn check_log(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a temporary directory can be created");
    std::fs::write(segment_path(dir.path(), 1), bytes).expect("a temporary file can be written");
    let salt = recover_salt(dir.path()).expect("the segment can be read").unwrap_or_default();
    let log = Log::open(dir.path(), salt, 1 << 30).expect("the segment can be opened");
    let mut offset = SEGMENT_HEADER_LEN;
    let check = |segment: u32, item: ScanItem| -> io::Result<()> {
        let (start, end) = match item {
            ScanItem::Gap(start, length) => (start, start + length),
            // The search continues after the header of a corrupt record.
            ScanItem::Corrupt(_, location) => (location.offset, location.offset),
            ScanItem::Valid(header, location) => {
                let payload = log.read(&location)?.expect("a valid record is complete");
                assert!(payload_matches(&header, &payload) && log.read_header(&location)? == Some(header));
                (location.offset, location.end().offset)
            }
        };
        assert!(segment == 1 && start >= offset && end >= start, "{item:?} after {offset}");
        offset = end;
        Ok(())
    };
    let log_end = log.replay(LogPosition::START, check).expect("the segment can be read");
    assert!(log_end.end.offset >= SEGMENT_HEADER_LEN);
}

#[cfg(test)]
mod tests {
    #[test]
    fn mutated_segments_are_scanned_to_their_end() {
        crate::testing::check_mutated_corpus("log", 3_000, super::check_log);
    }
}
