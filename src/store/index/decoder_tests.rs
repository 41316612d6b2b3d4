//! Tests of all encodings of the index: the bytes of each format are those of its golden file, and no input makes a
//! decoder panic.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::block::{self, Block, IndexEntry};
use super::bloom::BloomFilter;
use super::manifest::{self, ActiveMerge, Manifest, RunSet};
use super::page_store::PageId;
use super::sled_guard::SledGuard;
use super::sorted_run::{Partition, SortedRun};
use super::totals::Totals;
use super::value::{pack, unpack};
use crate::digest::Digest;
use crate::store::log::{LogPosition, RecordLocation, RecordTag};

/// Number of mutated inputs per decoder.
const MUTATIONS: usize = 20_000;

fn entries(count: u8) -> Vec<IndexEntry> {
    let kinds = [RecordTag::Message, RecordTag::Compressed, RecordTag::Tombstone];
    let entry = |number: u8| {
        let location = RecordLocation {
            kind: kinds[usize::from(number) % 3],
            segment: 1 + u32::from(number),
            offset: 64 + u64::from(number) * 0x1_0008,
            payload_len: 100 + u32::from(number),
            message_len: 100 + u32::from(number) * 3,
            time: 0x6543_2100 + u32::from(number),
        };
        (Digest::from_bytes([number * 5; 32]), (number % 4 < 3).then_some(location))
    };
    (0..count).map(entry).collect()
}

fn totals() -> Totals {
    let position = LogPosition { segment: 7, offset: 1 << 33 };
    Totals { position, messages: 3, bytes: 1 << 40, newest_time: 9, live_bytes: BTreeMap::from([(1, 5), (7, 1 << 33)]) }
}

fn runs() -> RunSet {
    let page = |number| PageId { number, generation: number + 7 };
    let partition = |first| Arc::new(Partition::new(vec![(first, page(1)), (first + 1, page(2))], page(3)));
    let run = |lower_bound| SortedRun::new(vec![partition(5), partition(9)], lower_bound, 4);
    let active_merge = Some(ActiveMerge { output: 0, input_count: 1 });
    RunSet { list: vec![SortedRun::default(), run(3), run(0)], active_merge }
}

/// Compares `bytes` with the golden file `name`, which has 32 bytes per line in hexadecimal.
fn assert_golden(name: &str, bytes: &[u8]) {
    let lines: String = bytes.chunks(32).map(|line| hex::encode(line) + "\n").collect();
    let path = format!("{}/src/store/index/golden/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(lines, golden, "{path}: a changed format needs a new version");
}

#[test]
fn a_block_has_the_golden_bytes() {
    assert_golden("block", &block::encode(&entries(9)));
}

#[test]
fn a_bloom_filter_has_the_golden_bytes() {
    assert_golden("bloom", &BloomFilter::build(&entries(30)).encode());
}

#[test]
fn a_manifest_has_the_golden_bytes() {
    assert_golden("manifest", &manifest::encode(&totals(), 9, &runs()));
}

#[test]
fn values_have_the_golden_bytes() {
    assert_golden("value", &pack(b"shorter than a compressed value"));
    // Other versions of zstd may compress in another way, but decompress these bytes.
    let path = format!("{}/src/store/index/golden/value_compressed.hex", env!("CARGO_MANIFEST_DIR"));
    let value = hex::decode(std::fs::read_to_string(path).unwrap().replace('\n', "")).unwrap();
    assert_eq!(unpack(&value).unwrap(), [7; 1000]);
}

#[test]
fn a_checkpoint_has_the_golden_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    std::fs::create_dir_all(index.join("metadata")).unwrap();
    std::fs::write(index.join("metadata/snapshot_0000000000000001"), b"").unwrap();
    std::fs::write(index.join("metadata/log_0000000000000002"), b"log of sled").unwrap();
    let guard = SledGuard::new(&index);
    guard.after_flush(&totals());
    assert!(guard.update_checkpoint(LogPosition { segment: 8, offset: 72 }, 4));
    assert_golden("checkpoint", &std::fs::read(dir.path().join("index.checkpoint")).unwrap());
    let expected = Totals { position: LogPosition { segment: 8, offset: 72 }, messages: 4, ..totals() };
    assert_eq!(guard.checkpoint().unwrap(), Some(expected));
}

/// Calls `decode` with [`MUTATIONS`] variants of `valid`: with flipped bits, replaced, inserted, removed or repeated
/// bytes. Returns the number of variants that could be decoded.
fn decode_mutations(valid: &[u8], mut decode: impl FnMut(&[u8]) -> bool) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((u128::from(state) * limit as u128) >> 64).unwrap()
    };
    assert!(decode(valid));
    let mut decoded = 0;
    for _ in 0..MUTATIONS {
        let mut bytes = valid.to_vec();
        for _ in 0..=below(3) {
            let start = below(bytes.len().max(1)).min(bytes.len());
            let end = (start + 1 + below(16)).min(bytes.len());
            match below(6) {
                0 if start < bytes.len() => bytes[start] ^= 1 << below(8),
                1 => bytes[start..end].fill([0, 1, 0x7f, 0xff][below(4)]),
                2 => bytes[start..end].iter_mut().for_each(|byte| *byte = u8::try_from(below(256)).unwrap()),
                3 => drop(bytes.drain(start..end)),
                4 => bytes.truncate(start),
                _ => bytes.extend_from_within(start..end),
            }
        }
        decoded += usize::from(decode(&bytes));
    }
    decoded
}

/// Digests at both ends of all prefixes, and between.
fn probes() -> impl Iterator<Item = Digest> {
    [0, 1, 5, 7, 0x7f, 0xff].into_iter().map(|byte| Digest::from_bytes([byte; 32]))
}

#[test]
fn a_mutated_block_is_an_error_or_can_be_searched_and_encoded() {
    let decoded = decode_mutations(&block::encode(&entries(40)), |bytes| {
        let Ok(block) = Block::decode(bytes) else { return false };
        assert!(block.memory_size() <= 4 * bytes.len());
        probes().for_each(|digest| _ = (block.find(&digest), block.lower_bound(&digest)));
        let entries: Vec<_> = (0..).map_while(|index| block.entry(index)).collect();
        let encoded = block::encode(&entries);
        assert_eq!(encoded.len(), bytes.len());
        assert_eq!(block::encode(&entries), encoded);
        true
    });
    assert!(decoded > MUTATIONS / 10, "{decoded}");
}

#[test]
fn a_mutated_bloom_filter_is_an_error_or_can_be_searched_and_encoded() {
    let decoded = decode_mutations(&BloomFilter::build(&entries(50)).encode(), |bytes| {
        let Ok(filter) = BloomFilter::decode(bytes) else { return false };
        probes().for_each(|digest| _ = filter.may_contain(&digest));
        filter.may_contain_batch(&probes().collect::<Vec<_>>());
        assert_eq!(filter.encode(), bytes);
        true
    });
    assert!(decoded > MUTATIONS / 10, "{decoded}");
}

#[test]
fn a_mutated_manifest_is_an_error_or_can_be_encoded() {
    let decoded = decode_mutations(&manifest::encode(&totals(), 9, &runs()), |bytes| {
        let Ok(Manifest { totals, generation, runs }) = manifest::decode(bytes) else { return false };
        let encoded = manifest::encode(&totals, generation, &runs);
        assert_eq!(encoded.len(), bytes.len());
        let decoded = manifest::decode(&encoded).unwrap();
        assert_eq!(manifest::encode(&decoded.totals, decoded.generation, &decoded.runs), encoded);
        true
    });
    assert!(decoded > MUTATIONS / 100, "{decoded}");
}

#[test]
fn a_mutated_value_is_an_error_or_can_be_encoded() {
    for valid in [vec![7; 1000], block::encode(&entries(40)), b"short".to_vec()] {
        let decoded = decode_mutations(&pack(&valid), |value| {
            let Ok(bytes) = unpack(value) else { return false };
            assert_eq!(unpack(&pack(&bytes)).unwrap(), bytes);
            true
        });
        assert!(decoded > MUTATIONS / 100, "{decoded}");
    }
}
