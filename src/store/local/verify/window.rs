//! Part of a segment in memory: the records and the gaps in it, and what of them the index does not agree with.

use std::io;
use std::thread;

use super::NOTHING;
use crate::messages::{Damage, Error, Verified};
use crate::store::local::Core;
use crate::store::log::{self, FIRST_RECORD, Header, Point, Position};

/// Bytes of the log that a step reads, unless one record alone is longer.
const WINDOW: usize = 32 << 20;

/// Part of a segment, in memory.
pub(super) struct Window<'a> {
    core: &'a Core,
    start: Point,
    bytes: Vec<u8>,
    /// Whether the segment ends with it.
    is_last: bool,
    /// Each with where it begins in `bytes`.
    records: Vec<(Header, usize)>,
    gaps: Vec<Damage>,
}

impl<'a> Window<'a> {
    pub(super) fn new(core: &'a Core, start: Point) -> Self {
        Self { core, start, bytes: Vec::new(), is_last: true, records: Vec::new(), gaps: Vec::new() }
    }

    /// Reads the window and finds its records; answers where the next one begins.
    pub(super) fn read(&mut self) -> io::Result<Option<Point>> {
        let (log, Point { segment, offset }) = (&self.core.log, self.start);
        let end = log.end();
        let limit = if segment == end.segment { Some(end.offset) } else { log.length(segment)? };
        let left = usize::try_from(limit.unwrap_or(0).saturating_sub(offset)).unwrap_or(usize::MAX);
        let first = log.bytes(segment, offset, log::HEADER.min(left))?.unwrap_or_default();
        let first = self.decode(&first, 0).map_or(0, |header| usize::try_from(header.size()).unwrap_or(usize::MAX));
        let length = WINDOW.max(first).min(left);
        self.bytes = log.bytes(segment, offset, length)?.unwrap_or_default();
        self.is_last = length == left;
        let at = self.find_records();
        if !self.is_last {
            return Ok(Some(Point { segment, offset: offset + at as u64 }));
        }
        let next = log.numbers().into_iter().find(|number| *number > segment && *number <= end.segment);
        Ok(next.map(|segment| Point { segment, offset: FIRST_RECORD }))
    }

    /// Finds what is in the window; answers how much of it belongs to nothing that goes on behind it.
    fn find_records(&mut self) -> usize {
        let mut at = 0;
        while at < self.bytes.len() {
            let Some(header) = self.decode(&self.bytes, at) else {
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
            let size = usize::try_from(header.size()).unwrap_or(usize::MAX);
            let is_cut = size > self.bytes.len() - at;
            if is_cut && !self.is_last {
                return at;
            }
            self.records.push((header, at));
            at += if is_cut { log::HEADER } else { size };
        }
        at
    }

    /// Where the next header begins behind `at`, or the end.
    fn next_header(&self, at: usize) -> usize {
        let mut candidates = (at + log::ALIGN..self.bytes.len()).step_by(log::ALIGN);
        candidates.find(|at| self.decode(&self.bytes, *at).is_some()).unwrap_or(self.bytes.len())
    }

    fn decode(&self, bytes: &[u8], at: usize) -> Option<Header> {
        self.core.log.decode(bytes.get(at..)?, self.start.segment, self.start.offset + at as u64)
    }

    /// Hashes what was found and compares it with the index; on all cores.
    pub(super) fn compare(&self) -> Result<Verified, Error> {
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
            let compare = |share: &[usize]| self.compare_share(&self.records[share[0]..share[1]]);
            let threads: Vec<_> = shares.windows(2).map(|share| scope.spawn(move || compare(share))).collect();
            threads.into_iter().map(|thread| thread.join().expect("comparing does not panic")).collect()
        });
        let mut verified = Verified { damage: self.gaps.clone(), ..NOTHING };
        for share in found? {
            verified.messages += share.messages;
            verified.bytes += share.bytes;
            verified.damage.extend(share.damage);
        }
        Ok(verified)
    }

    fn compare_share(&self, records: &[(Header, usize)]) -> Result<Verified, Error> {
        let mut verified = NOTHING;
        for (header, at) in records {
            let (digest, stored) = (header.digest, self.stored(header, *at));
            let position = Position::of(header, self.start.segment, self.start.offset + *at as u64, stored);
            let is_whole = log::is_whole(header, stored);
            match self.core.index.find(&digest)? {
                Some(known) if known == position && !is_whole => verified.damage.push(Damage::Corrupt { digest }),
                Some(known) if known == position && position.is_message() => {
                    verified.messages += 1;
                    verified.bytes += u64::from(position.length);
                }
                // It was removed, stored anew, or moved.
                Some(known) if known.point() >= position.point() => {}
                _ if self.core.log.length(position.segment).is_ok_and(|length| length.is_none()) => {}
                _ if is_whole && position.is_message() => verified.damage.push(Damage::Unindexed { digest }),
                _ => {}
            }
        }
        Ok(verified)
    }

    /// The bytes behind a header, fewer where the segment ends.
    fn stored(&self, header: &Header, at: usize) -> &[u8] {
        let from = at + log::HEADER;
        &self.bytes[from.min(self.bytes.len())..(from + header.stored() as usize).min(self.bytes.len())]
    }
}
