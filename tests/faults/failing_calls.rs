//! System calls that fail with `EIO` or `ENOSPC`, for each kind of call: only the n-th call, or all calls from the n-th
//! on.

use super::faulted_store::{FaultedStore, message_groups};
use super::scenarios::{CallScope, READ_CALLS, Scenario, WRITE_CALLS, call_indices, cleanly_closed};
use super::strace::{Injection, injected_count};
use super::{Tally, run_in_parallel};
use crate::common::can_trace;

/// Suffix of strace's `when=n`: only the n-th call fails.
const FAIL_ONCE: &str = "";
/// Suffix of strace's `when=n`: the n-th and all later calls fail.
const FAIL_FROM_NTH_ON: &str = "+";

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_failing_system_call_loses_nothing() {
    if !can_trace() {
        return;
    }
    let scenarios = Scenario::all();
    for (error, calls) in [("EIO", &WRITE_CALLS[..]), ("ENOSPC", &WRITE_CALLS[..]), ("EIO", &READ_CALLS[..])] {
        let kind = if calls.len() == READ_CALLS.len() { "a read" } else { "a write or sync" };
        let mut sum = Tally::default();
        for scenario in &scenarios {
            let jobs = calls
                .iter()
                .flat_map(|(scope, call)| [FAIL_ONCE, FAIL_FROM_NTH_ON].map(|suffix| (*scope, *call, suffix)));
            sum += run_in_parallel(jobs.collect::<Vec<_>>(), |(scope, call, suffix)| {
                fail_each_call(scenario, scope, call, error, suffix)
            });
        }
        sum.assert_nothing_lost(&format!("{error} from {kind}"));
    }
}

/// Fails the first call, then the second and so on, until a run makes fewer calls.
fn fail_each_call(scenario: &Scenario, scope: CallScope, call: &'static str, error: &str, suffix: &str) -> Tally {
    let mut tally = Tally::default();
    for n in call_indices(6) {
        let Some(store) = scenario.inject(scope, call, &format!("error={error}:when={n}{suffix}")) else { break };
        tally += store.into_tally();
    }
    tally
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_get_with_failing_reads_returns_no_wrong_bytes() {
    if !can_trace() {
        return;
    }
    let base = cleanly_closed();
    let files: Vec<_> =
        crate::common::non_empty_files(base.path()).iter().map(|file| relative_path(&base, file)).collect();
    let jobs = [FAIL_ONCE, FAIL_FROM_NTH_ON]
        .into_iter()
        .flat_map(|suffix| ["pread64", "read", "openat"].map(|call| (call, suffix)));
    let tally = run_in_parallel(jobs.collect::<Vec<_>>(), |(call, suffix)| {
        let mut tally = Tally::default();
        for n in call_indices(40) {
            let mut store = base.copy(format!("get, {call} {n}{suffix}"));
            let paths = files.iter().map(|file| store.path().join(file)).collect();
            let injection = Injection::new(call, format!("error=EIO:when={n}{suffix}")).on_paths(paths);
            let trace = store.dir().join("trace");
            let digests: String = store.acknowledged.keys().map(|digest| format!("{digest}\n")).collect();
            let result = store.run(injection.wrap(&store.command(&["get", "--lines"]), &trace), digests.as_bytes());
            if injected_count(&trace) == 0 {
                break;
            }
            let mut lines: Vec<_> = result.stdout.split(|byte| *byte == b'\n').collect();
            lines.pop();
            let is_correct = |line: &&[u8]| store.acknowledged.contains_key(&crate::common::digest(line));
            store.tally.wrong_bytes += lines.iter().filter(|line| !is_correct(line)).count();
            if lines.len() < store.acknowledged.len() && (result.code == Some(0) || result.stderr.is_empty()) {
                store.print_failure("missing messages without an error", &result);
                store.tally.lost += store.acknowledged.len() - lines.len();
            }
            tally += store.into_tally();
        }
        tally
    });
    tally.assert_nothing_lost("EIO while getting");
}

fn relative_path(store: &FaultedStore, file: &std::path::Path) -> std::path::PathBuf {
    file.strip_prefix(store.path()).unwrap().to_owned()
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn an_acknowledged_failed_write_is_detected_as_a_loss() {
    if !can_trace() {
        return;
    }
    let mut store = cleanly_closed();
    let injection = Injection::new("pwrite64", "error=EIO:when=1+").on_paths(vec![store.first_segment()]);
    let group = message_groups(11, &[3]);
    let (result, hits) = store.put(Some(&injection), &group);
    assert!(result.code == Some(3) && hits > 0, "{result:?}");
    store.acknowledged.extend(group[0].iter().map(|message| (crate::common::digest(message), message.clone())));
    store.find_missing();
    store.tally.assert_loss_detected("a write with EIO counted as acknowledged");
}
