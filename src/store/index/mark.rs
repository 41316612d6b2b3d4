//! The sentinel: how far into the log the index is complete, and what it counts up to there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::store::log::{Point, Position};

/// The index is complete up to a point of the log, with these totals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// All that stands in the log before this is in the index.
    pub point: Point,
    /// How many messages.
    pub messages: u64,
    /// The sum of their lengths.
    pub bytes: u64,
    /// When the newest was stored, in seconds since 1970; 0 for none.
    pub newest: u32,
    /// How many bytes of each segment are needed: records that the index points to. A segment with none is not there.
    pub live: BTreeMap<u32, u64>,
}

/// What stands before the segments.
const FIXED: usize = 36;
/// A segment and its bytes.
const EACH: usize = 12;

impl Mark {
    /// Of an empty index.
    pub const EMPTY: Self = Self { point: Point::START, messages: 0, bytes: 0, newest: 0, live: BTreeMap::new() };

    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + EACH * self.live.len());
        for number in [self.point.offset, self.messages, self.bytes] {
            bytes.extend(number.to_le_bytes());
        }
        let count = u32::try_from(self.live.len()).expect("segments are counted in 32 bits");
        for number in [self.point.segment, self.newest, count] {
            bytes.extend(number.to_le_bytes());
        }
        for (segment, live) in &self.live {
            bytes.extend(segment.to_le_bytes());
            bytes.extend(live.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Mark::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (fixed, each) = bytes.split_at_checked(FIXED)?;
        let [offset, messages, stored] = [0, 8, 16].map(|at| long(fixed, at));
        let [segment, newest, count] = [24, 28, 32].map(|at| short(fixed, at));
        let live: BTreeMap<_, _> = each.chunks_exact(EACH).map(|one| (short(one, 0), long(one, 4))).collect();
        let is_whole = each.len() % EACH == 0 && u32::try_from(live.len()) == Ok(count);
        let point = Point { segment, offset };
        is_whole.then_some(Self { point, messages, bytes: stored, newest, live })
    }
}

/// What entries change in all.
#[derive(Debug, Default)]
pub struct Change {
    messages: i64,
    bytes: i64,
    newest: u32,
    live: BTreeMap<u32, i64>,
}

impl Change {
    /// Counts that a digest's last record stood at one place and now stands at another.
    pub fn count(&mut self, before: Option<Position>, after: Option<Position>) {
        for (position, sign) in [(before, -1), (after, 1)] {
            let Some(position) = position else { continue };
            *self.live.entry(position.segment).or_default() += sign * i64::try_from(position.size()).unwrap_or(0);
            if position.is_message() {
                self.messages += sign;
                self.bytes += sign * i64::from(position.length);
            }
        }
        self.newest = after.filter(Position::is_message).map_or(self.newest, |after| self.newest.max(after.time));
    }

    /// Makes the change in the totals.
    pub fn apply(self, mark: &mut Mark) {
        mark.messages = mark.messages.saturating_add_signed(self.messages);
        mark.bytes = mark.bytes.saturating_add_signed(self.bytes);
        mark.newest = mark.newest.max(self.newest);
        for (segment, size) in self.live {
            let live = mark.live.entry(segment).or_default();
            *live = live.saturating_add_signed(size);
        }
        mark.live.retain(|_, live| *live > 0);
    }
}

/// The number of 32 bits at a place.
pub fn short(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The number of 64 bits at a place.
pub fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(short(bytes, at)) | u64::from(short(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_and_a_cut_one_is_none() {
        let point = Point { segment: 7, offset: 1 << 40 };
        let live = BTreeMap::from([(1, 5), (7, 1 << 33)]);
        let mark = Mark { point, messages: 3, bytes: 1 << 50, newest: 9, live };
        let bytes = mark.encode();
        assert_eq!(Mark::decode(&bytes), Some(mark));
        assert_eq!(Mark::decode(&Mark::EMPTY.encode()), Some(Mark::EMPTY));
        for end in 0..bytes.len() {
            assert_eq!(Mark::decode(&bytes[..end]), None, "{end}");
        }
    }
}
