//! What the tests share: a store in a directory of its own, and the built binary on it.

pub mod server;

use assert_cmd::Command;
use tempfile::TempDir;

/// A store in a temporary directory, which goes with it.
pub struct Sandbox {
    dir: TempDir,
}

impl Sandbox {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// The directory around the store, for files of the test.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The store's directory; it is made by the first put.
    pub fn store(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    /// The binary on this store, with nothing of the caller's environment but PATH.
    pub fn sha_api<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::cargo_bin("sha-api").unwrap();
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.dir()).env("SHA_API_STORE", self.store()).args(args);
        command
    }
}
