//! Part of a segment in memory: the records and the gaps in it, and what of them the index does not agree with.

use std::io;
use std::thread;

use super::EMPTY;
use crate::message_store::{Damage, Error, VerifyStep};
use crate::store::local::Shared;
use crate::store::log::{self, LogPosition, RecordHeader, RecordLocation, SEGMENT_HEADER_LEN};

/// Bytes of the log that a step reads, unless one record alone is longer.
const CHUNK_BYTES: usize = 32 << 20;

/// Part of a segment, in memory.
pub(super) struct SegmentChunk<'a> {
    shared: &'a Shared,
    start: LogPosition,
    bytes: Vec<u8>,
    /// Whether the segment ends with it.
    is_last: bool,
    /// Each with where it begins in `bytes`.
    records: Vec<(RecordHeader, usize)>,
    gaps: Vec<Damage>,
}

impl<'a> SegmentChunk<'a> {
    pub(super) fn new(core: &'a Shared, start: LogPosition) -> Self {
        Self { shared: core, start, bytes: Vec::new(), is_last: true, records: Vec::new(), gaps: Vec::new() }
    }

    /// Reads the window and finds its records; answers where the next one begins.
    pub(super) fn read(&mut self) -> io::Result<Option<LogPosition>> {
        let (log, LogPosition { segment, offset }) = (&self.shared.log, self.start);
        let end = log.durable_end();
        let limit = if segment == end.segment { Some(end.offset) } else { log.segment_len(segment)? };
        let left = usize::try_from(limit.unwrap_or(0).saturating_sub(offset)).unwrap_or(usize::MAX);
        let first = log.read_range(segment, offset, log::HEADER_LEN.min(left))?.unwrap_or_default();
        let first = self
            .decode_header(&first, 0)
            .map_or(0, |header| usize::try_from(header.record_len()).unwrap_or(usize::MAX));
        let length = CHUNK_BYTES.max(first).min(left);
        self.bytes = log.read_range(segment, offset, length)?.unwrap_or_default();
        self.is_last = length == left;
        let at = self.find_records();
        if !self.is_last {
            return Ok(Some(LogPosition { segment, offset: offset + at as u64 }));
        }
        let next = log.segment_ids().into_iter().find(|number| *number > segment && *number <= end.segment);
        Ok(next.map(|segment| LogPosition { segment, offset: SEGMENT_HEADER_LEN }))
    }

    /// Finds what is in the window; answers how much of it belongs to nothing that goes on behind it.
    fn find_records(&mut self) -> usize {
        let mut at = 0;
        while at < self.bytes.len() {
            let Some(header) = self.decode_header(&self.bytes, at) else {
                let next = self.next_header(at);
                if next == self.bytes.len() && !self.is_last && at > 0 {
                    return at;
                }
                // Zeros at the end of a segment are space that was made ahead of time.
                if next < self.bytes.len() || self.bytes[at..].iter().any(|byte| *byte != 0) {
                    let offset = self.start.offset + at as u64;
                    self.gaps.push(Damage::Gap { segment: self.start.segment, offset, length: (next - at) as u64 });
                }
                at = next;
                continue;
            };
            let size = usize::try_from(header.record_len()).unwrap_or(usize::MAX);
            let is_cut = size > self.bytes.len() - at;
            if is_cut && !self.is_last {
                return at;
            }
            self.records.push((header, at));
            at += if is_cut { log::HEADER_LEN } else { size };
        }
        at
    }

    /// Where the next header begins behind `at`, or the end.
    fn next_header(&self, at: usize) -> usize {
        let mut candidates = (at + log::RECORD_ALIGN..self.bytes.len()).step_by(log::RECORD_ALIGN);
        candidates.find(|at| self.decode_header(&self.bytes, *at).is_some()).unwrap_or(self.bytes.len())
    }

    fn decode_header(&self, bytes: &[u8], at: usize) -> Option<RecordHeader> {
        self.shared.log.decode_header(bytes.get(at..)?, self.start.segment, self.start.offset + at as u64)
    }

    /// Hashes what was found and compares it with the index; on all cores.
    pub(super) fn verify(&self) -> Result<VerifyStep, Error> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // Shares of about as many bytes: whoever hashes has most to do with those.
        let share = self.bytes.len() / cores + 1;
        let mut shares = vec![0];
        for (index, (_, at)) in self.records.iter().enumerate() {
            if *at >= share * shares.len() {
                shares.push(index);
            }
        }
        shares.push(self.records.len());
        let found: Result<Vec<_>, Error> = thread::scope(|scope| {
            let compare = |share: &[usize]| self.verify_partition(&self.records[share[0]..share[1]]);
            let threads: Vec<_> = shares.windows(2).map(|share| scope.spawn(move || compare(share))).collect();
            threads.into_iter().map(|thread| thread.join().expect("comparing does not panic")).collect()
        });
        let mut verified = VerifyStep { damage: self.gaps.clone(), ..EMPTY };
        for share in found? {
            verified.messages += share.messages;
            verified.bytes += share.bytes;
            verified.damage.extend(share.damage);
        }
        Ok(verified)
    }

    fn verify_partition(&self, records: &[(RecordHeader, usize)]) -> Result<VerifyStep, Error> {
        let mut verified = EMPTY;
        for (header, at) in records {
            let (digest, stored) = (header.digest, self.payload(header, *at));
            let position = RecordLocation::new(header, self.start.segment, self.start.offset + *at as u64, stored);
            let is_whole = log::checksum_ok(header, stored);
            match self.shared.index.find(&digest)? {
                Some(known) if known == position && !is_whole => verified.damage.push(Damage::Corrupt { digest }),
                Some(known) if known == position && position.is_message() => {
                    verified.messages += 1;
                    verified.bytes += u64::from(position.message_len);
                }
                // It was removed, stored anew, or moved.
                Some(known) if known.log_position() >= position.log_position() => {}
                _ if self.shared.log.segment_len(position.segment).is_ok_and(|length| length.is_none()) => {}
                _ if is_whole && position.is_message() => verified.damage.push(Damage::Unindexed { digest }),
                _ => {}
            }
        }
        Ok(verified)
    }

    /// The bytes behind a header, fewer where the segment ends.
    fn payload(&self, header: &RecordHeader, at: usize) -> &[u8] {
        let from = at + log::HEADER_LEN;
        &self.bytes[from.min(self.bytes.len())..(from + header.payload_len() as usize).min(self.bytes.len())]
    }
}
