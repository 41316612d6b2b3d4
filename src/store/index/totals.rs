//! The sentinel: how far into the log the index is complete, and what it counts up to there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::store::log::{LogPosition, RecordLocation};

/// The index is complete up to a point of the log, with these totals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// All that stands in the log before this is in the index.
    pub position: LogPosition,
    /// How many messages.
    pub messages: u64,
    /// The sum of their lengths.
    pub bytes: u64,
    /// When the newest was stored, in seconds since 1970; 0 for none.
    pub newest_time: u32,
    /// How many bytes of each segment are needed: records that the index points to. A segment with none is not there.
    pub live_bytes: BTreeMap<u32, u64>,
}

/// What stands before the segments.
const FIXED_LEN: usize = 36;
/// A segment and its bytes.
const SEGMENT_ENTRY_LEN: usize = 12;

impl Totals {
    /// Of an empty index.
    pub const EMPTY: Self =
        Self { position: LogPosition::START, messages: 0, bytes: 0, newest_time: 0, live_bytes: BTreeMap::new() };

    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_LEN + SEGMENT_ENTRY_LEN * self.live_bytes.len());
        for number in [self.position.offset, self.messages, self.bytes] {
            bytes.extend(number.to_le_bytes());
        }
        let count = u32::try_from(self.live_bytes.len()).expect("segments are counted in 32 bits");
        for number in [self.position.segment, self.newest_time, count] {
            bytes.extend(number.to_le_bytes());
        }
        for (segment, live) in &self.live_bytes {
            bytes.extend(segment.to_le_bytes());
            bytes.extend(live.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Totals::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (fixed, each) = bytes.split_at_checked(FIXED_LEN)?;
        let [offset, messages, stored] = [0, 8, 16].map(|at| read_u64(fixed, at));
        let [segment, newest, count] = [24, 28, 32].map(|at| read_u32(fixed, at));
        let live: BTreeMap<_, _> =
            each.chunks_exact(SEGMENT_ENTRY_LEN).map(|one| (read_u32(one, 0), read_u64(one, 4))).collect();
        let is_whole = each.len() % SEGMENT_ENTRY_LEN == 0 && u32::try_from(live.len()) == Ok(count);
        let point = LogPosition { segment, offset };
        is_whole.then_some(Self { position: point, messages, bytes: stored, newest_time: newest, live_bytes: live })
    }
}

/// What entries change in all.
#[derive(Debug, Default)]
pub struct TotalsDelta {
    messages: i64,
    bytes: i64,
    newest_time: u32,
    live_bytes: BTreeMap<u32, i64>,
}

impl TotalsDelta {
    /// Counts that a digest's last record stood at one place and now stands at another.
    pub fn replace(&mut self, before: Option<RecordLocation>, after: Option<RecordLocation>) {
        for (position, sign) in [(before, -1), (after, 1)] {
            let Some(position) = position else { continue };
            *self.live_bytes.entry(position.segment).or_default() +=
                sign * i64::try_from(position.record_len()).unwrap_or(0);
            if position.is_message() {
                self.messages += sign;
                self.bytes += sign * i64::from(position.message_len);
            }
        }
        self.newest_time =
            after.filter(RecordLocation::is_message).map_or(self.newest_time, |after| self.newest_time.max(after.time));
    }

    /// Makes the change in the totals.
    pub fn apply(self, mark: &mut Totals) {
        mark.messages = mark.messages.saturating_add_signed(self.messages);
        mark.bytes = mark.bytes.saturating_add_signed(self.bytes);
        mark.newest_time = mark.newest_time.max(self.newest_time);
        for (segment, size) in self.live_bytes {
            let live = mark.live_bytes.entry(segment).or_default();
            *live = live.saturating_add_signed(size);
        }
        mark.live_bytes.retain(|_, live| *live > 0);
    }
}

/// The number of 32 bits at a place.
pub fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The number of 64 bits at a place.
pub fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(read_u32(bytes, at)) | u64::from(read_u32(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_round_trip_and_truncated_bytes_decode_to_none() {
        let point = LogPosition { segment: 7, offset: 1 << 40 };
        let live = BTreeMap::from([(1, 5), (7, 1 << 33)]);
        let mark = Totals { position: point, messages: 3, bytes: 1 << 50, newest_time: 9, live_bytes: live };
        let bytes = mark.encode();
        assert_eq!(Totals::decode(&bytes), Some(mark));
        assert_eq!(Totals::decode(&Totals::EMPTY.encode()), Some(Totals::EMPTY));
        for end in 0..bytes.len() {
            assert_eq!(Totals::decode(&bytes[..end]), None, "{end}");
        }
    }
}
