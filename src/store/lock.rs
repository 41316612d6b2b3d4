//! One process at a time: a lock on `PATH/lock`, which says who has it. It ends with the process, however that ends.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::message_store::Error;

/// Held as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the store at `dir`, waiting up to `wait` for whoever has it. `owner` is what others are told.
    pub fn acquire(dir: &Path, wait: Duration, owner: &str) -> Result<Self, Error> {
        let path = dir.join("lock");
        let failed = |why| Error::io(format!("cannot lock {}", path.display()), why);
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let deadline = Instant::now() + wait;
        let mut pause = Duration::from_millis(1);
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(Error::Locked { path: dir.to_owned(), owner: read_owner(&mut file), waited: wait });
                }
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        let owner = format!("process {} ({owner})\n", std::process::id());
        file.set_len(0).and_then(|()| file.write_all(owner.as_bytes())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Who says in the file that it has the lock.
fn read_owner(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(200).read_to_string(&mut text));
    match text.trim() {
        name if read.is_ok() && !name.is_empty() => name.to_owned(),
        _ => "another process".to_owned(),
    }
}
