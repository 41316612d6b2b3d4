//! System calls that fail: `EIO` and `ENOSPC` at the n-th call, once and from then on, of each kind of call.

use super::scenes::{CHANGES, LOOKS, Reach, Scene, closed, numbers};
use super::strace::{Injection, hits};
use super::victim::{Victim, groups};
use super::{Tally, each};
use crate::common::can_trace;

const ONCE: &str = "";
const FROM_THEN_ON: &str = "+";

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_call_that_fails_loses_nothing() {
    if !can_trace() {
        return;
    }
    let scenes = Scene::all();
    for (error, calls) in [("EIO", &CHANGES[..]), ("ENOSPC", &CHANGES[..]), ("EIO", &LOOKS[..])] {
        let what = if calls.len() == LOOKS.len() { "a read" } else { "a write or sync" };
        let mut sum = Tally::default();
        for scene in &scenes {
            let jobs = calls.iter().flat_map(|(reach, call)| [ONCE, FROM_THEN_ON].map(|how| (*reach, *call, how)));
            sum += each(jobs.collect::<Vec<_>>(), |(reach, call, how)| at_every(scene, reach, call, error, how));
        }
        sum.row(&format!("{error} from {what}"), false);
    }
}

/// Fails the first such call, the second, and so on until there are no more of them.
fn at_every(scene: &Scene, reach: Reach, call: &'static str, error: &str, how: &str) -> Tally {
    let mut tally = Tally::default();
    for n in numbers(6) {
        let Some(victim) = scene.play(reach, call, &format!("error={error}:when={n}{how}")) else { break };
        tally += victim.judge();
    }
    tally
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_get_whose_reads_fail_hands_out_nothing_false() {
    if !can_trace() {
        return;
    }
    let base = closed();
    let files: Vec<_> = super::victim::files(base.store()).iter().map(|file| relative(&base, file)).collect();
    let jobs = [ONCE, FROM_THEN_ON].into_iter().flat_map(|how| ["pread64", "read", "openat"].map(|call| (call, how)));
    let tally = each(jobs.collect::<Vec<_>>(), |(call, how)| {
        let mut tally = Tally::default();
        for n in numbers(40) {
            let mut victim = base.copy(format!("get, {call} {n}{how}"));
            let paths = files.iter().map(|file| victim.store().join(file)).collect();
            let fail = Injection::new(call, format!("error=EIO:when={n}{how}")).on(paths);
            let trace = victim.dir().join("trace");
            let digests: String = victim.known.keys().map(|digest| format!("{digest}\n")).collect();
            let ran = victim.run(fail.wrap(&victim.command(&["get", "--lines"]), &trace), digests.as_bytes());
            if hits(&trace) == 0 {
                break;
            }
            let mut lines: Vec<_> = ran.stdout.split(|byte| *byte == b'\n').collect();
            lines.pop();
            let is_true = |line: &&[u8]| victim.known.contains_key(&crate::common::digest(line));
            victim.tally.wrong += lines.iter().filter(|line| !is_true(line)).count();
            if lines.len() < victim.known.len() && (ran.code == Some(0) || ran.stderr.is_empty()) {
                victim.blame("less than all without a word", &ran);
                victim.tally.lost += victim.known.len() - lines.len();
            }
            tally += victim.judge();
        }
        tally
    });
    tally.row("EIO while getting", false);
}

fn relative(victim: &Victim, file: &std::path::Path) -> std::path::PathBuf {
    file.strip_prefix(victim.store()).unwrap().to_owned()
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn an_acknowledgement_in_spite_of_a_failed_write_is_seen_as_a_loss() {
    if !can_trace() {
        return;
    }
    let mut victim = closed();
    let fail = Injection::new("pwrite64", "error=EIO:when=1+").on(vec![victim.log()]);
    let group = groups(11, &[3]);
    let (ran, hits) = victim.put(Some(&fail), &group);
    assert!(ran.code == Some(3) && hits > 0, "{ran:?}");
    victim.known.extend(group[0].iter().map(|message| (crate::common::digest(message), message.clone())));
    victim.check();
    victim.tally.control("EIO that is taken for done");
}
