//! Stores in each state that a command can encounter, and the system calls into which faults are injected.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::faulted_store::{FaultedStore, message, message_groups};
use super::strace::Injection;
use crate::common::non_empty_files;

/// A state of a store and the messages that are put into it.
pub struct Scenario {
    /// Name for the table of results.
    pub name: &'static str,
    base: Option<FaultedStore>,
    groups: Vec<Vec<Vec<u8>>>,
    /// All files and directories of the store before and after the put.
    paths: OnceLock<Vec<PathBuf>>,
}

/// Files that a system call must concern for a fault to be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallScope {
    Any,
    Index,
    Log,
    Store,
}

/// System calls that write, with their scopes. A scope other than `Any` uses `strace -P`; strace counts calls per
/// thread.
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

/// System calls that read, with their scopes.
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
    /// Returns all scenarios except [`Scenario::merging`].
    pub fn all() -> Vec<Self> {
        let few = || message_groups(1, &[1, 3]);
        vec![
            Self::new("a store is created", None, few()),
            Self::new("groups are committed", Some(cleanly_closed()), large_groups()),
            Self::new("the log is replayed", Some(index_behind_log()), few()),
            Self::new("a torn tail is quarantined", Some(torn_tail()), few()),
            Self::new("the index is rebuilt", Some(truncated_index()), few()),
        ]
    }

    /// Returns a scenario in which runs of the index are merged. It takes longer than the others.
    pub fn merging() -> Self {
        let mut base = FaultedStore::new();
        for part in 1..5 {
            base.put(None, &[short_messages(part, 70_000)]);
        }
        // Checking all messages would take too long.
        base.acknowledged.retain(|_, message| message.ends_with(b"77"));
        Self::new("runs of the index are merged", Some(base), vec![short_messages(5, 70_000)])
    }

    fn new(name: &'static str, base: Option<FaultedStore>, groups: Vec<Vec<Vec<u8>>>) -> Self {
        Self { name, base, groups, paths: OnceLock::new() }
    }

    /// Returns a store in the state of this scenario. `context` describes the run.
    pub fn prepare(&self, context: &str) -> FaultedStore {
        let context = format!("{}: {context}", self.name);
        self.base.as_ref().map_or_else(
            || {
                let mut store = FaultedStore::new();
                store.add_context(&context);
                store
            },
            |base| base.copy(&context),
        )
    }

    /// Puts the messages with `fault` injected into `call`. Returns `None` if no fault was injected.
    pub fn inject(&self, scope: CallScope, call: &'static str, fault: &str) -> Option<FaultedStore> {
        let mut store = self.prepare(&format!("{call} on {scope:?} {fault}"));
        let injection = Injection::new(call, fault.to_owned()).on_paths(self.scoped_paths(scope, store.path()));
        let (_, hits) = store.put(Some(&injection), &self.groups);
        (hits > 0).then_some(store)
    }

    fn scoped_paths(&self, scope: CallScope, dir: &Path) -> Vec<PathBuf> {
        let files = self.paths.get_or_init(|| {
            let mut store = self.prepare("without faults");
            let mut files = list_tree(store.path());
            store.put(None, &self.groups);
            files.extend(list_tree(store.path()));
            files.sort();
            files.dedup();
            files
        });
        let is_in_scope = |file: &&PathBuf| match scope {
            CallScope::Any => false,
            CallScope::Index => file.to_str().unwrap().starts_with("index"),
            CallScope::Log => file.starts_with("log"),
            CallScope::Store => true,
        };
        files.iter().filter(is_in_scope).map(|file| dir.join(file)).collect()
    }
}

/// Returns the indices 1, 2, 3 and so on up to `dense`, then indices in growing steps.
pub fn call_indices(dense: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), move |n| Some(if *n < dense { n + 1 } else { n + n / 3 + 1 }))
}

/// Number of messages in a store whose index lags behind the log.
const LAGGING_MESSAGES: usize = 2 * 82 + 262;

/// Creates a store that two processes have closed cleanly. The second process deferred the index flush.
pub fn cleanly_closed() -> FaultedStore {
    let mut store = FaultedStore::new();
    for part in [2, 3] {
        store.put(None, &message_groups(part, &[1, 30, 1, 50]));
    }
    store
}

/// Creates a store whose index lags behind the log, because its process was killed before the index flush.
pub fn index_behind_log() -> FaultedStore {
    let mut store = cleanly_closed();
    let slabs = list_tree(store.path()).into_iter().filter(|path| path.starts_with("index/slabs"));
    let slabs = slabs.map(|path| store.path().join(path)).collect();
    let kill = Injection::new("pwrite64", "signal=KILL:when=1".to_owned()).on_paths(slabs);
    // With fewer messages, the process would defer the index flush to the next process.
    let (_, hits) = store.put(Some(&kill), &message_groups(4, &[1, 20, 1, 240]));
    assert!(hits > 0 && store.acknowledged.len() == LAGGING_MESSAGES, "{}", store.acknowledged.len());
    store
}

/// Creates a store whose index lags behind the log and whose log ends in the middle of a large message.
fn torn_tail() -> FaultedStore {
    let mut store = index_behind_log();
    let kill = Injection::new("pwrite64", "signal=KILL:when=2".to_owned()).on_paths(vec![store.first_segment()]);
    let (_, hits) = store.put(Some(&kill), &[vec![vec![b'x'; 3 << 20]]]);
    assert!(hits > 0 && store.acknowledged.len() == LAGGING_MESSAGES);
    store
}

/// Creates a store whose index metadata is truncated.
fn truncated_index() -> FaultedStore {
    let store = cleanly_closed();
    for file in non_empty_files(&store.path().join("index/metadata")) {
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    }
    store
}

/// Returns `count` short messages. More than 65,536 messages fill a run of the index, and five runs are merged.
fn short_messages(seed: u64, count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("{seed} {number}").into_bytes()).collect()
}

/// Returns small groups, large groups and groups of a single message.
fn large_groups() -> Vec<Vec<Vec<u8>>> {
    let mut all = message_groups(5, &[1, 1, 30, 1]);
    all.push(vec![[b"large ".as_slice(), &vec![b'y'; 1 << 21]].concat(), message(5, 99, 600)]);
    all.extend(message_groups(6, &[400, 1]));
    all
}

/// Returns all files and directories below `root` as relative paths.
fn list_tree(root: &Path) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                walk(&entry, found);
            }
            found.push(entry);
        }
    }
    let mut found = Vec::new();
    if root.exists() {
        walk(root, &mut found);
    }
    found.iter().map(|path| path.strip_prefix(root).unwrap().to_owned()).collect()
}
