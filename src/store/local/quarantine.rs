//! What is damaged is kept in `quarantine/`, durably, before it goes from its place: it may be all that is left of a
//! message.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::fs;
use crate::store::log::{self, LogEnd};
use crate::store::{EventSink, StoreEvent};

/// Keeps what `write` writes under a name, and answers with its path.
pub fn save(store: &Path, name: &str, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<PathBuf> {
    let dir = store.join("quarantine");
    let path = dir.join(name);
    std::fs::create_dir_all(&dir)?;
    fs::write_atomic(&path, 0o600, write)?;
    fs::sync_dir(store)?;
    Ok(path)
}

/// Moves what stands behind the last whole record out of the way, so that it can never be taken for a record later.
pub fn quarantine_tail(store: &Path, tail: &LogEnd, notes: &EventSink) -> io::Result<()> {
    if tail.end.clean {
        return Ok(());
    }
    let mut segment =
        File::options().read(true).write(true).open(log::segment_path(&store.join("log"), tail.segment))?;
    segment.seek(SeekFrom::Start(tail.end.offset))?;
    let mut length = 0;
    let aside = save(store, &format!("{:08}-{}.tail", tail.segment, tail.end.offset), |file| {
        length = io::copy(&mut segment, file)?;
        Ok(())
    })?;
    segment.set_len(tail.end.offset)?;
    segment.sync_all()?;
    notes(StoreEvent::Message(format!(
        "the log ended in {length} bytes that are no whole record, from an interrupted put or from damage; they are now in {}",
        aside.display()
    )));
    Ok(())
}
