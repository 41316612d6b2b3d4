//! A deleted, truncated or overwritten index is rebuilt from the log by the next command, which gives a correct result.

use predicates::prelude::*;

use crate::common::server::TEST_TIMEOUT;
use crate::common::{Random, Sandbox, can_trace, digest, non_empty_files, pseudorandom_bytes};

const MESSAGE_COUNT: usize = 3000;

/// Creates a store whose index was written by several processes. Returns the store and its digests, one per line.
fn store_with_history() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    let lines: Vec<_> = (0..MESSAGE_COUNT).map(|number| format!("message {number}")).collect();
    for part in lines.chunks(MESSAGE_COUNT / 5) {
        sandbox.sha_api(["put", "--lines"]).write_stdin(part.join("\n")).assert().code(0).stderr("");
    }
    let digests = lines.iter().map(|line| digest(line.as_bytes()) + "\n").collect();
    (sandbox, digests)
}

fn assert_all_stored(sandbox: &Sandbox, digests: &str, context: &str) {
    let has = sandbox.sha_api(["has", "-"]).write_stdin(digests).timeout(TEST_TIMEOUT).output().unwrap();
    assert!(has.status.success() && has.stdout.is_empty(), "{context}: {has:?}");
    let stats = sandbox.sha_api(["stats", "--json"]).assert().code(0).get_output().stdout.clone();
    assert!(String::from_utf8_lossy(&stats).contains(&format!("\"messages\":{MESSAGE_COUNT},")), "{context}");
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
    // A record starts with a header of 48 bytes at a multiple of eight.
    let begin = (end - 48).next_multiple_of(8);
    bytes[begin..].fill(0);
    std::fs::write(&log, bytes).unwrap();
    std::fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    let has = sandbox.sha_api(["has", "-"]).write_stdin(digests).assert().code(1);
    has.stdout(format!("{}\n", digest(last.as_bytes()))).stderr(predicate::str::contains("data loss: 1 of "));
}

#[test]
fn a_missing_segment_is_reported_when_the_index_is_lost_too() {
    let sandbox = Sandbox::new();
    let mut put = sandbox.sha_api(["--segment-size", "64KiB", "put", "--lines"]);
    let lines: Vec<_> = (0..MESSAGE_COUNT).map(|number| format!("message {number}")).collect();
    put.write_stdin(lines.join("\n")).assert().code(0);
    std::fs::remove_file(sandbox.store().join("log/00000002.log")).unwrap();
    std::fs::remove_dir_all(sandbox.store().join("index")).unwrap();
    let missing = "missing log segment: 00000002.log; its messages are lost";
    sandbox.sha_api(["stats"]).assert().code(0).stderr(predicate::str::contains(missing));
    let recorded = predicate::str::starts_with("sha-api: data loss: number of lost messages: ");
    sandbox.sha_api(["stats"]).assert().code(0).stderr(recorded);
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
        let candidates = if round % 2 == 0 { metadata } else { all };
        let path = &candidates[usize::try_from(random.below(candidates.len() as u64)).unwrap()];
        let mut bytes = std::fs::read(path).unwrap();
        let offset = usize::try_from(random.below(bytes.len() as u64)).unwrap();
        let end = (offset + usize::try_from(1 + random.below(5000)).unwrap()).min(bytes.len());
        let damage = match random.below(5) {
            0 => {
                std::fs::remove_file(path).unwrap();
                "removed"
            }
            1 => {
                std::fs::write(path, &bytes[..offset]).unwrap();
                "truncated"
            }
            2 => {
                bytes[offset..end].fill(0);
                std::fs::write(path, &bytes).unwrap();
                "zeroed"
            }
            3 => {
                bytes[offset] ^= 1 << random.below(8);
                std::fs::write(path, &bytes).unwrap();
                "flipped"
            }
            _ => {
                bytes[offset..end].copy_from_slice(&pseudorandom_bytes(end - offset, random.next()));
                std::fs::write(path, &bytes).unwrap();
                "overwritten"
            }
        };
        assert_all_stored(
            &sandbox,
            &digests,
            &format!("round {round}: {} {damage} at offset {offset}", path.display()),
        );
    }
}

#[test]
fn an_index_of_random_bytes_is_rebuilt_and_reported() {
    let (sandbox, digests) = store_with_history();
    for path in non_empty_files(&sandbox.store().join("index")) {
        let length = usize::try_from(path.metadata().unwrap().len()).unwrap();
        std::fs::write(path, pseudorandom_bytes(length, 4)).unwrap();
    }
    let warning = predicate::str::contains("rebuilding the index from the log");
    sandbox.sha_api(["has", "-"]).write_stdin(digests.clone()).assert().code(0).stdout("").stderr(warning);
    assert_all_stored(&sandbox, &digests, "random bytes");
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
    // One digit of the salt is changed.
    let mut flipped = before.clone();
    flipped[20] = if before[20] == b'7' { b'5' } else { b'7' };
    for damage in [None, Some(b"".as_slice()), Some(b"sha-api store 1 zz\n"), Some(b"\xff\xff"), Some(&flipped)] {
        match damage {
            None => std::fs::remove_file(&format).unwrap(),
            Some(bytes) => std::fs::write(&format, bytes).unwrap(),
        }
        sandbox.sha_api(["stats"]).assert().code(0).stderr(predicate::str::contains("it was restored from the log"));
        assert_eq!(std::fs::read(&format).unwrap(), before);
    }
    assert_all_stored(&sandbox, &digests, "format");
}

#[test]
fn a_store_of_a_newer_format_is_refused_and_unchanged() {
    let (sandbox, _) = store_with_history();
    std::fs::write(sandbox.store().join("format"), "sha-api store 2 something else\n").unwrap();
    let error = || {
        predicate::str::contains("unsupported format version 2").and(predicate::str::contains("use a newer sha-api"))
    };
    sandbox.sha_api(["put", "foo"]).assert().code(3).stdout("").stderr(error());
    sandbox.sha_api(["list"]).assert().code(3).stdout("").stderr(error());
}

#[test]
fn a_directory_of_other_files_is_not_used_as_a_store() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.store()).unwrap();
    std::fs::write(sandbox.store().join("letter"), "dear").unwrap();
    let error = predicate::str::contains("the directory contains other files");
    sandbox.sha_api(["put", "foo"]).assert().code(3).stdout("").stderr(error);
    assert_eq!(std::fs::read_dir(sandbox.store()).unwrap().count(), 1);
}

#[test]
fn the_number_of_messages_lost_from_the_log_is_reported() {
    let (sandbox, _) = store_with_history();
    let log = sandbox.store().join("log/00000001.log");
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..64]).unwrap();
    let warning = predicate::str::contains(format!("data loss: {MESSAGE_COUNT} of {MESSAGE_COUNT} stored messages"));
    sandbox.sha_api(["stats"]).assert().code(0).stderr(warning);
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
    get.stderr(predicate::str::contains("data loss: 2 of 4 stored messages missing from the log"));
    let recorded = predicate::str::starts_with("sha-api: data loss: number of lost messages: 2;");
    sandbox.sha_api(["has", &digest(b"one"), &digest(b"two")]).assert().code(0).stdout("").stderr(recorded.clone());
    sandbox.sha_api(["put", "three"]).assert().code(0).stderr(recorded);
    sandbox.sha_api(["verify", "--accept-loss"]).assert().code(0);
    sandbox.sha_api(["verify"]).assert().code(0).stdout("3 messages, 11 bytes: intact\n").stderr("");
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
    // The process is killed at its first sync, which is the sync of the new index.
    let strace_args = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"];
    let stats = sandbox.std_command(["stats"]);
    let mut command = std::process::Command::new("strace");
    command.args(strace_args).arg("inject=fsync,fdatasync:signal=KILL").arg(stats.get_program()).args(stats.get_args());
    let killed = command.env("SHA_API_STORE", sandbox.store()).output().unwrap();
    assert!(!killed.status.success() && killed.stdout.is_empty(), "{killed:?}");
    let warning = predicate::str::contains(format!("data loss: {MESSAGE_COUNT} of {MESSAGE_COUNT} stored messages"));
    sandbox.sha_api(["stats"]).assert().code(0).stderr(warning.clone());
    sandbox.sha_api(["stats"]).assert().code(0).stderr(warning.not());
}

/// Creates a store whose process was killed before the first flush of the index.
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
    // The first write of each thread succeeds. The writes of the quarantine file and of the index flush fail.
    let strace_args =
        ["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=write", "-e", "inject=write:error=EIO:when=2+"];
    let has = sandbox.std_command(["has", &digest(b"first")]);
    let mut command = std::process::Command::new("strace");
    command.args(strace_args).arg(has.get_program()).args(has.get_args()).env("SHA_API_STORE", sandbox.store());
    let mut command = assert_cmd::Command::from_std(command);
    command.timeout(TEST_TIMEOUT).assert().code(3).stdout("");
    sandbox.sha_api(["get", &digest(b"first")]).assert().code(0).stdout("first");
}

/// Runs `stats` under `wrapper`, which restricts its resources. Returns whether the command succeeded. Panics if the
/// index was replaced, or the error is not one line with the cause.
fn stats_under(wrapper: &[&str], sandbox: &Sandbox) -> bool {
    use std::os::unix::fs::MetadataExt;
    let index_inode = || std::fs::metadata(sandbox.store().join("index")).unwrap().ino();
    let inode_before = index_inode();
    let stats = sandbox.std_command(["stats"]);
    let mut command = std::process::Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(stats.get_program()).args(stats.get_args()).env("SHA_API_STORE", sandbox.store());
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!sandbox.store().join("index.damaged").exists(), "{wrapper:?}: {stderr}");
    assert_eq!(index_inode(), inode_before, "{wrapper:?}: {stderr}");
    assert!(!stderr.contains(".rs") && !stderr.contains("rebuil"), "{wrapper:?}: {stderr}");
    match output.status.code() {
        Some(0) => stderr.is_empty(),
        code => {
            assert_eq!((code, stderr.lines().count()), (Some(3), 1), "{wrapper:?}: {stderr}");
            assert!(output.stdout.is_empty(), "{wrapper:?}: {output:?}");
            false
        }
    }
}

#[test]
fn too_few_descriptors_are_not_taken_for_damage() {
    let (sandbox, digests) = store_with_history();
    let with_limit = |limit: u32| {
        let script = format!("ulimit -n {limit}; exec \"$@\"");
        stats_under(&["sh", "-c", &script, "sh"], &sandbox)
    };
    // Fewer descriptors are needed to start the process at all.
    let succeeded: Vec<_> = (12..100).map(with_limit).collect();
    assert!(!succeeded[0] && succeeded[87], "{succeeded:?}");
    sandbox.sha_api(["stats"]).assert().code(0).stderr("");
    assert_all_stored(&sandbox, &digests, "limited descriptors");
}

#[test]
fn a_shortage_of_any_resource_is_not_taken_for_damage() {
    if !can_trace() {
        return;
    }
    let (sandbox, digests) = store_with_history();
    let errors =
        [("openat", "ENFILE"), ("clone3", "EAGAIN"), ("clone3", "ENOMEM"), ("openat", "EDQUOT"), ("fsync", "ENOSPC")];
    for (call, error) in errors {
        let index_files = ["index", "index/metadata", "index/slabs"].map(|name| sandbox.store().join(name));
        let mut failures = 0;
        for n in 1..12 {
            let inject = format!("inject={call}:error={error}:when={n}+");
            let trace = format!("trace={call}");
            let mut wrapper = vec!["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            if call != "clone3" {
                for path in &index_files {
                    wrapper.extend(["-P", path.to_str().unwrap()]);
                }
            }
            failures += usize::from(!stats_under(&wrapper, &sandbox));
        }
        assert!(failures > 0, "{call}: {error}");
        sandbox.sha_api(["stats"]).assert().code(0).stderr("");
    }
    assert_all_stored(&sandbox, &digests, "injected shortages");
}
