//! A chunk of a segment in memory: its records, its gaps, and the comparison of its records with the index.

use std::io;
use std::thread;

use crate::message_store::{Damage, Error, VerifyStep};
use crate::store::local::shared::Shared;
use crate::store::log::{self, LogPosition, RecordHeader, RecordLocation, SEGMENT_HEADER_LEN, SegmentPart};

/// Stored bytes of the records after which a chunk ends.
const CHUNK_BYTES: usize = 32 << 20;

/// Consecutive records of a segment with their stored bytes, and the gaps between them.
pub(super) struct SegmentChunk<'a> {
    shared: &'a Shared,
    records: Vec<ChunkRecord>,
    /// Number of stored bytes of all records.
    bytes: usize,
    gaps: Vec<Damage>,
}

/// Record with its stored bytes, fewer where the segment ends.
struct ChunkRecord {
    header: RecordHeader,
    location: RecordLocation,
    payload: Vec<u8>,
    /// Number of stored bytes of the records before this one.
    at: usize,
}

impl<'a> SegmentChunk<'a> {
    /// Reads the chunk at `start`. Also returns the start of the next chunk.
    pub(super) fn read(shared: &'a Shared, start: LogPosition) -> io::Result<(Self, Option<LogPosition>)> {
        let mut chunk = Self { shared, records: Vec::new(), bytes: 0, gaps: Vec::new() };
        let (log, end) = (&shared.log, shared.log.durable_end());
        let limit = if start.segment == end.segment { end.offset } else { u64::MAX };
        if let Some(mut scanner) = log.scanner(start, limit)? {
            while let Some(part) = scanner.next_part()? {
                match part {
                    SegmentPart::Gap(offset, length) => {
                        chunk.gaps.push(Damage::Gap { segment: start.segment, offset, length });
                    }
                    SegmentPart::Record(header, location) => {
                        let (payload, at) = (scanner.payload()?.to_vec(), chunk.bytes);
                        let is_complete = payload.len() == header.payload_len() as usize;
                        chunk.bytes += payload.len() + log::HEADER_LEN;
                        chunk.records.push(ChunkRecord { header, location, payload, at });
                        if is_complete && chunk.bytes >= CHUNK_BYTES {
                            return Ok((chunk, Some(LogPosition { offset: scanner.offset(), ..start })));
                        }
                    }
                }
            }
        }
        let next = log.segment_ids().into_iter().find(|number| *number > start.segment && *number <= end.segment);
        Ok((chunk, next.map(|segment| LogPosition { segment, offset: SEGMENT_HEADER_LEN })))
    }

    /// Hashes the records on all cores and compares them with the index.
    pub(super) fn verify(&self) -> Result<VerifyStep, Error> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // Each thread gets about as many bytes, because hashing dominates.
        let bytes_per_thread = self.bytes / cores + 1;
        let mut bounds = vec![0];
        for (index, record) in self.records.iter().enumerate() {
            if record.at >= bytes_per_thread * bounds.len() {
                bounds.push(index);
            }
        }
        bounds.push(self.records.len());
        let results: Result<Vec<_>, Error> = thread::scope(|scope| {
            let verify = |range: &[usize]| self.verify_records(&self.records[range[0]..range[1]]);
            let threads: Vec<_> = bounds.windows(2).map(|range| scope.spawn(move || verify(range))).collect();
            threads.into_iter().map(|thread| thread.join().expect("verifying records does not panic")).collect()
        });
        let mut step = VerifyStep { damage: self.gaps.clone(), ..VerifyStep::EMPTY };
        for result in results? {
            step.messages += result.messages;
            step.bytes += result.bytes;
            step.damage.extend(result.damage);
        }
        Ok(step)
    }

    fn verify_records(&self, records: &[ChunkRecord]) -> Result<VerifyStep, Error> {
        let mut step = VerifyStep::EMPTY;
        for ChunkRecord { header, location, payload, .. } in records {
            let (digest, location) = (header.digest, *location);
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
}
