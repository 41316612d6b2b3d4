//! The index is expendable: deleted, cut or overwritten, the next command makes it anew and answers.

use std::path::{Path, PathBuf};

use predicates::prelude::*;

use crate::common::{Random, Sandbox, can_trace, digest, pseudorandom_bytes};

const MESSAGE_COUNT: usize = 3000;

/// A store whose index has a past: several processes have written to it.
fn store_with_history() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    let lines: Vec<_> = (0..MESSAGE_COUNT).map(|number| format!("message {number}")).collect();
    for part in lines.chunks(MESSAGE_COUNT / 5) {
        sandbox.sha_api(["put", "--lines"]).write_stdin(part.join("\n")).assert().code(0).stderr("");
    }
    let digests = lines.iter().map(|line| digest(line.as_bytes()) + "\n").collect();
    (sandbox, digests)
}

/// The files of the index that hold anything.
fn non_empty_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.flat_map(|path| if path.is_dir() { non_empty_files(&path) } else { vec![path] }).collect();
    files.retain(|path| path.metadata().unwrap().len() > 0);
    files.sort();
    files
}

fn assert_all_stored(sandbox: &Sandbox, digests: &str, what: &str) {
    let has = sandbox
        .sha_api(["has", "-"])
        .write_stdin(digests)
        .timeout(std::time::Duration::from_secs(120))
        .output()
        .unwrap();
    assert!(has.status.success() && has.stdout.is_empty(), "{what}: {has:?}");
    let stats = sandbox.sha_api(["stats", "--json"]).assert().code(0).get_output().stdout.clone();
    assert!(String::from_utf8_lossy(&stats).contains(&format!("\"messages\":{MESSAGE_COUNT},")), "{what}");
}

#[test]
fn a_deleted_index_is_rebuilt() {
    let (sandbox, digests) = store_with_history();
    std::fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    assert_all_stored(&sandbox, &digests, "deleted");
}

#[test]
fn log_losses_are_reported_when_the_index_is_lost_too() {
    let (sandbox, digests) = store_with_history();
    let log = sandbox.store().join("log/00000001.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let last = format!("message {}", MESSAGE_COUNT - 1);
    let end = bytes.windows(last.len()).rposition(|window| window == last.as_bytes()).unwrap();
    // The mark and the rest of the header stand before the message, and all is aligned to eight.
    let begin = (end - 48).next_multiple_of(8);
    bytes[begin..].fill(0);
    std::fs::write(&log, bytes).unwrap();
    std::fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    let has = sandbox.sha_api(["has", "-"]).write_stdin(digests).assert().code(1);
    has.stdout(format!("{}\n", digest(last.as_bytes())))
        .stderr(predicate::str::contains("1 messages that were stored are gone from the log"));
}

#[test]
fn a_missing_segment_is_reported_when_the_index_is_lost_too() {
    let sandbox = Sandbox::new();
    let mut put = sandbox.sha_api(["--segment-size", "64KiB", "put", "--lines"]);
    let lines: Vec<_> = (0..MESSAGE_COUNT).map(|number| format!("message {number}")).collect();
    put.write_stdin(lines.join("\n")).assert().code(0);
    std::fs::remove_file(sandbox.store().join("log/00000002.log")).unwrap();
    std::fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    let missing = "00000002.log is missing in the log, and what stood there with it";
    sandbox.sha_api(["stats"]).assert().code(0).stderr(predicate::str::contains(missing));
    sandbox.sha_api(["stats"]).assert().code(0).stderr("");
}

#[test]
fn an_index_truncated_or_overwritten_anywhere_is_rebuilt() {
    let (sandbox, digests) = store_with_history();
    let index = sandbox.store().join("index");
    let mut random = Random(0xdace);
    for round in 0..40 {
        let all = non_empty_files(&index);
        let metadata: Vec<_> =
            all.iter().filter(|path| path.parent().unwrap().ends_with("metadata")).cloned().collect();
        let some = if round % 2 == 0 { metadata } else { all };
        let path = &some[usize::try_from(random.below(some.len() as u64)).unwrap()];
        let mut bytes = std::fs::read(path).unwrap();
        let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
        let end = (at + usize::try_from(1 + random.below(5000)).unwrap()).min(bytes.len());
        let what = match random.below(5) {
            0 => {
                std::fs::remove_file(path).unwrap();
                "removed"
            }
            1 => {
                std::fs::write(path, &bytes[..at]).unwrap();
                "cut"
            }
            2 => {
                bytes[at..end].fill(0);
                std::fs::write(path, &bytes).unwrap();
                "zeroed"
            }
            3 => {
                bytes[at] ^= 1 << random.below(8);
                std::fs::write(path, &bytes).unwrap();
                "flipped"
            }
            _ => {
                bytes[at..end].copy_from_slice(&pseudorandom_bytes(end - at, random.next()));
                std::fs::write(path, &bytes).unwrap();
                "overwritten"
            }
        };
        assert_all_stored(&sandbox, &digests, &format!("round {round}: {} {what} at {at}", path.display()));
    }
}

#[test]
fn an_index_of_random_bytes_is_rebuilt_and_reported() {
    let (sandbox, digests) = store_with_history();
    for path in non_empty_files(&sandbox.store().join("index")) {
        let length = usize::try_from(path.metadata().unwrap().len()).unwrap();
        std::fs::write(path, pseudorandom_bytes(length, 4)).unwrap();
    }
    let said = predicate::str::contains("the index is made anew from the log");
    sandbox.sha_api(["has", "-"]).write_stdin(digests.clone()).assert().code(0).stdout("").stderr(said);
    assert_all_stored(&sandbox, &digests, "noise");
}

#[test]
fn stdout_has_only_results_while_the_index_is_rebuilt() {
    let (sandbox, digests) = store_with_history();
    for path in non_empty_files(&sandbox.store().join("index/slabs")) {
        std::fs::write(path, b"").unwrap();
    }
    let expected: String = (0..MESSAGE_COUNT).map(|number| format!("message {number}\n")).collect();
    sandbox.sha_api(["get", "--lines"]).write_stdin(digests).assert().code(0).stdout(expected);
}

#[test]
fn a_lost_format_file_is_restored_from_the_log() {
    let (sandbox, digests) = store_with_history();
    let format = sandbox.store().join("format");
    let before = std::fs::read(&format).unwrap();
    // One digit of the salt for another.
    let mut flipped = before.clone();
    flipped[20] = if before[20] == b'7' { b'5' } else { b'7' };
    for damage in [None, Some(b"".as_slice()), Some(b"sha-api store 1 zz\n"), Some(b"\xff\xff"), Some(&flipped)] {
        match damage {
            None => std::fs::remove_file(&format).unwrap(),
            Some(bytes) => std::fs::write(&format, bytes).unwrap(),
        }
        sandbox.sha_api(["stats"]).assert().code(0).stderr(predicate::str::contains("is mended"));
        assert_eq!(std::fs::read(&format).unwrap(), before);
    }
    assert_all_stored(&sandbox, &digests, "format");
}

#[test]
fn a_store_of_a_newer_format_is_refused_and_unchanged() {
    let (sandbox, _) = store_with_history();
    std::fs::write(sandbox.store().join("format"), "sha-api store 2 something else\n").unwrap();
    let refused = || predicate::str::contains("has format 2").and(predicate::str::contains("use a newer sha-api"));
    sandbox.sha_api(["put", "foo"]).assert().code(3).stdout("").stderr(refused());
    sandbox.sha_api(["list"]).assert().code(3).stdout("").stderr(refused());
}

#[test]
fn a_directory_of_other_files_is_not_used_as_a_store() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.store()).unwrap();
    std::fs::write(sandbox.store().join("letter"), "dear").unwrap();
    let refused = predicate::str::contains("is not empty and is no store");
    sandbox.sha_api(["put", "foo"]).assert().code(3).stdout("").stderr(refused);
    assert_eq!(std::fs::read_dir(sandbox.store()).unwrap().count(), 1);
}

#[test]
fn the_number_of_messages_lost_from_the_log_is_reported() {
    let (sandbox, _) = store_with_history();
    let log = sandbox.store().join("log/00000001.log");
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..64]).unwrap();
    let said = predicate::str::contains(format!("{MESSAGE_COUNT} messages that were stored are gone from the log"));
    sandbox.sha_api(["stats"]).assert().code(0).stderr(said);
}

#[test]
fn log_losses_are_reported_when_the_index_flush_was_deferred() {
    let sandbox = Sandbox::new();
    for message in ["one", "two", "three", "four"] {
        sandbox.sha_api(["put", message]).assert().code(0);
    }
    let log = sandbox.store().join("log/00000001.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let third = bytes.windows(5).rposition(|window| window == b"three").unwrap();
    bytes[third - 48..].fill(0);
    std::fs::write(&log, bytes).unwrap();
    let get = sandbox.sha_api(["get", &digest(b"three")]).assert().code(1).stdout("");
    get.stderr(predicate::str::contains("2 messages that were stored are gone from the log"));
    sandbox.sha_api(["has", &digest(b"one"), &digest(b"two")]).assert().code(0).stdout("").stderr("");
    sandbox.sha_api(["put", "three"]).assert().code(0).stderr("");
    sandbox.sha_api(["verify"]).assert().code(0).stdout("3 messages, 11 bytes: whole\n").stderr("");
}

#[test]
fn log_losses_are_reported_after_an_interrupted_rebuild() {
    if !can_trace() {
        return;
    }
    let (sandbox, _) = store_with_history();
    let log = sandbox.store().join("log/00000001.log");
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..64]).unwrap();
    std::fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    // The first thing that is synced is the new tree: this far, and no further.
    let kill = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"];
    let own = sandbox.std_command(["stats"]);
    let mut command = std::process::Command::new("strace");
    command.args(kill).arg("inject=fsync,fdatasync:signal=KILL").arg(own.get_program()).args(own.get_args());
    let killed = command.env("SHA_API_STORE", sandbox.store()).output().unwrap();
    assert!(!killed.status.success() && killed.stdout.is_empty(), "{killed:?}");
    let said = predicate::str::contains(format!("{MESSAGE_COUNT} messages that were stored are gone from the log"));
    sandbox.sha_api(["stats"]).assert().code(0).stderr(said.clone());
    sandbox.sha_api(["stats"]).assert().code(0).stderr(said.not());
}

/// A store that was killed before the index was flushed for the first time.
fn killed_store() -> Sandbox {
    let sandbox = Sandbox::new();
    let mut put = sandbox.spawn_put_holding_lock("first");
    put.kill().unwrap();
    put.wait().unwrap();
    sandbox
}

#[test]
fn a_new_store_has_reserved_space_before_the_first_flush() {
    let sandbox = killed_store();
    assert!(!sandbox.store().join("index.checkpoint").exists());
    assert_eq!(sandbox.store().join("index.reserved").metadata().unwrap().len(), 2 << 20);
}

#[test]
fn closing_with_an_unflushable_index_does_not_hang() {
    if !can_trace() {
        return;
    }
    let sandbox = killed_store();
    let log = sandbox.store().join("log/00000001.log");
    let mut bytes = std::fs::read(&log).unwrap();
    *bytes.last_mut().unwrap() = 1;
    std::fs::write(&log, bytes).unwrap();
    // What a thread writes first is written; what is set aside is not, nor is the index at the end.
    let fail = ["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=write", "-e", "inject=write:error=EIO:when=2+"];
    let own = sandbox.std_command(["has", &digest(b"first")]);
    let mut command = std::process::Command::new("strace");
    command.args(fail).arg(own.get_program()).args(own.get_args()).env("SHA_API_STORE", sandbox.store());
    let mut command = assert_cmd::Command::from_std(command);
    command.timeout(std::time::Duration::from_secs(20)).assert().code(3).stdout("");
    sandbox.sha_api(["get", &digest(b"first")]).assert().code(0).stdout("first");
}
