//! A disk that says it has written what it has not: the message is said to be corrupt or lost, and can be put again.

use super::faulted_store::{FaultedStore, message};
use super::run_in_parallel;
use super::scenarios::cleanly_closed;
use super::strace::Injection;
use crate::common::{Random, can_trace, digest};

/// What a message takes in the log.
pub fn record_len(message: &[u8]) -> usize {
    (48 + message.len()).next_multiple_of(8)
}

/// Puts messages one by one; of the `n`-th the disk takes nothing.
fn store_with_skipped_write(base: &FaultedStore, n: usize, count: u64) -> FaultedStore {
    let mut victim = base.copy(format!("write {n} of {count} is skipped"));
    let messages: Vec<_> = (0..count).map(|number| vec![message(20 + n as u64, number, 500)]).collect();
    let skip = Injection::new("pwrite64", format!("retval={}:when={n}", record_len(&messages[n - 1][0])));
    let (ran, hits) = victim.put(Some(&skip.on_paths(vec![victim.first_segment()])), &messages);
    assert!(ran.code == Some(0) && hits == 1, "{ran:?}, {hits}");
    victim
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_write_skipped_by_the_disk_is_reported() {
    if !can_trace() {
        return;
    }
    let base = cleanly_closed();
    let tally = run_in_parallel((1..=20).flat_map(|n| [(n, false), (n, true)]), |(n, without_index)| {
        let mut victim = store_with_skipped_write(&base, n, 20 + u64::from(without_index));
        if without_index {
            std::fs::remove_dir_all(victim.store().join("index")).unwrap();
        }
        let lost = victim.find_missing();
        assert_eq!(lost.len(), 1, "{lost:?}");
        victim.tally.recovered = usize::from(victim.try_recover(&lost));
        victim.tally
    });
    assert_eq!(tally.lost, tally.runs);
    tally.record_and_assert("the disk skips a write", true);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_partly_skipped_large_write_is_reported() {
    if !can_trace() {
        return;
    }
    let base = cleanly_closed();
    let mut random = Random(0x11e5);
    let lengths: Vec<_> = (0..12).map(|_| (2 << 20) + random.below(1 << 20)).collect();
    let tally = run_in_parallel(lengths, |length| {
        let mut victim = base.copy(format!("a MiB of a message of {length} is skipped"));
        let mut large = b"large ".to_vec();
        large.resize(usize::try_from(length).unwrap(), b'l');
        // Where it can be, a MiB is written at a time; elsewhere the header first, then all the bytes.
        let skip = Injection::new("pwrite64", format!("retval={}:when=2", 1 << 20));
        let (ran, hits) = victim.put(
            Some(&skip.on_paths(vec![victim.first_segment()])),
            &[vec![large.clone()], vec![message(30, length, 90)]],
        );
        assert!(ran.code == Some(0) && hits == 1, "{ran:?}, {hits}");
        let lost = victim.find_missing();
        assert_eq!(lost, [digest(&large)]);
        victim.tally.recovered = usize::from(victim.try_recover(&lost));
        victim.tally
    });
    tally.record_and_assert("the disk skips a part of a large message", true);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_skipped_write_without_an_index_is_detected_as_a_loss() {
    if !can_trace() {
        return;
    }
    let mut victim = store_with_skipped_write(&cleanly_closed(), 5, 5);
    for name in ["index", "index.checkpoint"] {
        let path = victim.store().join(name);
        let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
    }
    victim.find_missing();
    victim.tally.record_and_assert_loss("the last write skipped, and the index gone");
}
