//! One flipped bit, anywhere in any file of a store: the message that it hits is said to be corrupt or lost, the
//! others are there.

use std::path::{Path, PathBuf};

use super::faulted_store::{FaultedStore, non_empty_files};
use super::scenarios::{cleanly_closed, index_behind_log};
use super::{Tally, run_in_parallel};
use crate::common::Random;

/// Of the log, of the index, and of all other files.
const FLIPS_PER_PART: [(&str, u64); 3] = [("log", 240), ("index", 160), ("", 120)];

/// Where a bit is flipped.
#[derive(Debug, Clone)]
struct BitFlip {
    file: PathBuf,
    byte: usize,
    bit: u64,
    /// Whether the index is lost, too: then the log alone must tell.
    without_index: bool,
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_flipped_bit_is_reported_and_loses_no_other_message() {
    for (state, base) in [("closed", cleanly_closed()), ("killed", index_behind_log())] {
        for (part, count) in FLIPS_PER_PART {
            let flips = choose_flips(&base, part, count / 2);
            let tally = run_in_parallel(flips, |flip| check_flip(&base, &flip));
            let part = if part.is_empty() { "any other file" } else { part };
            tally.record_and_assert(&format!("a flipped bit in {part}, store {state}"), true);
        }
    }
}

fn choose_flips(base: &FaultedStore, part: &str, count: u64) -> Vec<BitFlip> {
    let mut random = Random(0xf11b + count);
    let files: Vec<_> =
        non_empty_files(base.store()).into_iter().filter(|file| is_in_part(base.store(), file, part)).collect();
    let flip = |number: u64| {
        let file = &files[usize::try_from(random.below(files.len() as u64)).unwrap()];
        let bytes = std::fs::read(file).unwrap();
        // The zeros behind the end are hit too, but not most of the time.
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1) + 64;
        let byte = usize::try_from(random.below(end.min(bytes.len()) as u64)).unwrap();
        let file = file.strip_prefix(base.store()).unwrap().to_owned();
        BitFlip { file, byte, bit: random.below(8), without_index: part != "index" && number % 2 == 1 }
    };
    (0..count).map(flip).collect()
}

fn is_in_part(store: &Path, file: &Path, part: &str) -> bool {
    let first = file.strip_prefix(store).unwrap().iter().next().unwrap();
    match part {
        "" => first != "log" && first != "index",
        _ => first == part,
    }
}

fn check_flip(base: &FaultedStore, flip: &BitFlip) -> Tally {
    let mut victim = base.copy(format!("{flip:?}"));
    let path = victim.store().join(&flip.file);
    let whole = std::fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[flip.byte] ^= 1 << flip.bit;
    std::fs::write(&path, bytes).unwrap();
    if flip.without_index {
        std::fs::remove_dir_all(victim.store().join("index")).unwrap();
    }
    let lost = victim.find_missing();
    if victim.is_unopenable {
        // A store that claims to be of a newer format is left alone; somebody has to look at that.
        std::fs::write(&path, whole).unwrap();
    }
    let is_one = lost.len() <= 1 || (victim.is_unopenable && flip.file == Path::new("format"));
    let recovered = victim.try_recover(&lost);
    victim.tally.recovered = usize::from(is_one && recovered);
    if !is_one {
        println!("{flip:?}: {} are lost", lost.len());
    }
    victim.tally
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_message_erased_with_its_index_is_detected_as_a_loss() {
    let mut victim = cleanly_closed();
    let message = b"the last of the log".to_vec();
    let end = log_end(&victim);
    victim.put(None, &[vec![message]]);
    let mut bytes = std::fs::read(victim.first_segment()).unwrap();
    bytes[end..].fill(0);
    std::fs::write(victim.first_segment(), bytes).unwrap();
    std::fs::remove_dir_all(victim.store().join("index")).unwrap();
    std::fs::remove_file(victim.store().join("index.checkpoint")).unwrap();
    assert_eq!(victim.find_missing().len(), 1);
    victim.tally.record_and_assert_loss("a message cut out, index and checkpoint gone");
}

/// Where the next record begins.
fn log_end(victim: &FaultedStore) -> usize {
    let bytes = std::fs::read(victim.first_segment()).unwrap();
    (bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1).next_multiple_of(8)
}
