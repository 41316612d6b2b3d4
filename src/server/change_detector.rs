//! Detection of changed files by modification time, length and inode.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use parking_lot::Mutex;

/// Metadata that changes when a file is written or replaced. `None`: the metadata is unavailable.
type Fingerprint = Option<(SystemTime, u64, u64)>;

/// Metadata of `N` files at the last check.
#[derive(Debug)]
pub(super) struct ChangeDetector<const N: usize>(Mutex<[Fingerprint; N]>);

impl<const N: usize> ChangeDetector<N> {
    /// Records the current state of the files. Call it before the files are read, so that no change is missed.
    pub(super) fn new(paths: [&Path; N]) -> Self {
        Self(Mutex::new(paths.map(file_fingerprint)))
    }

    /// Returns whether any file changed since the last check, and records the current state.
    pub(super) fn has_changed(&self, paths: [&Path; N]) -> bool {
        let current = paths.map(file_fingerprint);
        let mut last = self.0.lock();
        let changed = *last != current;
        *last = current;
        changed
    }
}

fn file_fingerprint(path: &Path) -> Fingerprint {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}
