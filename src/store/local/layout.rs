//! The store directory: its creation, its `format` file and its lock. The `format` file is written last, so a directory
//! that has one is a complete store. A store with a newer format version is not opened.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::options::Options;
use crate::fs;
use crate::message_store::Error;
use crate::random;
use crate::store::lock::Lock;
use crate::store::log::{self, Salt};
use crate::store::{EventSink, StoreEvent};

/// Format version of the store: the `format` file, segments and records.
const VERSION: u32 = 1;

/// Locks the store and returns its salt. Creates the store if [`Options::create`] is set, and restores a damaged
/// `format` file.
pub fn open_dir(options: &Options) -> Result<(Lock, Salt), Error> {
    let Options { path: dir, create, lock_timeout, owner, events, .. } = options;
    let io_error = |cause| Error::io(format!("cannot open the store {}", dir.display()), cause);
    if *create {
        create_dir(dir).map_err(io_error)?;
    } else if !dir.is_dir() {
        return Err(Error::Unusable(format!(
            "cannot open the store {}: directory not found; the first put creates it",
            dir.display()
        )));
    }
    reject_foreign_dir(dir)?;
    let lock = Lock::acquire(dir, *lock_timeout, owner)?;
    let salt = match std::fs::read_to_string(dir.join("format")) {
        Ok(format) => match parse_format(&format) {
            Some(Ok(salt)) if salt_matches_log(dir, &salt).map_err(io_error)? => salt,
            Some(Err(version)) => {
                return Err(Error::Unusable(format!(
                    "cannot open the store {}: unsupported format version {version}, supported up to {VERSION}; \
                     use a newer sha-api",
                    dir.display()
                )));
            }
            Some(Ok(_)) | None => repair_format(dir, events)?,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if has_segments(dir).map_err(io_error)? {
                repair_format(dir, events)?
            } else {
                create_store(dir).map_err(io_error)?
            }
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => repair_format(dir, events)?,
        Err(error) => return Err(io_error(error)),
    };
    Ok((lock, salt))
}

/// Creates the `log` directory, then the `format` file.
fn create_store(dir: &Path) -> io::Result<Salt> {
    create_dir(&dir.join("log"))?;
    let salt = random::bytes()?;
    write_format(dir, &salt)?;
    Ok(salt)
}

/// Returns whether the `log` directory contains any file.
fn has_segments(dir: &Path) -> io::Result<bool> {
    match std::fs::read_dir(dir.join("log")) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns `false` if a segment header has another salt. With a wrong salt, every record of the log would be invalid.
fn salt_matches_log(dir: &Path, salt: &Salt) -> io::Result<bool> {
    match log::recover_salt(&dir.join("log")) {
        Ok(recovered) => Ok(recovered.is_none_or(|recovered| recovered == *salt)),
        // Opening the log fails later, with an error that names it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Rewrites the `format` file with the salt of the first valid segment header.
fn repair_format(dir: &Path, events: &EventSink) -> Result<Salt, Error> {
    let io_error = |cause| Error::io(format!("cannot read the log of {}", dir.display()), cause);
    let path = dir.join("format");
    match log::recover_salt(&dir.join("log")).map_err(io_error)? {
        Some(salt) => {
            write_format(dir, &salt).map_err(io_error)?;
            events(StoreEvent::Warning(format!(
                "the file {} was damaged or missing; it was restored from the log",
                path.display()
            )));
            Ok(salt)
        }
        None => Err(Error::Unusable(format!(
            "cannot restore the damaged or missing file {}: no segment of the log has a valid header; \
             restore the store from a backup",
            path.display()
        ))),
    }
}

/// Returns an error for a directory that contains other files than a store.
fn reject_foreign_dir(dir: &Path) -> Result<(), Error> {
    // Another process may be creating the store at this moment: it starts with one of these names, so the directory is
    // checked for emptiness first.
    let is_empty = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    if is_empty || ["format", "log", "lock", "tls"].iter().any(|name| dir.join(name).exists()) {
        return Ok(());
    }
    Err(Error::Unusable(format!(
        "cannot use {} as a store: the directory contains other files; use another directory",
        dir.display()
    )))
}

/// Parses the `format` file. Returns the salt, or the version if it is too new, or `None` if the file is damaged.
fn parse_format(format: &str) -> Option<Result<Salt, u32>> {
    let (version, salt) = format.strip_prefix("sha-api store ")?.trim_end().split_once(' ')?;
    let version = version.parse().ok()?;
    if version > VERSION {
        return Some(Err(version));
    }
    let mut bytes = Salt::default();
    hex::decode_to_slice(salt, &mut bytes).ok()?;
    Some(Ok(bytes))
}

fn write_format(dir: &Path, salt: &Salt) -> io::Result<()> {
    let line = format!("sha-api store {VERSION} {}\n", hex::encode(salt));
    fs::write_atomic(&dir.join("format"), 0o600, |file| file.write_all(line.as_bytes()))
}

/// Creates a directory and its missing parents, and syncs the parent of each directory that was missing.
fn create_dir(dir: &Path) -> io::Result<()> {
    let missing: Vec<_> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.is_dir()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    missing.iter().rev().try_for_each(|dir| fs::sync_dir(fs::parent_dir(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_format_distinguishes_a_newer_version_from_damage() {
        let salt = [0x2a; 16];
        let line = format!("sha-api store 1 {}\n", hex::encode(salt));
        assert_eq!(parse_format(&line), Some(Ok(salt)));
        assert_eq!(parse_format("sha-api store 2 unknown content\n"), Some(Err(2)));
        for damaged in ["", "sha-api", "sha-api store 1", "sha-api store one 00", &line[..30]] {
            assert_eq!(parse_format(damaged), None, "{damaged}");
        }
    }
}
