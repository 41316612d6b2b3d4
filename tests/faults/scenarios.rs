//! Stores in every state that a command can find them in, and the calls that it then makes: each can be hit.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::faulted_store::{FaultedStore, message, message_groups, non_empty_files};
use super::strace::Injection;

/// A state, and what is put there.
pub struct Scenario {
    pub name: &'static str,
    base: Option<FaultedStore>,
    groups: Vec<Vec<Vec<u8>>>,
    /// All files of the store that such a put meets.
    paths: OnceLock<Vec<PathBuf>>,
}

/// Which files a call has to concern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallScope {
    Any,
    Index,
    Log,
    Store,
}

/// The calls that change something, and what they are tried on. `-P` tells the threads apart: strace counts for each.
pub const WRITE_CALLS: [(CallScope, &str); 20] = [
    (CallScope::Any, "mkdir"),
    (CallScope::Any, "rename"),
    (CallScope::Any, "unlink"),
    (CallScope::Any, "unlinkat"),
    (CallScope::Any, "ftruncate"),
    (CallScope::Any, "fsync"),
    (CallScope::Any, "fdatasync"),
    (CallScope::Any, "pwrite64"),
    (CallScope::Any, "write"),
    (CallScope::Any, "fallocate"),
    (CallScope::Index, "openat"),
    (CallScope::Index, "pwrite64"),
    (CallScope::Index, "write"),
    (CallScope::Index, "fsync"),
    (CallScope::Index, "rename"),
    (CallScope::Log, "openat"),
    (CallScope::Log, "pwrite64"),
    (CallScope::Log, "fdatasync"),
    (CallScope::Log, "write"),
    (CallScope::Store, "openat"),
];

/// The calls that only look.
pub const READ_CALLS: [(CallScope, &str); 8] = [
    (CallScope::Index, "read"),
    (CallScope::Index, "pread64"),
    (CallScope::Index, "getdents64"),
    (CallScope::Log, "pread64"),
    (CallScope::Log, "statx"),
    (CallScope::Store, "read"),
    (CallScope::Store, "getdents64"),
    (CallScope::Store, "flock"),
];

impl Scenario {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let few = || message_groups(1, &[1, 3]);
        vec![
            Self::new("a new store is made", None, few()),
            Self::new("groups are committed", Some(cleanly_closed()), large_groups()),
            Self::new("the log is replayed", Some(index_behind_log()), few()),
            Self::new("a torn tail is set aside", Some(torn_tail()), few()),
            Self::new("the index is made anew", Some(truncated_index()), few()),
        ]
    }

    /// One that takes longer than the others.
    pub fn merging() -> Self {
        let mut base = FaultedStore::new();
        for part in 1..5 {
            base.put(None, &[short_messages(part, 70_000)]);
        }
        // The others would only take time.
        base.acknowledged.retain(|_, message| message.ends_with(b"77"));
        Self::new("runs of the index are merged", Some(base), vec![short_messages(5, 70_000)])
    }

    fn new(name: &'static str, base: Option<FaultedStore>, put: Vec<Vec<Vec<u8>>>) -> Self {
        Self { name, base, groups: put, paths: OnceLock::new() }
    }

    /// The store as it is found.
    pub fn prepare(&self, story: &str) -> FaultedStore {
        let story = format!("{}: {story}", self.name);
        self.base.as_ref().map_or_else(
            || {
                let mut victim = FaultedStore::new();
                victim.add_context(&story);
                victim
            },
            |base| base.copy(&story),
        )
    }

    /// Puts, with something happening to the calls. `None`: it did not come to that.
    pub fn inject(&self, reach: CallScope, call: &'static str, what: &str) -> Option<FaultedStore> {
        let mut victim = self.prepare(&format!("{call} on {reach:?} {what}"));
        let injection = Injection::new(call, what.to_owned()).on_paths(self.scoped_paths(reach, victim.store()));
        let (_, hits) = victim.put(Some(&injection), &self.groups);
        (hits > 0).then_some(victim)
    }

    fn scoped_paths(&self, reach: CallScope, store: &Path) -> Vec<PathBuf> {
        let files = self.paths.get_or_init(|| {
            let mut victim = self.prepare("looking");
            let mut files = list_tree(victim.store());
            victim.put(None, &self.groups);
            files.extend(list_tree(victim.store()));
            files.sort();
            files.dedup();
            files
        });
        let is_reached = |file: &&PathBuf| match reach {
            CallScope::Any => false,
            CallScope::Index => file.to_str().unwrap().starts_with("index"),
            CallScope::Log => file.starts_with("log"),
            CallScope::Store => true,
        };
        files.iter().filter(is_reached).map(|file| store.join(file)).collect()
    }
}

/// 1, 2, 3 and so on up to `dense`, then in growing steps.
pub fn call_indices(dense: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), move |n| Some(if *n < dense { n + 1 } else { n + n / 3 + 1 }))
}

/// What a store holds whose index lags behind.
const LAGGING_MESSAGES: usize = 2 * 82 + 262;

/// A store that was closed in order, twice. The second time, its index was spared what was put.
pub fn cleanly_closed() -> FaultedStore {
    let mut victim = FaultedStore::new();
    for part in [2, 3] {
        victim.put(None, &message_groups(part, &[1, 30, 1, 50]));
    }
    victim
}

/// A store whose index lags behind the log: it was killed before the index was flushed.
pub fn index_behind_log() -> FaultedStore {
    let mut victim = cleanly_closed();
    let slabs = list_tree(victim.store()).into_iter().filter(|path| path.starts_with("index/slabs"));
    let slabs = slabs.map(|path| victim.store().join(path)).collect();
    let kill = Injection::new("pwrite64", "signal=KILL:when=1".to_owned()).on_paths(slabs);
    // So many that they are not just left to the next process.
    let (_, hits) = victim.put(Some(&kill), &message_groups(4, &[1, 20, 1, 240]));
    assert!(hits > 0 && victim.acknowledged.len() == LAGGING_MESSAGES, "{}", victim.acknowledged.len());
    victim
}

/// The same, killed in the middle of a large message.
fn torn_tail() -> FaultedStore {
    let mut victim = index_behind_log();
    let kill = Injection::new("pwrite64", "signal=KILL:when=2".to_owned()).on_paths(vec![victim.first_segment()]);
    let (_, hits) = victim.put(Some(&kill), &[vec![vec![b'x'; 3 << 20]]]);
    assert!(hits > 0 && victim.acknowledged.len() == LAGGING_MESSAGES);
    victim
}

/// A store whose index is cut short.
fn truncated_index() -> FaultedStore {
    let victim = cleanly_closed();
    for file in non_empty_files(&victim.store().join("index/metadata")) {
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    }
    victim
}

/// So many messages. Those of five runs of more than 65,536 each are merged, in steps.
fn short_messages(seed: u64, count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("{seed} {number}").into_bytes()).collect()
}

/// Small groups and large ones, and messages that are written by themselves.
fn large_groups() -> Vec<Vec<Vec<u8>>> {
    let mut all = message_groups(5, &[1, 1, 30, 1]);
    all.push(vec![[b"large ".as_slice(), &vec![b'y'; 1 << 21]].concat(), message(5, 99, 600)]);
    all.extend(message_groups(6, &[400, 1]));
    all
}

/// All files and directories of a store, by their names in it.
fn list_tree(store: &Path) -> Vec<PathBuf> {
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
