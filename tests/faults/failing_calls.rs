//! System calls that fail: `EIO` and `ENOSPC` at the n-th call, once and from then on, of each kind of call.

use super::faulted_store::{FaultedStore, message_groups};
use super::scenarios::{CallScope, READ_CALLS, Scenario, WRITE_CALLS, call_indices, cleanly_closed};
use super::strace::{Injection, injected_count};
use super::{Tally, run_in_parallel};
use crate::common::can_trace;

const FAIL_ONCE: &str = "";
const FAIL_FROM_THEN_ON: &str = "+";

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_failing_system_call_loses_nothing() {
    if !can_trace() {
        return;
    }
    let scenes = Scenario::all();
    for (error, calls) in [("EIO", &WRITE_CALLS[..]), ("ENOSPC", &WRITE_CALLS[..]), ("EIO", &READ_CALLS[..])] {
        let what = if calls.len() == READ_CALLS.len() { "a read" } else { "a write or sync" };
        let mut sum = Tally::default();
        for scene in &scenes {
            let jobs =
                calls.iter().flat_map(|(reach, call)| [FAIL_ONCE, FAIL_FROM_THEN_ON].map(|how| (*reach, *call, how)));
            sum += run_in_parallel(jobs.collect::<Vec<_>>(), |(reach, call, how)| {
                fail_each_call(scene, reach, call, error, how)
            });
        }
        sum.record_and_assert(&format!("{error} from {what}"), false);
    }
}

/// Fails the first such call, the second, and so on until there are no more of them.
fn fail_each_call(scene: &Scenario, reach: CallScope, call: &'static str, error: &str, how: &str) -> Tally {
    let mut tally = Tally::default();
    for n in call_indices(6) {
        let Some(victim) = scene.inject(reach, call, &format!("error={error}:when={n}{how}")) else { break };
        tally += victim.into_tally();
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
        super::faulted_store::non_empty_files(base.store()).iter().map(|file| relative_path(&base, file)).collect();
    let jobs = [FAIL_ONCE, FAIL_FROM_THEN_ON]
        .into_iter()
        .flat_map(|how| ["pread64", "read", "openat"].map(|call| (call, how)));
    let tally = run_in_parallel(jobs.collect::<Vec<_>>(), |(call, how)| {
        let mut tally = Tally::default();
        for n in call_indices(40) {
            let mut victim = base.copy(format!("get, {call} {n}{how}"));
            let paths = files.iter().map(|file| victim.store().join(file)).collect();
            let fail = Injection::new(call, format!("error=EIO:when={n}{how}")).on_paths(paths);
            let trace = victim.dir().join("trace");
            let digests: String = victim.acknowledged.keys().map(|digest| format!("{digest}\n")).collect();
            let ran = victim.run(fail.wrap(&victim.command(&["get", "--lines"]), &trace), digests.as_bytes());
            if injected_count(&trace) == 0 {
                break;
            }
            let mut lines: Vec<_> = ran.stdout.split(|byte| *byte == b'\n').collect();
            lines.pop();
            let is_true = |line: &&[u8]| victim.acknowledged.contains_key(&crate::common::digest(line));
            victim.tally.wrong_bytes += lines.iter().filter(|line| !is_true(line)).count();
            if lines.len() < victim.acknowledged.len() && (ran.code == Some(0) || ran.stderr.is_empty()) {
                victim.print_failure("less than all without a word", &ran);
                victim.tally.lost += victim.acknowledged.len() - lines.len();
            }
            tally += victim.into_tally();
        }
        tally
    });
    tally.record_and_assert("EIO while getting", false);
}

fn relative_path(victim: &FaultedStore, file: &std::path::Path) -> std::path::PathBuf {
    file.strip_prefix(victim.store()).unwrap().to_owned()
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn an_acknowledged_failed_write_is_detected_as_a_loss() {
    if !can_trace() {
        return;
    }
    let mut victim = cleanly_closed();
    let fail = Injection::new("pwrite64", "error=EIO:when=1+").on_paths(vec![victim.first_segment()]);
    let group = message_groups(11, &[3]);
    let (ran, hits) = victim.put(Some(&fail), &group);
    assert!(ran.code == Some(3) && hits > 0, "{ran:?}");
    victim.acknowledged.extend(group[0].iter().map(|message| (crate::common::digest(message), message.clone())));
    victim.find_missing();
    victim.tally.record_and_assert_loss("EIO that is taken for done");
}
