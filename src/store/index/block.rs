//! Index blocks: up to [`BLOCK_ENTRIES`] entries, sorted by digest, in one page. Digests are evenly distributed, so a
//! decoded block is searched by interpolation.

use super::error::IndexError;
use crate::digest::Digest;
use crate::store::log::{RecordLocation, RecordTag};

/// Maximum number of entries in a block. A full block compresses to just below 64 KiB, a slot size of sled's slabs.
pub const BLOCK_ENTRIES: usize = 1600;
/// Length of an encoded entry in bytes, before compression: digest, kind, and columns.
const ENTRY_LEN: usize = 32 + 1 + COLUMNS * 4;
/// Number of `u32` columns of an entry.
const COLUMNS: usize = 5;

/// Location of a digest's last record. `None`: the log has no record of the digest; entries in older runs are obsolete.
pub type Slot = Option<RecordLocation>;

/// A digest and its slot.
pub type IndexEntry = (Digest, Slot);

/// A decoded block. The two lists have the same length.
#[derive(Debug)]
pub struct Block {
    digests: Vec<Digest>,
    slots: Vec<Slot>,
}

/// Encodes a block: all digests, all kinds, then each column as four byte planes, lowest byte first. Similar bytes are
/// adjacent, so that a fast compression level is effective.
pub fn encode(entries: &[IndexEntry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_LEN);
    bytes.extend(entries.iter().flat_map(|(digest, _)| digest.as_bytes()));
    bytes.extend(entries.iter().map(|(_, slot)| slot.map_or(0, |location| location.kind as u8)));
    for column in 0..COLUMNS {
        let numbers = entries.iter().map(|(_, slot)| slot.map_or([0; COLUMNS], to_columns)[column]);
        let numbers: Vec<_> = numbers.map(u32::to_le_bytes).collect();
        for plane in 0..4 {
            bytes.extend(numbers.iter().map(|number| number[plane]));
        }
    }
    bytes
}

fn to_columns(location: RecordLocation) -> [u32; COLUMNS] {
    let offset = u32::try_from(location.offset / 8).expect("a segment is shorter than 32 GiB");
    let RecordLocation { segment, payload_len, message_len, time, .. } = location;
    // The lengths of an uncompressed message are equal, which gives a column of zeros.
    [segment, offset, payload_len, payload_len ^ message_len, time]
}

/// Joins the four byte planes of a column.
fn decode_column(bytes: &[u8]) -> Vec<u32> {
    let (low, high) = bytes.split_at(bytes.len() / 2);
    let [(first, second), (third, fourth)] = [low, high].map(|half| half.split_at(half.len() / 2));
    let numbers = first.iter().zip(second).zip(third).zip(fourth);
    numbers.map(|(((first, second), third), fourth)| u32::from_le_bytes([*first, *second, *third, *fourth])).collect()
}

impl Block {
    /// Decodes a block that [`encode`] encoded. Fails if the length, a kind or the order of the digests is invalid.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let count = bytes.len() / ENTRY_LEN;
        if bytes.is_empty() || !bytes.len().is_multiple_of(ENTRY_LEN) {
            return Err(IndexError::corrupt("invalid length of an index block"));
        }
        let (digests, bytes) = bytes.split_at(count * 32);
        let (kinds, bytes) = bytes.split_at(count);
        let digests: Vec<_> = digests.as_chunks().0.iter().map(|bytes| Digest::from_bytes(*bytes)).collect();
        // The search relies on it. Comparing all digests would be too slow.
        if digests.first() > digests.last() {
            return Err(IndexError::corrupt("unsorted index block"));
        }
        let columns: Vec<_> = bytes.chunks_exact(4 * count).map(decode_column).collect();
        let slot = |(index, kind): (usize, &u8)| {
            let kind = match kind {
                0 => return Ok(None),
                1 => RecordTag::Message,
                2 => RecordTag::Compressed,
                3 => RecordTag::Tombstone,
                _ => return Err(IndexError::corrupt("invalid record kind in an index block")),
            };
            let [segment, offset, payload_len, length_xor, time] = [0, 1, 2, 3, 4].map(|column| columns[column][index]);
            let message_len = payload_len ^ length_xor;
            Ok(Some(RecordLocation { kind, segment, offset: u64::from(offset) * 8, payload_len, message_len, time }))
        };
        let slots = kinds.iter().enumerate().map(slot).collect::<Result<_, _>>()?;
        Ok(Self { digests, slots })
    }

    /// Returns the slot of `digest`, or `None` if the block has no entry for it.
    pub fn find(&self, digest: &Digest) -> Option<Slot> {
        let prefix = digest.prefix_u64();
        let guess = self.interpolate(prefix);
        let back = self.digests[..guess].iter().rev().take_while(|other| other.prefix_u64() >= prefix).count();
        let start = guess - back;
        let forward = self.digests[start..].iter().take_while(|other| other.prefix_u64() < prefix).count();
        let first = start + forward;
        let mut equal_prefixes = self.digests[first..].iter().take_while(|other| other.prefix_u64() == prefix);
        let index = equal_prefixes.position(|other| other == digest)?;
        Some(self.slots[first + index])
    }

    /// Estimates the index of a digest with this prefix. The estimate is off by a few entries at most, unless the
    /// messages were chosen so that their digests are unevenly distributed.
    fn interpolate(&self, prefix: u64) -> usize {
        let ends = self.digests.first().zip(self.digests.last());
        let (first, last) = ends.map_or((0, 0), |(first, last)| (first.prefix_u64(), last.prefix_u64()));
        let (distance, range) = (prefix.clamp(first, last) - first, u128::from(last - first).max(1));
        let index = u128::from(distance) * self.digests.len() as u128 / range;
        usize::try_from(index).expect("the index is at most the number of entries")
    }

    /// Returns the entry at `index`, if there is one.
    pub fn entry(&self, index: usize) -> Option<IndexEntry> {
        self.digests.get(index).map(|digest| (*digest, self.slots[index]))
    }

    /// Returns the index of the first entry whose digest is not less than `digest`.
    pub fn lower_bound(&self, digest: &Digest) -> usize {
        self.digests.partition_point(|other| other < digest)
    }

    /// Returns the memory that the block occupies, in bytes.
    pub fn memory_size(&self) -> usize {
        self.digests.len() * (size_of::<Digest>() + size_of::<Slot>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_round_trips_and_truncated_or_foreign_bytes_are_an_error() {
        let entry = |first, kind, payload_len, message_len| {
            let location = RecordLocation { kind, segment: 3, offset: 64, payload_len, message_len, time: 9 };
            (Digest::from_bytes([first; 32]), Some(location))
        };
        let entries = [
            entry(1, RecordTag::Message, 5, 5),
            entry(2, RecordTag::Compressed, 6, 50),
            entry(3, RecordTag::Tombstone, 0, 0),
            (Digest::from_bytes([4; 32]), None),
        ];
        let bytes = encode(&entries);
        let block = Block::decode(&bytes).unwrap();
        assert_eq!((0..5).filter_map(|index| block.entry(index)).collect::<Vec<_>>(), entries);
        for (digest, slot) in entries {
            assert_eq!(block.find(&digest), Some(slot));
        }
        assert_eq!(block.find(&Digest::from_bytes([5; 32])), None);
        assert_eq!([0, 2, 5].map(|first| block.lower_bound(&Digest::from_bytes([first; 32]))), [0, 1, 4]);
        for end in (0..bytes.len()).filter(|end| *end == 0 || end % ENTRY_LEN != 0) {
            assert!(Block::decode(&bytes[..end]).is_err(), "{end}");
        }
        let mut foreign = bytes;
        foreign[4 * 32] = 9;
        assert!(Block::decode(&foreign).is_err());
        let [first, second, ..] = entries;
        assert!(Block::decode(&encode(&[second, first])).is_err());
    }
}
