//! Blocks of entries in the order of their digests: the form in which runs are stored, and in which they are searched.

use super::sled_store::IndexError;
use crate::digest::Digest;
use crate::store::log::{RecordKind, RecordLocation};

/// Entries of a block. So many compress to just below 64 KiB, which is one of the sizes that sled stores in.
pub const BLOCK_ENTRIES: usize = 1600;
/// What an entry takes before it is compressed: a digest, a kind, and five numbers.
const ENTRY_LEN: usize = 32 + 1 + COLUMNS * 4;
const COLUMNS: usize = 5;

/// Where a digest's last record stands; `None` if it does not stand anywhere any more, whatever older runs say.
pub type Slot = Option<RecordLocation>;

/// A digest and where its last record stands.
pub type IndexEntry = (Digest, Slot);

/// A block in memory.
#[derive(Debug)]
pub struct Block {
    digests: Vec<Digest>,
    slots: Vec<Slot>,
}

/// As a block is stored: all digests, all kinds, then of each number of all positions the lowest bytes, the next ones,
/// and so on. What is alike stands together, so it compresses, however little that is tried.
pub fn encode(entries: &[IndexEntry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_LEN);
    bytes.extend(entries.iter().flat_map(|(digest, _)| digest.as_bytes()));
    bytes.extend(entries.iter().map(|(_, standing)| standing.map_or(0, |position| position.kind as u8)));
    for number in 0..COLUMNS {
        let column = entries.iter().map(|(_, standing)| standing.map_or([0; COLUMNS], to_columns)[number]);
        let column: Vec<_> = column.map(u32::to_le_bytes).collect();
        for byte in 0..4 {
            bytes.extend(column.iter().map(|number| number[byte]));
        }
    }
    bytes
}

fn to_columns(position: RecordLocation) -> [u32; COLUMNS] {
    let offset = u32::try_from(position.offset / 8).expect("a segment is shorter than 32 GiB");
    // Without compression, the length is the same.
    [position.segment, offset, position.payload_len, position.payload_len ^ position.message_len, position.time]
}

/// A number of all positions, from its bytes.
fn decode_column(bytes: &[u8]) -> Vec<u32> {
    let (low, high) = bytes.split_at(bytes.len() / 2);
    let [(first, second), (third, fourth)] = [low, high].map(|half| half.split_at(half.len() / 2));
    let numbers = first.iter().zip(second).zip(third).zip(fourth);
    numbers.map(|(((first, second), third), fourth)| u32::from_le_bytes([*first, *second, *third, *fourth])).collect()
}

impl Block {
    /// Reads what [`encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let count = bytes.len() / ENTRY_LEN;
        if bytes.is_empty() || !bytes.len().is_multiple_of(ENTRY_LEN) {
            return Err(IndexError::new("it holds a block of another form"));
        }
        let (digests, rest) = bytes.split_at(count * 32);
        let (kinds, rest) = rest.split_at(count);
        let digests = digests.as_chunks().0.iter().map(|bytes| Digest::from_bytes(*bytes)).collect();
        let columns: Vec<_> = rest.chunks_exact(4 * count).map(decode_column).collect();
        let standing = |(at, kind): (usize, &u8)| {
            let kind = match kind {
                0 => return Ok(None),
                1 => RecordKind::Message,
                2 => RecordKind::Compressed,
                3 => RecordKind::Tombstone,
                _ => return Err(IndexError::new("it holds a position of another form")),
            };
            let [segment, offset, stored, more, time] = [0, 1, 2, 3, 4].map(|number| columns[number][at]);
            Ok(Some(RecordLocation {
                kind,
                segment,
                offset: u64::from(offset) * 8,
                payload_len: stored,
                message_len: stored ^ more,
                time,
            }))
        };
        let standings = kinds.iter().enumerate().map(standing).collect::<Result<_, _>>()?;
        Ok(Self { digests, slots: standings })
    }

    /// What the block says of a digest, if anything.
    pub fn find(&self, digest: &Digest) -> Option<Slot> {
        let wanted = digest.prefix_u64();
        let guess = self.interpolate(wanted);
        let before = self.digests[..guess].iter().rev().take_while(|its| its.prefix_u64() >= wanted).count();
        let from = &self.digests[guess - before..];
        let behind = from.iter().take_while(|its| its.prefix_u64() < wanted).count();
        let mut alike = from[behind..].iter().take_while(|its| its.prefix_u64() == wanted);
        let at = alike.position(|its| its == digest)?;
        Some(self.slots[self.digests.len() - from.len() + behind + at])
    }

    /// About where a digest with these leading bytes would stand. Digests are spread evenly, so it is a few places off at
    /// most, unless somebody has chosen them.
    fn interpolate(&self, wanted: u64) -> usize {
        let ends = self.digests.first().zip(self.digests.last());
        let (first, last) = ends.map_or((0, 0), |(first, last)| (first.prefix_u64(), last.prefix_u64()));
        let (part, whole) = (wanted.clamp(first, last) - first, u128::from(last - first).max(1));
        let place = u128::from(part) * self.digests.len() as u128 / whole;
        usize::try_from(place).expect("not behind the end")
    }

    /// An entry by its place.
    pub fn entry(&self, at: usize) -> Option<IndexEntry> {
        self.digests.get(at).map(|digest| (*digest, self.slots[at]))
    }

    /// The place of the first entry from `digest` on.
    pub fn lower_bound(&self, digest: &Digest) -> usize {
        self.digests.partition_point(|its| its < digest)
    }

    /// What it takes in memory, in bytes.
    pub fn memory_size(&self) -> usize {
        self.digests.len() * (size_of::<Digest>() + size_of::<Slot>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_round_trips_and_truncated_or_foreign_bytes_are_an_error() {
        let entry = |first, kind, stored, length| {
            let position =
                RecordLocation { kind, segment: 3, offset: 64, payload_len: stored, message_len: length, time: 9 };
            (Digest::from_bytes([first; 32]), Some(position))
        };
        let nothing = (Digest::from_bytes([4; 32]), None);
        let entries = [
            entry(1, RecordKind::Message, 5, 5),
            entry(2, RecordKind::Compressed, 6, 50),
            entry(3, RecordKind::Tombstone, 0, 0),
            nothing,
        ];
        let bytes = encode(&entries);
        let block = Block::decode(&bytes).unwrap();
        assert_eq!((0..5).filter_map(|at| block.entry(at)).collect::<Vec<_>>(), entries);
        for (digest, position) in entries {
            assert_eq!(block.find(&digest), Some(position));
        }
        assert_eq!(block.find(&Digest::from_bytes([5; 32])), None);
        assert_eq!([0, 2, 5].map(|first| block.lower_bound(&Digest::from_bytes([first; 32]))), [0, 1, 4]);
        for end in (0..bytes.len()).filter(|end| *end == 0 || end % ENTRY_LEN != 0) {
            assert!(Block::decode(&bytes[..end]).is_err(), "{end}");
        }
        let mut foreign = bytes;
        foreign[4 * 32] = 9;
        assert!(Block::decode(&foreign).is_err());
    }
}
