//! A chunk of a segment in memory: its records, its gaps, and the comparison of its records with the index.

use std::io;
use std::thread;

use super::EMPTY_STEP;
use crate::message_store::{Damage, Error, VerifyStep};
use crate::store::local::Shared;
use crate::store::log::{self, LogPosition, RecordHeader, RecordLocation, SEGMENT_HEADER_LEN};

/// Length of a chunk in bytes, unless its first record is longer.
const CHUNK_BYTES: usize = 32 << 20;

/// Consecutive bytes of a segment, and their records.
pub(super) struct SegmentChunk<'a> {
    shared: &'a Shared,
    start: LogPosition,
    bytes: Vec<u8>,
    /// `true` if the chunk extends to the end of the segment.
    is_last: bool,
    /// Record headers with their index in `bytes`.
    records: Vec<(RecordHeader, usize)>,
    gaps: Vec<Damage>,
}

impl<'a> SegmentChunk<'a> {
    pub(super) fn new(shared: &'a Shared, start: LogPosition) -> Self {
        Self { shared, start, bytes: Vec::new(), is_last: true, records: Vec::new(), gaps: Vec::new() }
    }

    /// Reads the chunk and finds its records and gaps. Returns the start of the next chunk.
    pub(super) fn read(&mut self) -> io::Result<Option<LogPosition>> {
        let (log, LogPosition { segment, offset }) = (&self.shared.log, self.start);
        let end = log.durable_end();
        let segment_end = if segment == end.segment { Some(end.offset) } else { log.segment_len(segment)? };
        let remaining = usize::try_from(segment_end.unwrap_or(0).saturating_sub(offset)).unwrap_or(usize::MAX);
        let first_header = log.read_range(segment, offset, log::HEADER_LEN.min(remaining))?.unwrap_or_default();
        let first_record_len = self
            .decode_header(&first_header, 0)
            .map_or(0, |header| usize::try_from(header.record_len()).unwrap_or(usize::MAX));
        let length = CHUNK_BYTES.max(first_record_len).min(remaining);
        self.bytes = log.read_range(segment, offset, length)?.unwrap_or_default();
        self.is_last = length == remaining;
        let parsed = self.find_records();
        if !self.is_last {
            return Ok(Some(LogPosition { segment, offset: offset + parsed as u64 }));
        }
        let next = log.segment_ids().into_iter().find(|number| *number > segment && *number <= end.segment);
        Ok(next.map(|segment| LogPosition { segment, offset: SEGMENT_HEADER_LEN }))
    }

    /// Finds the records and gaps of the chunk. Returns the number of parsed bytes: a record or gap that continues
    /// after the chunk is left to the next one.
    fn find_records(&mut self) -> usize {
        let mut at = 0;
        while at < self.bytes.len() {
            let Some(header) = self.decode_header(&self.bytes, at) else {
                let next = self.next_header(at);
                if next == self.bytes.len() && !self.is_last && at > 0 {
                    return at;
                }
                // Zeros at the end of a segment are preallocated space.
                if next < self.bytes.len() || self.bytes[at..].iter().any(|byte| *byte != 0) {
                    let offset = self.start.offset + at as u64;
                    self.gaps.push(Damage::Gap { segment: self.start.segment, offset, length: (next - at) as u64 });
                }
                at = next;
                continue;
            };
            let record_len = usize::try_from(header.record_len()).unwrap_or(usize::MAX);
            let is_truncated = record_len > self.bytes.len() - at;
            if is_truncated && !self.is_last {
                return at;
            }
            self.records.push((header, at));
            at += if is_truncated { log::HEADER_LEN } else { record_len };
        }
        at
    }

    /// Returns the index of the next valid header after `at`, or the end of the chunk.
    fn next_header(&self, at: usize) -> usize {
        let mut candidates = (at + log::RECORD_ALIGN..self.bytes.len()).step_by(log::RECORD_ALIGN);
        candidates.find(|at| self.decode_header(&self.bytes, *at).is_some()).unwrap_or(self.bytes.len())
    }

    fn decode_header(&self, bytes: &[u8], at: usize) -> Option<RecordHeader> {
        self.shared.log.decode_header(bytes.get(at..)?, self.start.segment, self.start.offset + at as u64)
    }

    /// Hashes the records on all cores and compares them with the index.
    pub(super) fn verify(&self) -> Result<VerifyStep, Error> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // Each thread gets about as many bytes, because hashing dominates.
        let bytes_per_thread = self.bytes.len() / cores + 1;
        let mut bounds = vec![0];
        for (index, (_, at)) in self.records.iter().enumerate() {
            if *at >= bytes_per_thread * bounds.len() {
                bounds.push(index);
            }
        }
        bounds.push(self.records.len());
        let results: Result<Vec<_>, Error> = thread::scope(|scope| {
            let verify = |range: &[usize]| self.verify_records(&self.records[range[0]..range[1]]);
            let threads: Vec<_> = bounds.windows(2).map(|range| scope.spawn(move || verify(range))).collect();
            threads.into_iter().map(|thread| thread.join().expect("verifying records does not panic")).collect()
        });
        let mut step = VerifyStep { damage: self.gaps.clone(), ..EMPTY_STEP };
        for result in results? {
            step.messages += result.messages;
            step.bytes += result.bytes;
            step.damage.extend(result.damage);
        }
        Ok(step)
    }

    fn verify_records(&self, records: &[(RecordHeader, usize)]) -> Result<VerifyStep, Error> {
        let mut step = EMPTY_STEP;
        for (header, at) in records {
            let (digest, payload) = (header.digest, self.payload(header, *at));
            let location = RecordLocation::new(header, self.start.segment, self.start.offset + *at as u64, payload);
            let is_intact = log::payload_matches(header, payload);
            match self.shared.index.find(&digest)? {
                Some(indexed) if indexed == location && !is_intact => step.damage.push(Damage::Corrupt { digest }),
                Some(indexed) if indexed == location && location.is_message() => {
                    step.messages += 1;
                    step.bytes += u64::from(location.message_len);
                }
                // The index points to a later record of the digest, or to this record, which is a tombstone.
                Some(indexed) if indexed.log_position() >= location.log_position() => {}
                // The segment was compacted since it was read.
                _ if self.shared.log.segment_len(location.segment).is_ok_and(|length| length.is_none()) => {}
                _ if is_intact && location.is_message() => step.damage.push(Damage::Unindexed { digest }),
                _ => {}
            }
        }
        Ok(step)
    }

    /// Returns the stored bytes after a header, fewer where the segment ends.
    fn payload(&self, header: &RecordHeader, at: usize) -> &[u8] {
        let start = at + log::HEADER_LEN;
        &self.bytes[start.min(self.bytes.len())..(start + header.payload_len() as usize).min(self.bytes.len())]
    }
}
