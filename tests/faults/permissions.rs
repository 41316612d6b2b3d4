//! A store that may not be written, is somebody else's, or whose files are out of reach: it is refused, that is said,
//! and nothing is harmed.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use super::faulted_store::{FaultedStore, message_groups};
use super::scenarios::{cleanly_closed, index_behind_log};
use super::strace::exec_under;
use super::{Tally, run_in_parallel};
use crate::common::{Sandbox, digest, has_tool, report_skip};

const UNPRIVILEGED_UID: u32 = 65534;

/// What is wrong: the file or directory and its mode, and whether the store belongs to who runs the command.
type BadPermission = (&'static str, u32, bool);

const BAD_PERMISSIONS: [BadPermission; 17] = [
    ("", 0o500, true),
    ("", 0o000, true),
    ("", 0o700, false),
    ("", 0o755, false),
    ("lock", 0o400, true),
    ("lock", 0o000, true),
    ("format", 0o000, true),
    ("log", 0o500, true),
    ("log", 0o000, true),
    ("log/00000001.log", 0o400, true),
    ("log/00000001.log", 0o000, true),
    ("index", 0o500, true),
    ("index", 0o000, true),
    ("index/metadata", 0o500, true),
    ("index/metadata", 0o000, true),
    ("index/slabs", 0o000, true),
    ("index.checkpoint", 0o000, true),
];

#[test]
#[ignore = "needs root: make test-faults"]
fn a_store_without_permissions_is_refused_and_unharmed() {
    if !can_drop_privileges() {
        return;
    }
    let shared = Sandbox::new();
    set_mode(shared.dir(), 0o755);
    let binary = shared.dir().join("sha-api");
    std::fs::copy(env!("CARGO_BIN_EXE_sha-api"), &binary).unwrap();
    for (state, base) in [("closed", cleanly_closed()), ("killed", index_behind_log())] {
        let tally = run_in_parallel(BAD_PERMISSIONS, |wrong| check_refused(&base, &binary, wrong));
        tally.record_and_assert(&format!("without the rights, store {state}"), true);
    }
}

fn check_refused(base: &FaultedStore, binary: &Path, (name, mode, own): BadPermission) -> Tally {
    let mut victim = base.copy(format!("{name:?} is {mode:o}, own: {own}"));
    chown(victim.dir(), Some(UNPRIVILEGED_UID), None).unwrap();
    if own {
        chown_tree(victim.store());
    }
    let path = victim.store().join(name);
    let before = path.metadata().unwrap().permissions();
    set_mode(&path, mode);
    let group = message_groups(60, &[2]);
    for arguments in [&["put", "--lines"][..], &["get", "--lines"], &["list"], &["stats"]] {
        let command = unprivileged_command(&victim, binary, arguments);
        if arguments[0] == "put" {
            victim.put_with(command, &group);
            continue;
        }
        let digests: String = victim.acknowledged.keys().map(|digest| format!("{digest}\n")).collect();
        let ran = victim.run(command, if arguments[0] == "get" { digests.as_bytes() } else { b"" });
        let is_said = ran.code == Some(0) || (ran.code == Some(3) && ran.stderr.starts_with("sha-api: "));
        let lines =
            ran.stdout.split(|byte| *byte == b'\n').filter(|line| victim.acknowledged.contains_key(&digest(line)));
        let is_whole = arguments[0] != "get" || ran.code != Some(0) || lines.count() == victim.acknowledged.len();
        if !is_said || !is_whole {
            victim.print_failure(&format!("{arguments:?}"), &ran);
            victim.tally.lost += 1;
        }
    }
    set_mode(&path, before.mode() & 0o777);
    // By root, to whom nothing is out of reach.
    let lost = victim.find_missing();
    assert!(lost.is_empty(), "{name}: {lost:?}");
    victim.tally.recovered = usize::from(victim.try_recover(&lost));
    victim.tally
}

fn unprivileged_command(victim: &FaultedStore, binary: &Path, arguments: &[&str]) -> Command {
    let mut own = Command::new(binary);
    own.args(arguments).envs(victim.command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    exec_under(&mut command, &own);
    command
}

fn chown_tree(path: &Path) {
    chown(path, Some(UNPRIVILEGED_UID), Some(UNPRIVILEGED_UID)).unwrap();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            chown_tree(&entry.unwrap().path());
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn can_drop_privileges() -> bool {
    if !rustix::process::geteuid().is_root() {
        report_skip("only root becomes somebody else");
        return false;
    }
    has_tool("setpriv")
}

#[test]
#[ignore = "needs root: make test-faults"]
fn an_acknowledged_refused_put_is_detected_as_a_loss() {
    let mut victim = cleanly_closed();
    let refused = b"refused".to_vec();
    victim.acknowledged.insert(digest(&refused), refused);
    victim.find_missing();
    victim.tally.record_and_assert_loss("a refused put that is taken for done");
}
