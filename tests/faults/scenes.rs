//! Stores in every state that a command can find them in, and the calls that it then makes: each can be hit.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::strace::Injection;
use super::victim::{Victim, files, groups, message};

/// A state, and what is put there.
pub struct Scene {
    pub name: &'static str,
    base: Option<Victim>,
    put: Vec<Vec<Vec<u8>>>,
    /// All files of the store that such a put meets.
    files: OnceLock<Vec<PathBuf>>,
}

/// Which files a call has to concern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Any,
    Index,
    Log,
    Store,
}

/// The calls that change something, and what they are tried on. `-P` tells the threads apart: strace counts for each.
pub const CHANGES: [(Reach, &str); 20] = [
    (Reach::Any, "mkdir"),
    (Reach::Any, "rename"),
    (Reach::Any, "unlink"),
    (Reach::Any, "unlinkat"),
    (Reach::Any, "ftruncate"),
    (Reach::Any, "fsync"),
    (Reach::Any, "fdatasync"),
    (Reach::Any, "pwrite64"),
    (Reach::Any, "write"),
    (Reach::Any, "fallocate"),
    (Reach::Index, "openat"),
    (Reach::Index, "pwrite64"),
    (Reach::Index, "write"),
    (Reach::Index, "fsync"),
    (Reach::Index, "rename"),
    (Reach::Log, "openat"),
    (Reach::Log, "pwrite64"),
    (Reach::Log, "fdatasync"),
    (Reach::Log, "write"),
    (Reach::Store, "openat"),
];

/// The calls that only look.
pub const LOOKS: [(Reach, &str); 8] = [
    (Reach::Index, "read"),
    (Reach::Index, "pread64"),
    (Reach::Index, "getdents64"),
    (Reach::Log, "pread64"),
    (Reach::Log, "statx"),
    (Reach::Store, "read"),
    (Reach::Store, "getdents64"),
    (Reach::Store, "flock"),
];

impl Scene {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let few = || groups(1, &[1, 3]);
        vec![
            Self::new("a new store is made", None, few()),
            Self::new("groups are committed", Some(closed()), large_groups()),
            Self::new("the log is replayed", Some(behind()), few()),
            Self::new("a torn tail is set aside", Some(torn()), few()),
            Self::new("the index is made anew", Some(damaged()), few()),
        ]
    }

    /// One that takes longer than the others.
    pub fn merging() -> Self {
        let mut base = Victim::new();
        for part in 1..5 {
            base.put(None, &[short(part, 70_000)]);
        }
        // The others would only take time.
        base.known.retain(|_, message| message.ends_with(b"77"));
        Self::new("runs of the index are merged", Some(base), vec![short(5, 70_000)])
    }

    fn new(name: &'static str, base: Option<Victim>, put: Vec<Vec<Vec<u8>>>) -> Self {
        Self { name, base, put, files: OnceLock::new() }
    }

    /// The store as it is found.
    pub fn begin(&self, story: &str) -> Victim {
        let story = format!("{}: {story}", self.name);
        self.base.as_ref().map_or_else(
            || {
                let mut victim = Victim::new();
                victim.tell(&story);
                victim
            },
            |base| base.copy(&story),
        )
    }

    /// Puts, with something happening to the calls. `None`: it did not come to that.
    pub fn play(&self, reach: Reach, call: &'static str, what: &str) -> Option<Victim> {
        let mut victim = self.begin(&format!("{call} on {reach:?} {what}"));
        let injection = Injection::new(call, what.to_owned()).on(self.reached(reach, victim.store()));
        let (_, hits) = victim.put(Some(&injection), &self.put);
        (hits > 0).then_some(victim)
    }

    fn reached(&self, reach: Reach, store: &Path) -> Vec<PathBuf> {
        let files = self.files.get_or_init(|| {
            let mut victim = self.begin("looking");
            let mut files = below(victim.store());
            victim.put(None, &self.put);
            files.extend(below(victim.store()));
            files.sort();
            files.dedup();
            files
        });
        let is_reached = |file: &&PathBuf| match reach {
            Reach::Any => false,
            Reach::Index => file.to_str().unwrap().starts_with("index"),
            Reach::Log => file.starts_with("log"),
            Reach::Store => true,
        };
        files.iter().filter(is_reached).map(|file| store.join(file)).collect()
    }
}

/// 1, 2, 3 and so on up to `dense`, then in growing steps.
pub fn numbers(dense: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), move |n| Some(if *n < dense { n + 1 } else { n + n / 3 + 1 }))
}

/// What a store holds whose index lags behind.
const BEHIND: usize = 2 * 82 + 262;

/// A store that was closed in order, twice. The second time, its index was spared what was put.
pub fn closed() -> Victim {
    let mut victim = Victim::new();
    for part in [2, 3] {
        victim.put(None, &groups(part, &[1, 30, 1, 50]));
    }
    victim
}

/// A store whose index lags behind the log: it was killed before the index was flushed.
pub fn behind() -> Victim {
    let mut victim = closed();
    let slabs = below(victim.store()).into_iter().filter(|path| path.starts_with("index/slabs"));
    let slabs = slabs.map(|path| victim.store().join(path)).collect();
    let kill = Injection::new("pwrite64", "signal=KILL:when=1".to_owned()).on(slabs);
    // So many that they are not just left to the next process.
    let (_, hits) = victim.put(Some(&kill), &groups(4, &[1, 20, 1, 240]));
    assert!(hits > 0 && victim.known.len() == BEHIND, "{}", victim.known.len());
    victim
}

/// The same, killed in the middle of a large message.
fn torn() -> Victim {
    let mut victim = behind();
    let kill = Injection::new("pwrite64", "signal=KILL:when=2".to_owned()).on(vec![victim.log()]);
    let (_, hits) = victim.put(Some(&kill), &[vec![vec![b'x'; 3 << 20]]]);
    assert!(hits > 0 && victim.known.len() == BEHIND);
    victim
}

/// A store whose index is cut short.
fn damaged() -> Victim {
    let victim = closed();
    for file in files(&victim.store().join("index/metadata")) {
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    }
    victim
}

/// So many messages. Those of five runs of more than 65,536 each are merged, in steps.
fn short(seed: u64, count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("{seed} {number}").into_bytes()).collect()
}

/// Small groups and large ones, and messages that are written by themselves.
fn large_groups() -> Vec<Vec<Vec<u8>>> {
    let mut all = groups(5, &[1, 1, 30, 1]);
    all.push(vec![[b"large ".as_slice(), &vec![b'y'; 1 << 21]].concat(), message(5, 99, 600)]);
    all.extend(groups(6, &[400, 1]));
    all
}

/// All files and directories of a store, by their names in it.
fn below(store: &Path) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                walk(&entry, found);
            }
            found.push(entry);
        }
    }
    let mut found = Vec::new();
    if store.exists() {
        walk(store, &mut found);
    }
    found.iter().map(|path| path.strip_prefix(store).unwrap().to_owned()).collect()
}
