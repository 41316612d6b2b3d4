//! A clock that jumps, back and forth and out of all that a record can say: what is put then is there like the rest.

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
    let mut victim = FaultedStore::new();
    let (mut sum, mut newest) = (Tally::default(), String::new());
    for round in 0..40 {
        let year = [1971, 1999, 2001, 2020, 2024, 2026, 2037, 2039, 2105][usize::try_from(random.below(9)).unwrap()];
        let date = format!("@{year}-{:02}-{:02} 12:00:00", 1 + random.below(12), 1 + random.below(28));
        victim.add_context(&format!("{date}; "));
        let mut command = Command::new("faketime");
        command.args(["-f", &date]);
        exec_under(&mut command, &victim.command(&["put", "--lines"]));
        let ran = victim.put_with(command, &message_groups(500 + round, &[1, 1 + random.below(20)]));
        assert_eq!(ran.code, Some(0), "{date}: {ran:?}");
        if round % 4 == 3 {
            std::fs::remove_dir_all(victim.store().join("index")).unwrap();
        }
        let listed = victim.run(victim.command(&["list"]), b"");
        let mut expected: Vec<_> = victim.acknowledged.keys().cloned().collect();
        expected.sort();
        assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().collect::<Vec<_>>(), expected, "{date}");
        let now = newest_time(&mut victim);
        assert!(now >= newest, "the newest was stored {newest}, and is now from {now}");
        newest = now;
        sum += victim.finish_run();
    }
    assert!(newest.contains("2105"), "{newest}");
    sum.record_and_assert("the clock jumps", false);
}

fn newest_time(victim: &mut FaultedStore) -> String {
    let stats = victim.run(victim.command(&["stats", "--json"]), b"");
    let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).unwrap();
    stats["newest"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs faketime: make test-faults"]
fn a_message_missing_after_a_clock_jump_is_detected_as_a_loss() {
    let mut victim = FaultedStore::new();
    victim.put(None, &message_groups(1, &[3]));
    victim.acknowledged.insert(digest(b"never put"), b"never put".to_vec());
    victim.find_missing();
    victim.tally.record_and_assert_loss("a message that was never put");
}
