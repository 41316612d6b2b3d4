//! A store that is read-only, belongs to another user or has inaccessible files. Commands fail with an error message
//! and change nothing.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use super::faulted_store::{FaultedStore, message_groups};
use super::scenarios::{cleanly_closed, index_behind_log};
use super::strace::exec_under;
use super::{Tally, run_in_parallel};
use crate::common::{Sandbox, digest, has_tool, report_skip};

const UNPRIVILEGED_UID: u32 = 65534;

/// A file or directory, its mode, and whether the store belongs to the user that runs the command.
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
        let tally = run_in_parallel(BAD_PERMISSIONS, |permission| check_refused(&base, &binary, permission));
        tally.assert_losses_reported(&format!("missing permissions, store {state}"));
    }
}

fn check_refused(base: &FaultedStore, binary: &Path, (name, mode, is_owner): BadPermission) -> Tally {
    let mut store = base.copy(format!("mode of {name:?} is {mode:o}, is owner: {is_owner}"));
    chown(store.dir(), Some(UNPRIVILEGED_UID), None).unwrap();
    if is_owner {
        chown_tree(store.path());
    }
    let path = store.path().join(name);
    let before = path.metadata().unwrap().permissions();
    set_mode(&path, mode);
    let group = message_groups(60, &[2]);
    for arguments in [&["put", "--lines"][..], &["get", "--lines"], &["list"], &["stats"]] {
        let command = unprivileged_command(&store, binary, arguments);
        if arguments[0] == "put" {
            store.put_with(command, &group);
            continue;
        }
        let digests: String = store.acknowledged.keys().map(|digest| format!("{digest}\n")).collect();
        let result = store.run(command, if arguments[0] == "get" { digests.as_bytes() } else { b"" });
        let is_reported = result.code == Some(0) || (result.code == Some(3) && result.stderr.starts_with("sha-api: "));
        let lines =
            result.stdout.split(|byte| *byte == b'\n').filter(|line| store.acknowledged.contains_key(&digest(line)));
        let is_complete = arguments[0] != "get" || result.code != Some(0) || lines.count() == store.acknowledged.len();
        if !is_reported || !is_complete {
            store.print_failure(&format!("{arguments:?}"), &result);
            store.tally.lost += 1;
        }
    }
    set_mode(&path, before.mode() & 0o777);
    // The check runs as root, which can read all files.
    let lost = store.find_missing();
    assert!(lost.is_empty(), "{name}: {lost:?}");
    store.tally.recovered = usize::from(store.try_recover(&lost));
    store.tally
}

fn unprivileged_command(store: &FaultedStore, binary: &Path, arguments: &[&str]) -> Command {
    let mut sha_api = Command::new(binary);
    sha_api.args(arguments).envs(store.command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    exec_under(&mut command, &sha_api);
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
        report_skip("switching to another user requires root");
        return false;
    }
    has_tool("setpriv")
}

#[test]
#[ignore = "needs root: make test-faults"]
fn an_acknowledged_refused_put_is_detected_as_a_loss() {
    let mut store = cleanly_closed();
    let message = b"refused".to_vec();
    store.acknowledged.insert(digest(&message), message);
    store.find_missing();
    store.tally.assert_loss_detected("a refused put counted as acknowledged");
}
