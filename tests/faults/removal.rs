//! `kill -9` and failing system calls during a removal and the compaction that follows. Removed messages stay removed
//! and no other message is lost, with the index and after its deletion.

use std::collections::HashMap;
use std::path::PathBuf;

use super::faulted_store::{FaultedStore, message_groups};
use super::scenarios::call_indices;
use super::strace::{Injection, injected_count};
use super::{Tally, run_in_parallel};
use crate::common::{can_trace, digest, non_empty_files};

/// Small segment size, so that several segments are compacted.
const SEGMENT_SIZE: &str = "16KiB";

/// System calls of a removal. `true`: the fault is injected only into calls on files of the log.
const CALLS: [(bool, &str); 14] = [
    (false, "fsync"),
    (false, "fdatasync"),
    (false, "pwrite64"),
    (false, "write"),
    (false, "rename"),
    (false, "unlink"),
    (false, "openat"),
    (true, "pread64"),
    (true, "openat"),
    (true, "unlink"),
    (true, "pwrite64"),
    (true, "write"),
    (true, "fdatasync"),
    (true, "fsync"),
];

/// Creates a store of several segments. Returns the store and the digests to remove from it.
fn store_with_removals() -> (FaultedStore, Vec<String>) {
    let mut store = FaultedStore::new();
    let groups = message_groups(1, &[150, 150]);
    let mut put = store.command(&["put", "--lines"]);
    put.env("SHA_API_SEGMENT_SIZE", SEGMENT_SIZE);
    store.put_with(put, &groups);
    assert!(non_empty_files(&store.path().join("log")).len() > 4);
    let all = groups.concat();
    let to_remove = all.iter().enumerate().filter(|(index, _)| index % 3 != 0).map(|(_, message)| digest(message));
    (store, to_remove.collect())
}

/// Removes the messages `to_remove` from a copy of `base` with `fault` injected into `call`. Returns `None` if no fault
/// was injected.
fn remove_with_injection(
    base: &FaultedStore,
    to_remove: &[String],
    in_log: bool,
    call: &'static str,
    fault: &str,
) -> Option<Tally> {
    let mut store = base.copy(format!("removal, {call} {fault}"));
    let (path, trace) = (store.path().to_owned(), store.dir().join("trace"));
    let paths: Vec<PathBuf> = match in_log {
        false => Vec::new(),
        true => (1..40).map(|number| path.join(format!("log/{number:08}.log"))).chain([path.join("log")]).collect(),
    };
    let arguments: Vec<_> = ["rm", "--json"].into_iter().chain(to_remove.iter().map(String::as_str)).collect();
    let mut rm = Injection::new(call, fault.to_owned()).on_paths(paths).wrap(&store.command(&arguments), &trace);
    rm.env("SHA_API_SEGMENT_SIZE", SEGMENT_SIZE);
    let result = store.run(rm, b"");
    if !result.killed && injected_count(&trace) == 0 {
        return None;
    }
    let removed = String::from_utf8_lossy(&result.stdout).matches("\"removed\":true").count();
    assert!([0, to_remove.len()].contains(&removed), "{removed}");
    let forgotten: HashMap<_, _> =
        to_remove.iter().filter_map(|digest| Some((digest, store.acknowledged.remove(digest)?))).collect();
    let mut restored = count_present(&mut store, to_remove);
    if removed == 0 {
        // Without an acknowledgement, each message may be present or removed.
        restored = 0;
    }
    assert_eq!(forgotten.len(), to_remove.len());
    let lost = store.find_missing();
    let verify = store.run(store.command(&["verify"]), b"");
    if verify.code != Some(0) {
        store.tally.wrong_bytes += 1;
        store.print_failure("the store fails verification", &verify);
    }
    std::fs::remove_dir_all(path.join("index")).unwrap();
    if removed > 0 {
        restored += count_present(&mut store, to_remove);
    }
    store.tally.acknowledged += removed;
    store.tally.lost += restored;
    if store.try_recover(&lost) {
        store.tally.recovered = 1;
    }
    Some(store.tally)
}

/// Returns the number of these messages that are present.
fn count_present(store: &mut FaultedStore, digests: &[String]) -> usize {
    let result = store.run(store.command(&["has", "-"]), digests.join("\n").as_bytes());
    digests.len() - String::from_utf8_lossy(&result.stdout).lines().count()
}

fn inject_at_each_call(fault: &'static str, calls: Vec<(bool, &'static str)>) -> Tally {
    let (base, to_remove) = store_with_removals();
    run_in_parallel(calls, |(in_log, call)| {
        let mut tally = Tally::default();
        for n in call_indices(6) {
            let Some(run) = remove_with_injection(&base, &to_remove, in_log, call, &format!("{fault}:when={n}")) else {
                break;
            };
            tally += run;
        }
        tally
    })
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_during_a_removal_restores_nothing_and_loses_nothing() {
    if can_trace() {
        inject_at_each_call("signal=KILL", CALLS.into()).assert_nothing_lost("kill -9 while removing and compacting");
    }
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_failing_system_call_during_a_removal_restores_nothing_and_loses_nothing() {
    if can_trace() {
        inject_at_each_call("error=EIO", CALLS.into()).assert_nothing_lost("EIO while removing and compacting");
        let can_fail = |call: &(bool, &str)| ["write", "pwrite64", "openat", "rename"].contains(&call.1);
        inject_at_each_call("error=ENOSPC", CALLS.into_iter().filter(can_fail).collect())
            .assert_nothing_lost("ENOSPC while removing and compacting");
    }
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn an_unwritten_removal_is_detected() {
    if !can_trace() {
        return;
    }
    let (base, to_remove) = store_with_removals();
    let mut store = base.copy("an unwritten removal");
    let trace = store.dir().join("trace");
    let arguments = ["rm", "--json", &to_remove[0]];
    // A tombstone has 48 bytes. The injected result makes its write a no-op.
    let paths: Vec<_> = non_empty_files(&store.path().join("log"));
    let injection = Injection::new("pwrite64", "retval=48:when=1").on_paths(paths);
    let result = store.run(injection.wrap(&store.command(&arguments), &trace), b"");
    assert!(injected_count(&trace) == 1 && result.code == Some(0), "{result:?}");
    std::fs::remove_dir_all(store.path().join("index")).unwrap();
    store.acknowledged.remove(&to_remove[0]);
    store.find_missing();
    store.tally.lost += count_present(&mut store, &to_remove[..1]);
    store.tally.assert_loss_detected("an unwritten removal");
}
