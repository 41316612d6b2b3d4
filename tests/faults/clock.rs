//! A system clock that jumps between 1971 and 2105. All messages stay readable, and the newest time never goes back.

use std::process::Command;

use super::Tally;
use super::faulted_store::{FaultedStore, message_groups};
use super::strace::exec_under;
use crate::common::{Random, digest, has_tool};

#[test]
#[ignore = "needs faketime: make test-faults"]
fn a_clock_jump_loses_nothing() {
    if !has_tool("faketime") {
        return;
    }
    let mut random = Random(0xc10c);
    let mut store = FaultedStore::new();
    let (mut sum, mut newest) = (Tally::default(), String::new());
    for round in 0..40 {
        let year = [1971, 1999, 2001, 2020, 2024, 2026, 2037, 2039, 2105][usize::try_from(random.below(9)).unwrap()];
        let date = format!("@{year}-{:02}-{:02} 12:00:00", 1 + random.below(12), 1 + random.below(28));
        store.add_context(&format!("{date}; "));
        let mut command = Command::new("faketime");
        command.args(["-f", &date]);
        exec_under(&mut command, &store.command(&["put", "--lines"]));
        let result = store.put_with(command, &message_groups(500 + round, &[1, 1 + random.below(20)]));
        assert_eq!(result.code, Some(0), "{date}: {result:?}");
        if round % 4 == 3 {
            std::fs::remove_dir_all(store.path().join("index")).unwrap();
        }
        let listed = store.run(store.command(&["list"]), b"");
        let mut expected: Vec<_> = store.acknowledged.keys().cloned().collect();
        expected.sort();
        assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().collect::<Vec<_>>(), expected, "{date}");
        let current = newest_time(&mut store);
        assert!(current >= newest, "the newest time went back from {newest} to {current}");
        newest = current;
        sum += store.finish_run();
    }
    assert!(newest.contains("2105"), "{newest}");
    sum.assert_nothing_lost("the clock jumps");
}

fn newest_time(store: &mut FaultedStore) -> String {
    let stats = store.run(store.command(&["stats", "--json"]), b"");
    let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).unwrap();
    stats["newest"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs faketime: make test-faults"]
fn a_message_missing_after_a_clock_jump_is_detected_as_a_loss() {
    let mut store = FaultedStore::new();
    store.put(None, &message_groups(1, &[3]));
    store.acknowledged.insert(digest(b"never put"), b"never put".to_vec());
    store.find_missing();
    store.tally.assert_loss_detected("a message that was never put");
}
