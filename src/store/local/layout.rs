//! The directory of a store: made whole or not at all, recognised by its `format` file, refused if it is newer.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::Options;
use crate::fs;
use crate::message_store::Error;
use crate::random;
use crate::store::lock::Lock;
use crate::store::log::{self, Salt};
use crate::store::{EventSink, StoreEvent};

/// The version of what is on disk.
const VERSION: u32 = 1;

/// Locks the store, making it first if it may be made, and reads its salt.
pub fn open_dir(options: &Options) -> Result<(Lock, Salt), Error> {
    let Options { path: dir, create, lock_timeout: wait, owner: me, events: notes, .. } = options;
    let failed = |why| Error::io(format!("cannot use the store {}", dir.display()), why);
    if *create {
        create_dir(dir).map_err(failed)?;
    } else if !dir.is_dir() {
        return Err(Error::Unusable(format!("there is no store at {}; the first put makes one", dir.display())));
    }
    reject_foreign_dir(dir)?;
    let lock = Lock::acquire(dir, *wait, me)?;
    let salt = match std::fs::read_to_string(dir.join("format")) {
        Ok(format) => match parse(&format) {
            Some(Ok(salt)) if salt_matches_log(dir, &salt).map_err(failed)? => salt,
            Some(Err(version)) => {
                return Err(Error::Unusable(format!(
                    "the store {} has format {version}, this program knows up to {VERSION}; use a newer sha-api",
                    dir.display()
                )));
            }
            Some(Ok(_)) | None => repair_format(dir, notes)?,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if has_segments(dir).map_err(failed)? {
                repair_format(dir, notes)?
            } else {
                create_store(dir).map_err(failed)?
            }
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => repair_format(dir, notes)?,
        Err(error) => return Err(failed(error)),
    };
    Ok((lock, salt))
}

/// Makes what a store consists of; the format comes last, so that a store which has one is whole.
fn create_store(dir: &Path) -> io::Result<Salt> {
    create_dir(&dir.join("log"))?;
    let salt = random::bytes()?;
    write_format(dir, &salt)?;
    Ok(salt)
}

/// Whether the log has been begun.
fn has_segments(dir: &Path) -> io::Result<bool> {
    match std::fs::read_dir(dir.join("log")) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether no segment says another salt: with a wrong one, no record of the log would count.
fn salt_matches_log(dir: &Path, salt: &Salt) -> io::Result<bool> {
    match log::recover_salt(&dir.join("log")) {
        Ok(found) => Ok(found.is_none_or(|found| found == *salt)),
        // Whoever opens the log says what is wrong with it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Writes the format anew from what the segments say.
fn repair_format(dir: &Path, notes: &EventSink) -> Result<Salt, Error> {
    let failed = |why| Error::io(format!("cannot read the log of {}", dir.display()), why);
    match log::recover_salt(&dir.join("log")).map_err(failed)? {
        Some(salt) => {
            write_format(dir, &salt).map_err(failed)?;
            notes(StoreEvent::Message(format!(
                "{} was damaged or missing and is mended",
                dir.join("format").display()
            )));
            Ok(salt)
        }
        None => Err(Error::Unusable(format!(
            "{} is damaged or missing, and no segment in the log is left to mend it from",
            dir.join("format").display()
        ))),
    }
}

/// A directory with other things in it is none of ours.
fn reject_foreign_dir(dir: &Path) -> Result<(), Error> {
    // In this order, since another process may be making the store now: what it makes first is one of these names.
    let is_empty = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    if is_empty || ["format", "log", "lock", "tls"].iter().any(|name| dir.join(name).exists()) {
        return Ok(());
    }
    Err(Error::Unusable(format!("{} is not empty and is no store; name another directory", dir.display())))
}

/// The salt, or a version that is too new; `None` if it is neither.
fn parse(format: &str) -> Option<Result<Salt, u32>> {
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

fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::sync_dir(fs::parent_dir(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_distinguishes_a_newer_format_from_a_damaged_one() {
        let salt = [0x2a; 16];
        let line = format!("sha-api store 1 {}\n", hex::encode(salt));
        assert_eq!(parse(&line), Some(Ok(salt)));
        assert_eq!(parse("sha-api store 2 whatever\n"), Some(Err(2)));
        for damaged in ["", "sha-api", "sha-api store 1", "sha-api store one 00", &line[..30]] {
            assert_eq!(parse(damaged), None, "{damaged}");
        }
    }
}
