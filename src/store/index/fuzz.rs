//! Properties of the index decoders that hold for any input.

use super::block::{self, Block};
use super::bloom::BloomFilter;
use super::manifest::{self, Manifest};
use super::value;
use crate::digest::Digest;

/// Maximum number of digests that are looked up in one block.
const MAX_QUERIES: usize = 100;

/// Decodes `bytes` with each decoder of the index. Asserts that the content of valid input survives encoding and
/// decoding, and queries what was decoded.
pub fn check_index(bytes: &[u8]) {
    check_block(bytes);
    if let Ok(filter) = BloomFilter::decode(bytes) {
        assert!(filter.encode() == bytes);
        let digests = [Digest::from_bytes([0; 32]), Digest::compute(bytes), Digest::from_bytes([255; 32])];
        let may_contain: Vec<_> = (0..3).filter(|index| filter.may_contain(&digests[*index])).collect();
        assert_eq!(filter.may_contain_batch(&digests), may_contain);
    }
    if let Ok(Manifest { totals, generation, runs }) = manifest::decode(bytes) {
        let encoded = manifest::encode(&totals, generation, &runs);
        let again = manifest::decode(&encoded).expect("it was just encoded");
        assert_eq!((&again.totals, again.generation), (&totals, generation));
        assert!(manifest::encode(&again.totals, again.generation, &again.runs) == encoded);
    }
    if let Ok(content) = value::unpack(bytes) {
        assert!(value::unpack(&value::pack(&content)).expect("it was just packed") == content);
        check_block(&content);
    }
}

fn check_block(bytes: &[u8]) {
    let Ok(block) = Block::decode(bytes) else { return };
    let entries: Vec<_> = (0..).map_while(|index| block.entry(index)).collect();
    let again = Block::decode(&block::encode(&entries)).expect("it was just encoded");
    assert!((0..).map_while(|index| again.entry(index)).eq(entries.iter().copied()));
    for (digest, _) in entries.iter().take(MAX_QUERIES) {
        assert!(block.find(digest).is_none_or(|slot| entries.contains(&(*digest, slot))));
        assert!(block.lower_bound(digest) <= entries.len());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn mutated_index_pages_are_decoded_or_refused() {
        crate::testing::check_mutated_corpus("index", 5_000, super::check_index);
    }
}
