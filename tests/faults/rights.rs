//! A store that may not be written, is somebody else's, or whose files are out of reach: it is refused, that is said,
//! and nothing is harmed.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use super::scenes::{behind, closed};
use super::strace::instead;
use super::victim::{Victim, groups};
use super::{Tally, each};
use crate::common::{Sandbox, digest, has_tool, skipped};

const NOBODY: u32 = 65534;

/// What is wrong: the file or directory and its mode, and whether the store belongs to who runs the command.
type Wrong = (&'static str, u32, bool);

const WRONGS: [Wrong; 17] = [
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
fn a_store_without_the_rights_to_it_is_refused_and_unharmed() {
    if !can_be_nobody() {
        return;
    }
    let shared = Sandbox::new();
    set(shared.dir(), 0o755);
    let binary = shared.dir().join("sha-api");
    std::fs::copy(env!("CARGO_BIN_EXE_sha-api"), &binary).unwrap();
    for (state, base) in [("closed", closed()), ("killed", behind())] {
        let tally = each(WRONGS, |wrong| judge(&base, &binary, wrong));
        tally.row(&format!("without the rights, store {state}"), true);
    }
}

fn judge(base: &Victim, binary: &Path, (name, mode, own): Wrong) -> Tally {
    let mut victim = base.copy(format!("{name:?} is {mode:o}, own: {own}"));
    chown(victim.dir(), Some(NOBODY), None).unwrap();
    if own {
        give(victim.store());
    }
    let path = victim.store().join(name);
    let before = path.metadata().unwrap().permissions();
    set(&path, mode);
    let group = groups(60, &[2]);
    for arguments in [&["put", "--lines"][..], &["get", "--lines"], &["list"], &["stats"]] {
        let command = as_nobody(&victim, binary, arguments);
        if arguments[0] == "put" {
            victim.put_by(command, &group);
            continue;
        }
        let digests: String = victim.known.keys().map(|digest| format!("{digest}\n")).collect();
        let ran = victim.run(command, if arguments[0] == "get" { digests.as_bytes() } else { b"" });
        let is_said = ran.code == Some(0) || (ran.code == Some(3) && ran.stderr.starts_with("sha-api: "));
        let lines = ran.stdout.split(|byte| *byte == b'\n').filter(|line| victim.known.contains_key(&digest(line)));
        let is_whole = arguments[0] != "get" || ran.code != Some(0) || lines.count() == victim.known.len();
        if !is_said || !is_whole {
            victim.blame(&format!("{arguments:?}"), &ran);
            victim.tally.lost += 1;
        }
    }
    set(&path, before.mode() & 0o777);
    // By root, to whom nothing is out of reach.
    let lost = victim.check();
    assert!(lost.is_empty(), "{name}: {lost:?}");
    victim.tally.recovered = usize::from(victim.recovers(&lost));
    victim.tally
}

fn as_nobody(victim: &Victim, binary: &Path, arguments: &[&str]) -> Command {
    let mut own = Command::new(binary);
    own.args(arguments).envs(victim.command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    instead(&mut command, &own);
    command
}

fn give(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

fn set(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn can_be_nobody() -> bool {
    if !rustix::process::geteuid().is_root() {
        skipped("only root becomes somebody else");
        return false;
    }
    has_tool("setpriv")
}

#[test]
#[ignore = "needs root: make test-faults"]
fn a_put_that_was_refused_is_seen_as_a_loss() {
    let mut victim = closed();
    let refused = b"refused".to_vec();
    victim.known.insert(digest(&refused), refused);
    victim.check();
    victim.tally.control("a refused put that is taken for done");
}
