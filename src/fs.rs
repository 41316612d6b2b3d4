//! Atomic file writes, and `fsync(2)` of files and directories. After a power cut, a file has its old or new content.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a temporary file in the directory of `path`, syncs it, renames it to `path`, and syncs the directory.
///
/// `write` writes the content. If it fails, an existing file at `path` is unchanged.
pub fn write_atomic(path: &Path, mode: u32, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let dir = parent_dir(path);
    let mut file =
        tempfile::Builder::new().prefix(".sha-api-").permissions(Permissions::from_mode(mode)).tempfile_in(dir)?;
    write(&mut file)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_dir(dir)
}

/// Syncs a directory, so that files created, renamed or removed in it are durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Syncs a directory, all directories below it, and all non-empty files in them.
pub fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => sync_tree(&entry.path())?,
            false if entry.metadata()?.len() > 0 => File::open(entry.path())?.sync_all()?,
            false => {}
        }
    }
    sync_dir(dir)
}

/// Returns the directory that contains `path`: `.` for a bare file name.
pub fn parent_dir(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomic(&path, 0o600, |file| file.write_all(b"old")).unwrap();
        let failed = write_atomic(&path, 0o600, |file| {
            file.write_all(b"new")?;
            Err(io::Error::other("no"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_parent_of_a_bare_name_is_the_current_directory() {
        assert_eq!(parent_dir(Path::new("name")), Path::new("."));
        assert_eq!(parent_dir(Path::new("/name")), Path::new("/"));
    }
}
