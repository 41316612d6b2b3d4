//! The directory `quarantine/`. Damaged bytes may be all that is left of a message, so they are copied to it durably
//! before they are removed from their place.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::fs;
use crate::store::log::{self, LogEnd};
use crate::store::{EventSink, StoreEvent};

/// Creates the file `name` in quarantine with the bytes that `write` writes. Returns its path after it is durable.
pub fn save(store: &Path, name: &str, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<PathBuf> {
    let dir = store.join("quarantine");
    let path = dir.join(name);
    std::fs::create_dir_all(&dir)?;
    fs::write_atomic(&path, 0o600, write)?;
    fs::sync_dir(store)?;
    Ok(path)
}

/// Moves everything after the last complete record of the log to quarantine, so that it can never be taken for a record
/// later.
pub fn quarantine_tail(store: &Path, log_end: &LogEnd, events: &EventSink) -> io::Result<()> {
    if log_end.end.torn.is_empty() {
        return Ok(());
    }
    let (number, offset) = (log_end.segment, log_end.end.offset);
    let mut segment = File::options().read(true).write(true).open(log::segment_path(&store.join("log"), number))?;
    segment.seek(SeekFrom::Start(offset))?;
    let mut length = 0;
    let path = save(store, &format!("{number:08}-{offset}.tail"), |file| {
        length = io::copy(&mut segment, file)?;
        Ok(())
    })?;
    segment.set_len(offset)?;
    segment.sync_all()?;
    events(StoreEvent::Warning(format!(
        "the last {length} bytes of the log are not a complete record (interrupted put, or damage); moved to {}",
        path.display()
    )));
    Ok(())
}
