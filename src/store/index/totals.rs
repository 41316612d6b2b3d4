//! Totals: the position in the log up to which the index is complete, and counts of its entries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::block::Slot;
use crate::store::log::{LogPosition, RecordLocation};

/// Counts of the entries of an index, and the position in the log up to which it is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Position in the log: all records before it are in the index.
    pub position: LogPosition,
    /// Number of messages.
    pub messages: u64,
    /// Sum of the message lengths in bytes.
    pub bytes: u64,
    /// Time at which the newest message was stored, in seconds since 1970; 0 if there is none.
    pub newest_time: u32,
    /// Bytes of live records, to which the index points, by segment number. Segments without live bytes are absent.
    pub live_bytes: BTreeMap<u32, u64>,
}

impl Totals {
    /// Totals of an empty index.
    pub const EMPTY: Self =
        Self { position: LogPosition::START, messages: 0, bytes: 0, newest_time: 0, live_bytes: BTreeMap::new() };

    /// Encodes the totals for the manifest.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
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

    /// Decodes totals that [`Totals::encode`] encoded. Returns `None` if they are invalid.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let (offset, messages, bytes) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (segment, newest_time, count) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let live_bytes =
            (0..count).map(|_| Some((reader.u32()?, reader.u64()?))).collect::<Option<BTreeMap<_, _>>>()?;
        let is_valid = reader.is_at_end() && u32::try_from(live_bytes.len()) == Ok(count);
        let position = LogPosition { segment, offset };
        is_valid.then_some(Self { position, messages, bytes, newest_time, live_bytes })
    }
}

impl Default for Totals {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Change of the totals by a batch of entries.
#[derive(Debug, Default)]
pub struct TotalsDelta {
    messages: i64,
    bytes: i64,
    newest_time: u32,
    live_bytes: BTreeMap<u32, i64>,
}

impl TotalsDelta {
    /// Counts the replacement of a digest's slot `before` by `after`.
    pub fn replace(&mut self, before: Slot, after: Slot) {
        for (slot, sign) in [(before, -1), (after, 1)] {
            let Some(location) = slot else { continue };
            *self.live_bytes.entry(location.segment).or_default() +=
                sign * i64::try_from(location.record_len()).unwrap_or(0);
            if location.is_message() {
                self.messages += sign;
                self.bytes += sign * i64::from(location.message_len);
            }
        }
        self.newest_time =
            after.filter(RecordLocation::is_message).map_or(self.newest_time, |after| self.newest_time.max(after.time));
    }

    /// Applies the change to `totals`.
    pub fn apply(self, totals: &mut Totals) {
        totals.messages = totals.messages.saturating_add_signed(self.messages);
        totals.bytes = totals.bytes.saturating_add_signed(self.bytes);
        totals.newest_time = totals.newest_time.max(self.newest_time);
        for (segment, change) in self.live_bytes {
            let live = totals.live_bytes.entry(segment).or_default();
            *live = live.saturating_add_signed(change);
        }
        totals.live_bytes.retain(|_, live| *live > 0);
    }
}

/// The bytes that are not decoded yet. Every method returns `None` if too few are left. Numbers are little-endian.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Reads the next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, remaining) = self.0.split_at_checked(count)?;
        self.0 = remaining;
        Some(bytes)
    }

    /// Reads the next four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    /// Reads the next eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    /// Reads the next eight bytes.
    pub fn usize(&mut self) -> Option<usize> {
        usize::try_from(self.u64()?).ok()
    }

    /// Returns whether all bytes have been read.
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_round_trip_and_truncated_bytes_decode_to_none() {
        let position = LogPosition { segment: 7, offset: 1 << 40 };
        let live_bytes = BTreeMap::from([(1, 5), (7, 1 << 33)]);
        let totals = Totals { position, messages: 3, bytes: 1 << 50, newest_time: 9, live_bytes };
        let bytes = totals.encode();
        assert_eq!(Totals::decode(&bytes), Some(totals));
        assert_eq!(Totals::decode(&Totals::EMPTY.encode()), Some(Totals::EMPTY));
        for end in 0..bytes.len() {
            assert_eq!(Totals::decode(&bytes[..end]), None, "{end}");
        }
    }
}
