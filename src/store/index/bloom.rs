//! A split-block Bloom filter, like that of Apache Parquet but with blocks of eight 64-bit words. It rules out most
//! digests that are not in a partition without reading a block. Digests are random, so the filter hashes nothing. Its
//! blocks are in the order of the digests, so that a lookup of sorted digests reads memory in one direction.

use std::ops::BitAnd;

use super::block::IndexEntry;
use super::error::IndexError;
use crate::digest::Digest;

/// Filter bytes per entry. Three bytes give one false positive in about 10,000 lookups; each costs one block read.
const BYTES_PER_ENTRY: usize = 3;
/// Length of a filter block in bytes.
const BLOCK_BYTES: usize = 64;

/// Eight 64-bit words in one CPU cache line. A digest sets one bit in each word.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct FilterBlock([u8; BLOCK_BYTES]);

/// A decoded filter.
#[derive(Debug)]
pub struct BloomFilter {
    blocks: Vec<FilterBlock>,
    /// Prefixes of the first and the last digest.
    prefix_range: [u64; 2],
    /// Number of filter blocks per prefix, as a 64-bit binary fraction.
    slope: u64,
}

impl BloomFilter {
    /// Builds the filter of `entries`, which must be sorted and not empty.
    pub fn build(entries: &[IndexEntry]) -> Self {
        let blocks = vec![FilterBlock([0; BLOCK_BYTES]); (entries.len() * BYTES_PER_ENTRY).div_ceil(BLOCK_BYTES)];
        let prefix_range = [0, entries.len() - 1].map(|index| entries[index].0.prefix_u64());
        let mut filter = Self::new(blocks, prefix_range);
        for (digest, _) in entries {
            let index = filter.block_index(digest);
            bits(digest).for_each(|(byte, bit)| filter.blocks[index].0[byte] |= bit);
        }
        filter
    }

    fn new(blocks: Vec<FilterBlock>, prefix_range: [u64; 2]) -> Self {
        let prefixes = u128::from(prefix_range[1] - prefix_range[0]) + 1;
        let slope = u64::try_from(((blocks.len() as u128) << 64) / prefixes).unwrap_or(u64::MAX);
        Self { blocks, prefix_range, slope }
    }

    /// Returns whether the partition may contain `digest`. `false` is certain, `true` is not.
    pub fn may_contain(&self, digest: &Digest) -> bool {
        let [first, last] = self.prefix_range;
        if !(first..=last).contains(&digest.prefix_u64()) {
            return false;
        }
        let FilterBlock(block) = &self.blocks[self.block_index(digest)];
        // All bits are tested: a branch after each would be mispredicted, because any bit may be the first missing one.
        bits(digest).map(|(byte, bit)| block[byte] & bit != 0).fold(true, BitAnd::bitand)
    }

    /// Returns the indices of the digests that the partition may contain.
    pub fn may_contain_batch(&self, digests: &[Digest]) -> Vec<usize> {
        let mut candidates = vec![0; digests.len()];
        let mut count = 0;
        // The first pass tests one bit of each digest without a branch, so that the CPU fetches many blocks in parallel.
        for (index, digest) in digests.iter().enumerate() {
            let (byte, bit) = bits(digest).next().expect("a digest has eight bits in the filter");
            candidates[count] = index;
            count += usize::from(self.blocks[self.block_index(digest)].0[byte] & bit != 0);
        }
        candidates.truncate(count);
        candidates.retain(|index| self.may_contain(&digests[*index]));
        candidates
    }

    /// Returns the index of a digest's filter block. Digests outside the prefix range belong to the block at that end.
    fn block_index(&self, digest: &Digest) -> usize {
        let [first, last] = self.prefix_range;
        let distance = digest.prefix_u64().clamp(first, last) - first;
        usize::try_from((u128::from(distance) * u128::from(self.slope)) >> 64).expect("less than the number of blocks")
    }

    /// Encodes the filter: the blocks, then the prefix range.
    pub fn encode(&self) -> Vec<u8> {
        let blocks = self.blocks.iter().flat_map(|block| block.0);
        blocks.chain(self.prefix_range.iter().flat_map(|prefix| prefix.to_le_bytes())).collect()
    }

    /// Decodes a filter that [`BloomFilter::encode`] encoded.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let parts =
            bytes.split_last_chunk::<16>().map(|(blocks, range)| (blocks.as_chunks(), range.as_chunks::<8>().0));
        if let Some(((blocks @ [_, ..], []), [first, last])) = parts {
            let prefix_range = [*first, *last].map(u64::from_le_bytes);
            if prefix_range[0] <= prefix_range[1] {
                return Ok(Self::new(blocks.iter().map(|block| FilterBlock(*block)).collect(), prefix_range));
            }
        }
        Err(IndexError::corrupt("invalid encoding of a Bloom filter"))
    }
}

/// Returns, for each of the eight words, the byte in the filter block and the bit in it. Each pair depends on six bits
/// of one byte of the digest.
fn bits(digest: &Digest) -> impl Iterator<Item = (usize, u8)> {
    let random: [u8; 8] = *digest.as_bytes()[16..].first_chunk().expect("a digest has 32 bytes");
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
        let (present, absent): (Vec<_>, Vec<_>) = entries.iter().enumerate().partition(|(index, _)| index % 7 == 0);
        let [present, absent] =
            [present, absent].map(|part| part.into_iter().map(|(_, entry)| *entry).collect::<Vec<IndexEntry>>());
        // Some of the absent digests are then outside the prefix range.
        let present = &present[100..present.len() - 100];
        let filter = BloomFilter::decode(&BloomFilter::build(present).encode()).unwrap();
        let count_candidates = |entries: &[IndexEntry]| {
            let digests: Vec<_> = entries.iter().map(|(digest, _)| *digest).collect();
            let one_by_one = (0..digests.len()).filter(|index| filter.may_contain(&digests[*index]));
            let batch = filter.may_contain_batch(&digests);
            assert!(one_by_one.eq(batch.iter().copied()));
            batch.len()
        };
        assert_eq!(count_candidates(present), present.len());
        let false_positives = count_candidates(&absent);
        assert!(false_positives < 40, "{false_positives} of {}", absent.len());
        assert!(!filter.may_contain(&entries[0].0) && !filter.may_contain(&entries[115_999].0));
        let bytes = filter.encode();
        assert!(BloomFilter::decode(&bytes[1..]).is_err() && BloomFilter::decode(&[]).is_err());
        let swapped = [&bytes[..bytes.len() - 16], &bytes[bytes.len() - 8..], &bytes[bytes.len() - 16..][..8]].concat();
        assert!(BloomFilter::decode(&swapped).is_err());
    }
}
