//! A disk that reports a write as successful without writing. The message is reported as corrupt or lost, and can be
//! put again.

use super::faulted_store::{FaultedStore, message};
use super::run_in_parallel;
use super::scenarios::cleanly_closed;
use super::strace::Injection;
use crate::common::{Random, can_trace, digest};

/// Returns the size in bytes of the record of `message` in the log.
pub fn record_len(message: &[u8]) -> usize {
    (48 + message.len()).next_multiple_of(8)
}

/// Puts `count` messages one by one into a copy of `base`. The write of message `n` is skipped.
fn store_with_skipped_write(base: &FaultedStore, n: usize, count: u64) -> FaultedStore {
    let mut store = base.copy(format!("write {n} of {count} is skipped"));
    let messages: Vec<_> = (0..count).map(|number| vec![message(20 + n as u64, number, 500)]).collect();
    let injection = Injection::new("pwrite64", format!("retval={}:when={n}", record_len(&messages[n - 1][0])));
    let (result, hits) = store.put(Some(&injection.on_paths(vec![store.first_segment()])), &messages);
    assert!(result.code == Some(0) && hits == 1, "{result:?}, {hits}");
    store
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_write_skipped_by_the_disk_is_reported() {
    if !can_trace() {
        return;
    }
    let base = cleanly_closed();
    let tally = run_in_parallel((1..=20).flat_map(|n| [(n, false), (n, true)]), |(n, without_index)| {
        let mut store = store_with_skipped_write(&base, n, 20 + u64::from(without_index));
        if without_index {
            std::fs::remove_dir_all(store.path().join("index")).unwrap();
        }
        let lost = store.find_missing();
        assert_eq!(lost.len(), 1, "{lost:?}");
        store.tally.recovered = usize::from(store.try_recover(&lost));
        store.tally
    });
    assert_eq!(tally.lost, tally.runs);
    tally.assert_losses_reported("the disk skips a write");
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
        let mut store = base.copy(format!("1 MiB of a message of {length} bytes is skipped"));
        let mut large = b"large ".to_vec();
        large.resize(usize::try_from(length).unwrap(), b'l');
        // With O_DIRECT each write has 1 MiB. Without O_DIRECT the first write is the header and the second the
        // message.
        let injection = Injection::new("pwrite64", format!("retval={}:when=2", 1 << 20));
        let (result, hits) = store.put(
            Some(&injection.on_paths(vec![store.first_segment()])),
            &[vec![large.clone()], vec![message(30, length, 90)]],
        );
        assert!(result.code == Some(0) && hits == 1, "{result:?}, {hits}");
        let lost = store.find_missing();
        assert_eq!(lost, [digest(&large)]);
        store.tally.recovered = usize::from(store.try_recover(&lost));
        store.tally
    });
    tally.assert_losses_reported("the disk skips part of a large message");
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_skipped_write_without_an_index_is_detected_as_a_loss() {
    if !can_trace() {
        return;
    }
    let mut store = store_with_skipped_write(&cleanly_closed(), 5, 5);
    for name in ["index", "index.checkpoint"] {
        let path = store.path().join(name);
        let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
    }
    store.find_missing();
    store.tally.assert_loss_detected("the last write skipped, index deleted");
}
