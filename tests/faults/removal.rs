//! `kill -9` and failing calls at every step of a removal and of the compaction that follows it: what was removed stays
//! removed, and nothing else goes, with the index and without.

use std::collections::HashMap;
use std::path::PathBuf;

use super::faulted_store::{FaultedStore, message_groups, non_empty_files};
use super::scenarios::call_indices;
use super::strace::{Injection, injected_count};
use super::{Tally, run_in_parallel};
use crate::common::{can_trace, digest};

/// Small, so that there are many segments, and several are compacted.
const SEGMENT_SIZE: &str = "16KiB";

/// Calls that a removal makes, each on any file (`false`) or on those of the log alone.
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

/// A store of many segments, and the digests that are to be removed from it.
fn store_with_removals() -> (FaultedStore, Vec<String>) {
    let mut victim = FaultedStore::new();
    let groups = message_groups(1, &[150, 150]);
    let mut put = victim.command(&["put", "--lines"]);
    put.env("SHA_API_SEGMENT_SIZE", SEGMENT_SIZE);
    victim.put_with(put, &groups);
    assert!(non_empty_files(&victim.store().join("log")).len() > 4);
    let all = groups.concat();
    (victim, all.iter().enumerate().filter(|(at, _)| at % 3 != 0).map(|(_, message)| digest(message)).collect())
}

/// Removes with something happening to the calls; what came of it, if it came to that.
fn remove_with_injection(
    base: &FaultedStore,
    doomed: &[String],
    in_log: bool,
    call: &'static str,
    what: &str,
) -> Option<Tally> {
    let mut victim = base.copy(format!("removal, {call} {what}"));
    let (store, trace) = (victim.store().to_owned(), victim.dir().join("trace"));
    let paths: Vec<PathBuf> = match in_log {
        false => Vec::new(),
        true => (1..40).map(|number| store.join(format!("log/{number:08}.log"))).chain([store.join("log")]).collect(),
    };
    let arguments: Vec<_> = ["rm", "--json"].into_iter().chain(doomed.iter().map(String::as_str)).collect();
    let mut rm = Injection::new(call, what.to_owned()).on_paths(paths).wrap(&victim.command(&arguments), &trace);
    rm.env("SHA_API_SEGMENT_SIZE", SEGMENT_SIZE);
    let ran = victim.run(rm, b"");
    if !ran.killed && injected_count(&trace) == 0 {
        return None;
    }
    let removed = String::from_utf8_lossy(&ran.stdout).matches("\"removed\":true").count();
    assert!([0, doomed.len()].contains(&removed), "{removed}");
    let spared: HashMap<_, _> =
        doomed.iter().filter_map(|digest| Some((digest, victim.acknowledged.remove(digest)?))).collect();
    let mut came_back = count_present(&mut victim, doomed);
    if removed == 0 {
        // Not acknowledged: some may be there and some not, but all that are there are whole.
        came_back = 0;
    }
    assert_eq!(spared.len(), doomed.len());
    let lost = victim.find_missing();
    let verify = victim.run(victim.command(&["verify"]), b"");
    if verify.code != Some(0) {
        victim.tally.wrong_bytes += 1;
        victim.print_failure("it does not verify", &verify);
    }
    std::fs::remove_dir_all(store.join("index")).unwrap();
    if removed > 0 {
        came_back += count_present(&mut victim, doomed);
    }
    victim.tally.acknowledged += removed;
    victim.tally.lost += came_back;
    if victim.try_recover(&lost) {
        victim.tally.recovered = 1;
    }
    Some(victim.tally)
}

/// How many of these are there.
fn count_present(victim: &mut FaultedStore, doomed: &[String]) -> usize {
    let ran = victim.run(victim.command(&["has", "-"]), doomed.join("\n").as_bytes());
    doomed.len() - String::from_utf8_lossy(&ran.stdout).lines().count()
}

fn inject_at_each_call(what: &'static str, calls: Vec<(bool, &'static str)>) -> Tally {
    let (base, doomed) = store_with_removals();
    run_in_parallel(calls, |(in_log, call)| {
        let mut tally = Tally::default();
        for n in call_indices(6) {
            let Some(one) = remove_with_injection(&base, &doomed, in_log, call, &format!("{what}:when={n}")) else {
                break;
            };
            tally += one;
        }
        tally
    })
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_kill_during_a_removal_restores_nothing_and_loses_nothing() {
    if can_trace() {
        inject_at_each_call("signal=KILL", CALLS.into())
            .record_and_assert("kill -9 while removing and compacting", false);
    }
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_failing_system_call_during_a_removal_restores_nothing_and_loses_nothing() {
    if can_trace() {
        inject_at_each_call("error=EIO", CALLS.into()).record_and_assert("EIO while removing and compacting", false);
        let takes_room = |call: &(bool, &str)| ["write", "pwrite64", "openat", "rename"].contains(&call.1);
        inject_at_each_call("error=ENOSPC", CALLS.into_iter().filter(takes_room).collect())
            .record_and_assert("ENOSPC while removing and compacting", false);
    }
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn an_unwritten_removal_is_detected() {
    if !can_trace() {
        return;
    }
    let (base, doomed) = store_with_removals();
    let mut victim = base.copy("a removal that is not written");
    let trace = victim.dir().join("trace");
    let arguments = ["rm", "--json", &doomed[0]];
    // A removal alone has 48 bytes; the process is killed before the index is flushed.
    let paths: Vec<_> = non_empty_files(&victim.store().join("log"));
    let lie = Injection::new("pwrite64", "retval=48:when=1").on_paths(paths);
    let ran = victim.run(lie.wrap(&victim.command(&arguments), &trace), b"");
    assert!(injected_count(&trace) == 1 && ran.code == Some(0), "{ran:?}");
    std::fs::remove_dir_all(victim.store().join("index")).unwrap();
    victim.acknowledged.remove(&doomed[0]);
    victim.find_missing();
    victim.tally.lost += count_present(&mut victim, &doomed[..1]);
    victim.tally.record_and_assert_loss("a removal that is not written");
}
