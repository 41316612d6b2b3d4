//! One flipped bit in any file of a store. The affected message is reported as corrupt or lost, and all other messages
//! are readable.

use std::path::{Path, PathBuf};

use super::faulted_store::FaultedStore;
use super::scenarios::{cleanly_closed, index_behind_log};
use super::{Tally, run_in_parallel};
use crate::common::{Random, non_empty_files};

/// Parts of the store (the empty name is any file outside the log and the index), each with its number of flips.
const FLIPS_PER_PART: [(&str, u64); 3] = [("log", 240), ("index", 160), ("", 120)];

/// Location of a flipped bit.
#[derive(Debug, Clone)]
struct BitFlip {
    file: PathBuf,
    byte: usize,
    bit: u64,
    /// `true` if the index is deleted too, so that only the log can reveal the damage.
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
            tally.assert_losses_reported(&format!("a flipped bit in {part}, store {state}"));
        }
    }
}

fn choose_flips(base: &FaultedStore, part: &str, count: u64) -> Vec<BitFlip> {
    let mut random = Random(0xf11b + count);
    let files: Vec<_> =
        non_empty_files(base.path()).into_iter().filter(|file| is_in_part(base.path(), file, part)).collect();
    let flip = |number: u64| {
        let file = &files[usize::try_from(random.below(files.len() as u64)).unwrap()];
        let bytes = std::fs::read(file).unwrap();
        // The preallocated zeros behind the data are included, but only 64 bytes of them.
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1) + 64;
        let byte = usize::try_from(random.below(end.min(bytes.len()) as u64)).unwrap();
        let file = file.strip_prefix(base.path()).unwrap().to_owned();
        BitFlip { file, byte, bit: random.below(8), without_index: part != "index" && number % 2 == 1 }
    };
    (0..count).map(flip).collect()
}

fn is_in_part(dir: &Path, file: &Path, part: &str) -> bool {
    let first = file.strip_prefix(dir).unwrap().iter().next().unwrap();
    match part {
        "" => first != "log" && first != "index",
        _ => first == part,
    }
}

fn check_flip(base: &FaultedStore, flip: &BitFlip) -> Tally {
    let mut store = base.copy(format!("{flip:?}"));
    let path = store.path().join(&flip.file);
    let intact = std::fs::read(&path).unwrap();
    let mut bytes = intact.clone();
    bytes[flip.byte] ^= 1 << flip.bit;
    std::fs::write(&path, bytes).unwrap();
    if flip.without_index {
        std::fs::remove_dir_all(store.path().join("index")).unwrap();
    }
    let lost = store.find_missing();
    if store.is_unopenable {
        // A store whose format file names a newer version is refused, and the user has to repair it.
        std::fs::write(&path, intact).unwrap();
    }
    let is_limited = lost.len() <= 1 || (store.is_unopenable && flip.file == Path::new("format"));
    let recovered = store.try_recover(&lost);
    store.tally.recovered = usize::from(is_limited && recovered);
    if !is_limited {
        println!("{flip:?}: {} messages are lost", lost.len());
    }
    store.tally
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_message_erased_with_its_index_is_detected_as_a_loss() {
    let mut store = cleanly_closed();
    let message = b"the last message of the log".to_vec();
    let end = log_end(&store);
    store.put(None, &[vec![message]]);
    let mut bytes = std::fs::read(store.first_segment()).unwrap();
    bytes[end..].fill(0);
    std::fs::write(store.first_segment(), bytes).unwrap();
    std::fs::remove_dir_all(store.path().join("index")).unwrap();
    std::fs::remove_file(store.path().join("index.checkpoint")).unwrap();
    assert_eq!(store.find_missing().len(), 1);
    store.tally.assert_loss_detected("a message erased, index and checkpoint deleted");
}

/// Returns the offset of the next record in the first segment.
fn log_end(store: &FaultedStore) -> usize {
    let bytes = std::fs::read(store.first_segment()).unwrap();
    (bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1).next_multiple_of(8)
}
