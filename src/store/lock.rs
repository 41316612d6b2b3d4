//! The lock on a store directory: an exclusive `flock` on `PATH/lock`, which one process at a time can hold. The kernel
//! releases the lock when the process ends. The file names the holder.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::message_store::Error;

/// Exclusive lock on a store directory. Dropping it releases the lock.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks the store at `dir`. Blocks for up to `timeout` while another process holds the lock, then returns
    /// [`Error::Locked`].
    ///
    /// `owner` is written to the lock file. Another process shows it when it finds the store locked.
    pub fn acquire(dir: &Path, timeout: Duration, owner: &str) -> Result<Self, Error> {
        let path = dir.join("lock");
        let io_error = |cause| Error::io(format!("cannot lock {}", path.display()), cause);
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io_error)?;
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_millis(1);
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(Error::Locked { path: dir.to_owned(), owner: read_owner(&mut file), waited: timeout });
                }
                Err(errno) => return Err(io_error(errno.into())),
            }
        }
        let owner = format!("process {} ({owner})\n", std::process::id());
        file.set_len(0).and_then(|()| file.write_all(owner.as_bytes())).map_err(io_error)?;
        Ok(Self { _file: file })
    }
}

/// Returns the holder that the lock file names. The name is missing while the holder is writing it.
fn read_owner(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(200).read_to_string(&mut text));
    match text.trim() {
        owner if read.is_ok() && !owner.is_empty() => owner.to_owned(),
        _ => "another process".to_owned(),
    }
}
