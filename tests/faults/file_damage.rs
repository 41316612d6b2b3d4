//! Files that are cut, removed, or none of the store's: what is lost is said, and what is foreign is left alone.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::faulted_store::{FaultedStore, copy_tree, non_empty_files};
use super::scenarios::{cleanly_closed, index_behind_log};
use super::{Tally, run_in_parallel};
use crate::common::{Random, pseudorandom_bytes};

/// Checks; where the store was refused, gives it back what was taken; recovers.
fn check_damaged_file(mut victim: FaultedStore, base: &FaultedStore, file: &Path) -> Tally {
    let lost = victim.find_missing();
    if victim.is_unopenable {
        let path = victim.store().join(file);
        match base.store().join(file).is_dir() {
            true => copy_tree(&base.store().join(file), &path),
            false => drop(std::fs::copy(base.store().join(file), &path).unwrap()),
        }
    }
    victim.tally.recovered = usize::from(victim.try_recover(&lost));
    victim.tally
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_truncated_file_is_reported() {
    let mut random = Random(0xc07);
    let base = cleanly_closed();
    let mut cuts = Vec::new();
    for file in non_empty_files(base.store()) {
        let length = file.metadata().unwrap().len();
        let file = file.strip_prefix(base.store()).unwrap().to_owned();
        let places = if file.starts_with("log") { 60 } else { 6 };
        // Most of the zeros behind the end of the log are alike.
        let length = if file.starts_with("log") { 70_000 } else { length };
        cuts.extend((0..places).map(|n| (file.clone(), if n == 0 { 0 } else { random.below(length) })));
    }
    let tally = run_in_parallel(cuts, |(file, length)| {
        let victim = base.copy(format!("{} cut to {length}", file.display()));
        std::fs::File::options().write(true).open(victim.store().join(&file)).unwrap().set_len(length).unwrap();
        check_damaged_file(victim, &base, &file)
    });
    tally.record_and_assert("a file is cut", true);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_truncated_log_is_reported_without_the_index() {
    let base = cleanly_closed();
    let bytes = std::fs::read(base.first_segment()).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 64;
    let cuts = (0..end / 8).step_by(11).flat_map(|word| [(word * 8, true), (word * 8, false)]);
    let tally = run_in_parallel(cuts.collect::<Vec<_>>(), |(end, zeros)| {
        let victim = base.copy(format!("the log ends at {end}, with zeros: {zeros}, without index"));
        let log = std::fs::File::options().write(true).open(victim.first_segment()).unwrap();
        log.set_len(end).unwrap();
        if zeros {
            log.set_len(bytes.len() as u64).unwrap();
        }
        std::fs::remove_dir_all(victim.store().join("index")).unwrap();
        victim.into_tally()
    });
    tally.record_and_assert("the log ends early, and the index is gone", true);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_removed_file_is_reported() {
    for (state, base) in [("closed", cleanly_closed()), ("killed", index_behind_log())] {
        let mut names: Vec<_> = non_empty_files(base.store()).iter().map(|file| relative_path(&base, file)).collect();
        names.extend(["log", "index", "index/slabs", "index/metadata"].map(|name| Path::new(name).to_owned()));
        let tally = run_in_parallel(names, |name| {
            let victim = base.copy(format!("{} removed", name.display()));
            let path = victim.store().join(&name);
            match path.is_dir() {
                true => std::fs::remove_dir_all(path).unwrap(),
                false => std::fs::remove_file(path).unwrap(),
            }
            check_damaged_file(victim, &base, &name)
        });
        tally.record_and_assert(&format!("a file or directory is removed, store {state}"), true);
    }
}

fn relative_path(victim: &FaultedStore, file: &Path) -> std::path::PathBuf {
    file.strip_prefix(victim.store()).unwrap().to_owned()
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn foreign_files_lose_nothing() {
    let (base, other) = (cleanly_closed(), cleanly_closed());
    let names = ["letter", ".hidden", "00000002.log", "00000007.log", "99999999.log", "0000000x.log", "tmp"];
    let jobs =
        ["", "log", "index", "index/metadata", "index/slabs"].into_iter().flat_map(|dir| names.map(|name| (dir, name)));
    let jobs =
        jobs.flat_map(|(dir, name)| ["bytes", "nothing", "directory", "link", "segment"].map(|kind| (dir, name, kind)));
    let tally = run_in_parallel(jobs.collect::<Vec<_>>(), |(dir, name, kind)| {
        let mut victim = base.copy(format!("a foreign {kind} {dir}/{name}"));
        let path = victim.store().join(dir).join(name);
        match kind {
            "bytes" => std::fs::write(&path, pseudorandom_bytes(5000, 3)).unwrap(),
            "nothing" => std::fs::write(&path, b"").unwrap(),
            "directory" => std::fs::create_dir(&path).unwrap(),
            "link" => symlink("nowhere", &path).unwrap(),
            _ => drop(std::fs::copy(other.first_segment(), &path).unwrap()),
        }
        let lost = victim.find_missing();
        if !lost.is_empty() {
            match path.is_dir() {
                true => std::fs::remove_dir(&path).unwrap(),
                false => std::fs::remove_file(&path).unwrap(),
            }
        }
        victim.tally.recovered = usize::from(victim.try_recover(&lost));
        victim.tally
    });
    tally.record_and_assert("a foreign file or directory", true);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_replaced_log_is_detected_as_a_loss() {
    let (mut victim, other) = (cleanly_closed(), FaultedStore::new());
    let mut other = other;
    other.put(None, &[vec![b"another store".to_vec()]]);
    std::fs::remove_dir_all(victim.store()).unwrap();
    copy_tree(other.store(), victim.store());
    victim.find_missing();
    victim.tally.record_and_assert_loss("another store in the place of this");
}
