//! Truncated, removed and foreign files in a store. Losses are reported, and foreign files do no harm.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::faulted_store::{FaultedStore, copy_tree};
use super::scenarios::{cleanly_closed, index_behind_log};
use super::{Tally, run_in_parallel};
use crate::common::{Random, non_empty_files, pseudorandom_bytes};

/// Checks and recovers a store whose file or directory `file` is damaged. If the store cannot be opened, `file` is
/// first restored from `base`.
fn check_damaged_file(mut store: FaultedStore, base: &FaultedStore, file: &Path) -> Tally {
    let lost = store.find_missing();
    if store.is_unopenable {
        let path = store.path().join(file);
        match base.path().join(file).is_dir() {
            true => copy_tree(&base.path().join(file), &path),
            false => drop(std::fs::copy(base.path().join(file), &path).unwrap()),
        }
    }
    store.tally.recovered = usize::from(store.try_recover(&lost));
    store.tally
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_truncated_file_is_reported() {
    let mut random = Random(0xc07);
    let base = cleanly_closed();
    let mut cuts = Vec::new();
    for file in non_empty_files(base.path()) {
        let length = file.metadata().unwrap().len();
        let file = file.strip_prefix(base.path()).unwrap().to_owned();
        let count = if file.starts_with("log") { 60 } else { 6 };
        // Cuts in the preallocated zeros behind the data are equivalent, so the log is cut in its first 70,000 bytes.
        let length = if file.starts_with("log") { 70_000 } else { length };
        cuts.extend((0..count).map(|n| (file.clone(), if n == 0 { 0 } else { random.below(length) })));
    }
    let tally = run_in_parallel(cuts, |(file, length)| {
        let store = base.copy(format!("{} truncated to {length}", file.display()));
        std::fs::File::options().write(true).open(store.path().join(&file)).unwrap().set_len(length).unwrap();
        check_damaged_file(store, &base, &file)
    });
    tally.assert_losses_reported("a truncated file");
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_truncated_log_is_reported_without_the_index() {
    let base = cleanly_closed();
    let bytes = std::fs::read(base.first_segment()).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 64;
    let cuts = (0..end / 8).step_by(11).flat_map(|word| [(word * 8, true), (word * 8, false)]);
    let tally = run_in_parallel(cuts.collect::<Vec<_>>(), |(end, zeros)| {
        let store = base.copy(format!("the log ends at {end}, with zeros: {zeros}, without index"));
        let log = std::fs::File::options().write(true).open(store.first_segment()).unwrap();
        log.set_len(end).unwrap();
        if zeros {
            log.set_len(bytes.len() as u64).unwrap();
        }
        std::fs::remove_dir_all(store.path().join("index")).unwrap();
        store.into_tally()
    });
    tally.assert_losses_reported("a truncated log without the index");
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_removed_file_is_reported() {
    for (state, base) in [("closed", cleanly_closed()), ("killed", index_behind_log())] {
        let mut names: Vec<_> = non_empty_files(base.path()).iter().map(|file| relative_path(&base, file)).collect();
        names.extend(["log", "index", "index/slabs", "index/metadata"].map(|name| Path::new(name).to_owned()));
        let tally = run_in_parallel(names, |name| {
            let store = base.copy(format!("{} removed", name.display()));
            let path = store.path().join(&name);
            match path.is_dir() {
                true => std::fs::remove_dir_all(path).unwrap(),
                false => std::fs::remove_file(path).unwrap(),
            }
            check_damaged_file(store, &base, &name)
        });
        tally.assert_losses_reported(&format!("a removed file or directory, store {state}"));
    }
}

fn relative_path(store: &FaultedStore, file: &Path) -> std::path::PathBuf {
    file.strip_prefix(store.path()).unwrap().to_owned()
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
        let mut store = base.copy(format!("a foreign {kind} {dir}/{name}"));
        let path = store.path().join(dir).join(name);
        match kind {
            "bytes" => std::fs::write(&path, pseudorandom_bytes(5000, 3)).unwrap(),
            "nothing" => std::fs::write(&path, b"").unwrap(),
            "directory" => std::fs::create_dir(&path).unwrap(),
            "link" => symlink("nowhere", &path).unwrap(),
            _ => drop(std::fs::copy(other.first_segment(), &path).unwrap()),
        }
        let lost = store.find_missing();
        if !lost.is_empty() {
            match path.is_dir() {
                true => std::fs::remove_dir(&path).unwrap(),
                false => std::fs::remove_file(&path).unwrap(),
            }
        }
        store.tally.recovered = usize::from(store.try_recover(&lost));
        store.tally
    });
    tally.assert_losses_reported("a foreign file or directory");
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_replaced_log_is_detected_as_a_loss() {
    let (mut store, mut other) = (cleanly_closed(), FaultedStore::new());
    other.put(None, &[vec![b"another store".to_vec()]]);
    std::fs::remove_dir_all(store.path()).unwrap();
    copy_tree(other.path(), store.path());
    store.find_missing();
    store.tally.assert_loss_detected("a store replaced by another store");
}
