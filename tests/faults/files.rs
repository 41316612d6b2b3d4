//! Files that are cut, removed, or none of the store's: what is lost is said, and what is foreign is left alone.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::scenes::{behind, closed};
use super::victim::{Victim, copy_tree, files};
use super::{Tally, each};
use crate::common::{Random, noise};

/// Checks; where the store was refused, gives it back what was taken; recovers.
fn judge(mut victim: Victim, base: &Victim, file: &Path) -> Tally {
    let lost = victim.check();
    if victim.refused {
        let path = victim.store().join(file);
        match base.store().join(file).is_dir() {
            true => copy_tree(&base.store().join(file), &path),
            false => drop(std::fs::copy(base.store().join(file), &path).unwrap()),
        }
    }
    victim.tally.recovered = usize::from(victim.recovers(&lost));
    victim.tally
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_file_that_is_cut_is_said() {
    let mut random = Random(0xc07);
    let base = closed();
    let mut cuts = Vec::new();
    for file in files(base.store()) {
        let length = file.metadata().unwrap().len();
        let file = file.strip_prefix(base.store()).unwrap().to_owned();
        let places = if file.starts_with("log") { 60 } else { 6 };
        // Most of the zeros behind the end of the log are alike.
        let length = if file.starts_with("log") { 70_000 } else { length };
        cuts.extend((0..places).map(|n| (file.clone(), if n == 0 { 0 } else { random.below(length) })));
    }
    let tally = each(cuts, |(file, length)| {
        let victim = base.copy(format!("{} cut to {length}", file.display()));
        std::fs::File::options().write(true).open(victim.store().join(&file)).unwrap().set_len(length).unwrap();
        judge(victim, &base, &file)
    });
    tally.row("a file is cut", true);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_log_that_ends_early_is_said_without_the_index() {
    let base = closed();
    let bytes = std::fs::read(base.log()).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 64;
    let cuts = (0..end / 8).step_by(11).flat_map(|word| [(word * 8, true), (word * 8, false)]);
    let tally = each(cuts.collect::<Vec<_>>(), |(end, zeros)| {
        let victim = base.copy(format!("the log ends at {end}, with zeros: {zeros}, without index"));
        let log = std::fs::File::options().write(true).open(victim.log()).unwrap();
        log.set_len(end).unwrap();
        if zeros {
            log.set_len(bytes.len() as u64).unwrap();
        }
        std::fs::remove_dir_all(victim.store().join("index")).unwrap();
        victim.judge()
    });
    tally.row("the log ends early, and the index is gone", true);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_file_that_is_removed_is_said() {
    for (state, base) in [("closed", closed()), ("killed", behind())] {
        let mut names: Vec<_> = files(base.store()).iter().map(|file| relative(&base, file)).collect();
        names.extend(["log", "index", "index/slabs", "index/metadata"].map(|name| Path::new(name).to_owned()));
        let tally = each(names, |name| {
            let victim = base.copy(format!("{} removed", name.display()));
            let path = victim.store().join(&name);
            match path.is_dir() {
                true => std::fs::remove_dir_all(path).unwrap(),
                false => std::fs::remove_file(path).unwrap(),
            }
            judge(victim, &base, &name)
        });
        tally.row(&format!("a file or directory is removed, store {state}"), true);
    }
}

fn relative(victim: &Victim, file: &Path) -> std::path::PathBuf {
    file.strip_prefix(victim.store()).unwrap().to_owned()
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn what_is_foreign_costs_nothing() {
    let (base, other) = (closed(), closed());
    let names = ["letter", ".hidden", "00000002.log", "00000007.log", "99999999.log", "0000000x.log", "tmp"];
    let jobs =
        ["", "log", "index", "index/metadata", "index/slabs"].into_iter().flat_map(|dir| names.map(|name| (dir, name)));
    let jobs =
        jobs.flat_map(|(dir, name)| ["bytes", "nothing", "directory", "link", "segment"].map(|kind| (dir, name, kind)));
    let tally = each(jobs.collect::<Vec<_>>(), |(dir, name, kind)| {
        let mut victim = base.copy(format!("a foreign {kind} {dir}/{name}"));
        let path = victim.store().join(dir).join(name);
        match kind {
            "bytes" => std::fs::write(&path, noise(5000, 3)).unwrap(),
            "nothing" => std::fs::write(&path, b"").unwrap(),
            "directory" => std::fs::create_dir(&path).unwrap(),
            "link" => symlink("nowhere", &path).unwrap(),
            _ => drop(std::fs::copy(other.log(), &path).unwrap()),
        }
        let lost = victim.check();
        if !lost.is_empty() {
            match path.is_dir() {
                true => std::fs::remove_dir(&path).unwrap(),
                false => std::fs::remove_file(&path).unwrap(),
            }
        }
        victim.tally.recovered = usize::from(victim.recovers(&lost));
        victim.tally
    });
    tally.row("a foreign file or directory", true);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_log_that_is_another_is_seen_as_a_loss() {
    let (mut victim, other) = (closed(), Victim::new());
    let mut other = other;
    other.put(None, &[vec![b"another store".to_vec()]]);
    std::fs::remove_dir_all(victim.store()).unwrap();
    copy_tree(other.store(), victim.store());
    victim.check();
    victim.tally.control("another store in the place of this");
}
