//! Says of most digests that are not in a group of entries that they are not, without a look at the entries: a split
//! block Bloom filter (as in Apache Parquet's specification), which needs no hash since digests are random. Its cells
//! are in the order of the digests, so that who asks for many in their order goes through memory in one direction.

use std::ops::BitAnd;

use super::block::IndexEntry;
use super::sled_store::IndexError;
use crate::digest::Digest;

/// Bytes of filter for an entry. With three, it is wrong about one digest in ten thousand; each time a block is read.
const BYTES_PER_ENTRY: usize = 3;
/// Bytes of a cell.
const BLOCK_BYTES: usize = 64;

/// Eight words of 64 bits, of which a digest sets one each. It is one line of the processor's cache.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct FilterBlock([u8; BLOCK_BYTES]);

/// A filter in memory.
#[derive(Debug)]
pub struct BloomFilter {
    blocks: Vec<FilterBlock>,
    /// The leading bytes of the first digest and of the last.
    prefix_range: [u64; 2],
    /// Cells for each step between those, in parts of 2^64.
    slope: u64,
}

impl BloomFilter {
    /// A filter that holds these, which are in order; one at least.
    pub fn build(entries: &[IndexEntry]) -> Self {
        let cells = vec![FilterBlock([0; BLOCK_BYTES]); (entries.len() * BYTES_PER_ENTRY).div_ceil(BLOCK_BYTES)];
        let ends = [0, entries.len() - 1].map(|place| entries[place].0.prefix_u64());
        let mut filter = Self::new(cells, ends);
        for (digest, _) in entries {
            let cell = filter.block_index(digest);
            bits(digest).for_each(|(byte, bit)| filter.blocks[cell].0[byte] |= bit);
        }
        filter
    }

    fn new(cells: Vec<FilterBlock>, ends: [u64; 2]) -> Self {
        let steps = u128::from(ends[1] - ends[0]) + 1;
        let slope = u64::try_from(((cells.len() as u128) << 64) / steps).unwrap_or(u64::MAX);
        Self { blocks: cells, prefix_range: ends, slope }
    }

    /// Whether it may hold a digest. If not, it surely does not.
    pub fn may_contain(&self, digest: &Digest) -> bool {
        let [first, last] = self.prefix_range;
        if !(first..=last).contains(&digest.prefix_u64()) {
            return false;
        }
        let FilterBlock(cell) = &self.blocks[self.block_index(digest)];
        // All are looked at, since which of them is the first that is missing cannot be foreseen.
        bits(digest).map(|(byte, bit)| cell[byte] & bit != 0).fold(true, BitAnd::bitand)
    }

    /// The places of those among many that it may hold.
    pub fn may_contain_batch(&self, digests: &[Digest]) -> Vec<usize> {
        let mut places = vec![0; digests.len()];
        let mut count = 0;
        // One bit of each first, without a branch: so the processor fetches many cells at the same time.
        for (place, digest) in digests.iter().enumerate() {
            let (byte, bit) = bits(digest).next().expect("there are eight");
            places[count] = place;
            count += usize::from(self.blocks[self.block_index(digest)].0[byte] & bit != 0);
        }
        places.truncate(count);
        places.retain(|place| self.may_contain(&digests[*place]));
        places
    }

    /// The place of a digest's cell; of one beyond the ends, the cell there.
    fn block_index(&self, digest: &Digest) -> usize {
        let [first, last] = self.prefix_range;
        let steps = digest.prefix_u64().clamp(first, last) - first;
        usize::try_from((u128::from(steps) * u128::from(self.slope)) >> 64).expect("less than there are cells")
    }

    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let cells = self.blocks.iter().flat_map(|cell| cell.0);
        cells.chain(self.prefix_range.iter().flat_map(|end| end.to_le_bytes())).collect()
    }

    /// Reads what [`BloomFilter::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let parts = bytes.split_last_chunk::<16>().map(|(cells, ends)| (cells.as_chunks(), ends.as_chunks::<8>().0));
        if let Some(((cells @ [_, ..], []), [first, last])) = parts {
            let ends = [*first, *last].map(u64::from_le_bytes);
            if ends[0] <= ends[1] {
                return Ok(Self::new(cells.iter().map(|cell| FilterBlock(*cell)).collect(), ends));
            }
        }
        Err(IndexError::new("it holds a filter of another form"))
    }
}

/// The byte and the bit in it, in each of eight words, by six bits of a byte of the digest.
fn bits(digest: &Digest) -> impl Iterator<Item = (usize, u8)> {
    let random: [u8; 8] = *digest.as_bytes()[16..].first_chunk().expect("16 bytes are left");
    (0..8).zip(random).map(|(word, byte)| (word * 8 + usize::from(byte >> 3 & 7), 1 << (byte & 7)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_has_no_false_negatives_and_few_false_positives() {
        let mut entries: Vec<_> =
            (0..116_000u32).map(|number| (Digest::compute(&number.to_le_bytes()), None)).collect();
        entries.sort_unstable_by_key(|(digest, _)| *digest);
        let (held, rest): (Vec<_>, Vec<_>) = entries.iter().enumerate().partition(|(place, _)| place % 7 == 0);
        let [held, rest] =
            [held, rest].map(|part| part.into_iter().map(|(_, entry)| *entry).collect::<Vec<IndexEntry>>());
        // Some of the rest are beyond the ends.
        let held = &held[100..held.len() - 100];
        let filter = BloomFilter::decode(&BloomFilter::build(held).encode()).unwrap();
        let likely = |entries: &[IndexEntry]| {
            let digests: Vec<_> = entries.iter().map(|(digest, _)| *digest).collect();
            let one_by_one = (0..digests.len()).filter(|place| filter.may_contain(&digests[*place]));
            let places = filter.may_contain_batch(&digests);
            assert!(one_by_one.eq(places.iter().copied()));
            places.len()
        };
        assert_eq!(likely(held), held.len());
        let wrong = likely(&rest);
        assert!(wrong < 40, "{wrong} of {}", rest.len());
        assert!(!filter.may_contain(&entries[0].0) && !filter.may_contain(&entries[115_999].0));
        let bytes = filter.encode();
        assert!(BloomFilter::decode(&bytes[1..]).is_err() && BloomFilter::decode(&[]).is_err());
        let turned = [&bytes[..bytes.len() - 16], &bytes[bytes.len() - 8..], &bytes[bytes.len() - 16..][..8]].concat();
        assert!(BloomFilter::decode(&turned).is_err());
    }
}
