//! Whether a file is another than it was when it was last looked at.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// What differs when a file was written or another put in its place. `None`: it could not be looked at.
type Fingerprint = Option<(SystemTime, u64, u64)>;

/// Files as they were when last looked at.
#[derive(Debug)]
pub(super) struct ChangeDetector<const N: usize>(Mutex<[Fingerprint; N]>);

impl<const N: usize> ChangeDetector<N> {
    /// Looks at them for the first time. To be called before they are read.
    pub(super) fn new(paths: [&Path; N]) -> Self {
        Self(Mutex::new(paths.map(file_fingerprint)))
    }

    /// Whether any has changed since.
    pub(super) fn has_changed(&self, paths: [&Path; N]) -> bool {
        let now = paths.map(file_fingerprint);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *known != now;
        *known = now;
        changed
    }
}

fn file_fingerprint(path: &Path) -> Fingerprint {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}
