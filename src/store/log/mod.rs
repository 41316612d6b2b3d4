//! The log: append-only segment files that hold the messages. It is the truth; the index only finds things in it.
//! Nothing that was synced is ever written over.

mod append;
mod record;
mod scan;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

pub use append::{AppendError, Appender};
pub use record::{Header, Salt, time};
pub use scan::{End, Found};

use serde::{Deserialize, Serialize};

use crate::durable;

/// A segment is closed before it grows beyond this, unless one record alone is larger.
const SEGMENT: u64 = 1 << 30;
/// The first record of a segment begins here; before it stand the magic, the number and the salt.
pub const FIRST_RECORD: u64 = FIRST_BYTES as u64;
const FIRST_BYTES: usize = 64;
const MAGIC: &[u8; 16] = b"sha-api segment\n";

/// Where a message stands: a segment, the offset of its record, and the length of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The number of the segment.
    pub segment: u32,
    /// Of the record's header; a multiple of 8.
    pub offset: u64,
    /// Of the message.
    pub length: u32,
    /// When it was stored, in seconds since 1970.
    pub time: u32,
}

/// A point between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Point {
    /// The number of the segment.
    pub segment: u32,
    /// In the segment.
    pub offset: u64,
}

impl Point {
    /// Before all records.
    pub const START: Self = Self { segment: 1, offset: FIRST_RECORD };
}

/// The segments, open for reading.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    salt: Salt,
    segments: RwLock<BTreeMap<u32, Arc<File>>>,
}

impl Log {
    /// Opens the segments that are in `dir`, which must exist.
    pub fn open(dir: &Path, salt: Salt) -> io::Result<Self> {
        let mut segments = BTreeMap::new();
        for number in numbers(dir)? {
            segments.insert(number, Arc::new(File::options().read(true).write(true).open(path(dir, number))?));
        }
        Ok(Self { dir: dir.to_owned(), salt, segments: RwLock::new(segments) })
    }

    /// The bytes at a position, as they are; `None` where there are not so many.
    pub fn read(&self, position: &Position) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.segment(position.segment) else { return Ok(None) };
        let mut bytes = vec![0; position.length as usize];
        match file.read_exact_at(&mut bytes, position.offset + record::HEADER as u64) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads everything from `from` on; what does not count at the end of the last segment is left in [`Tail::end`].
    pub fn replay<E: From<io::Error>>(
        &self,
        from: Point,
        mut visit: impl FnMut(u32, Found) -> Result<(), E>,
    ) -> Result<Tail, E> {
        let segments: Vec<_> = self.read_segments().range(from.segment..).map(|(n, file)| (*n, file.clone())).collect();
        let mut tail = Tail { segment: from.segment, end: End { offset: from.offset, torn: Vec::new(), clean: true } };
        for (index, (number, file)) in segments.iter().enumerate() {
            let start = if *number == from.segment { from.offset } else { FIRST_RECORD };
            let mut end = scan::scan(file, *number, &self.salt, start, |found| visit(*number, found))?;
            if index + 1 < segments.len() {
                // Nothing is appended to it any more: what stands at its end stays there, and is damage.
                end.torn.drain(..).try_for_each(|found| visit(*number, found))?;
            }
            tail = Tail { segment: *number, end };
        }
        Ok(tail)
    }

    /// Makes everything from `from` on durable: a process that was killed may have written what it did not sync.
    pub fn sync_from(&self, from: Point) -> io::Result<()> {
        let segments: Vec<_> = self.read_segments().range(from.segment..).map(|(_, file)| file.clone()).collect();
        segments.iter().try_for_each(|file| Ok(rustix::fs::fdatasync(file)?))
    }

    /// Whether `point` lies within the log.
    pub fn covers(&self, point: Point) -> io::Result<bool> {
        match self.segment(point.segment) {
            Some(file) => Ok(file.metadata()?.len() >= point.offset),
            None => Ok(point == Point::START && self.read_segments().is_empty()),
        }
    }

    /// The bytes that the segments have on disk.
    pub fn disk(&self) -> io::Result<u64> {
        let segments: Vec<_> = self.read_segments().values().cloned().collect();
        segments.iter().map(|file| Ok(file.metadata()?.blocks() * 512)).sum()
    }

    /// How many bytes a replay from `from` reads.
    pub fn length_from(&self, from: Point) -> io::Result<u64> {
        let segments: Vec<_> = self.read_segments().range(from.segment..).map(|(_, file)| file.clone()).collect();
        let lengths = segments.iter().map(|file| Ok(file.metadata()?.len()));
        Ok(lengths.sum::<io::Result<u64>>()?.saturating_sub(from.offset))
    }

    fn segment(&self, number: u32) -> Option<Arc<File>> {
        self.read_segments().get(&number).cloned()
    }

    fn read_segments(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<u32, Arc<File>>> {
        self.segments.read().expect("nobody panics while holding this")
    }

    /// Makes the segment `number`, durably.
    fn create(&self, number: u32) -> io::Result<Arc<File>> {
        let path = path(&self.dir, number);
        let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
        let made = file.write_all(&first_bytes(number, &self.salt)).and_then(|()| file.sync_all());
        if let Err(error) = made.and_then(|()| durable::sync_dir(&self.dir)) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let file = Arc::new(file);
        self.segments.write().expect("nobody panics while holding this").insert(number, file.clone());
        Ok(file)
    }

    /// Removes the segments from `number` on: those that a group began and could not fill.
    fn remove_from(&self, number: u32) -> io::Result<()> {
        let mut segments = self.segments.write().expect("nobody panics while holding this");
        for (number, _) in segments.split_off(&number) {
            std::fs::remove_file(path(&self.dir, number))?;
        }
        durable::sync_dir(&self.dir)
    }
}

/// Where a replay ended.
#[derive(Debug)]
pub struct Tail {
    /// The last segment.
    pub segment: u32,
    /// How it ends.
    pub end: End,
}

/// The salt that a segment in `dir` was made with, for a store that has lost the file that says it.
pub fn salt_of_any_segment(dir: &Path) -> io::Result<Option<Salt>> {
    for number in numbers(dir)? {
        let mut bytes = [0; FIRST_BYTES];
        let read = File::open(path(dir, number)).and_then(|mut file| file.read_exact(&mut bytes));
        let salt = *bytes[20..].first_chunk().expect("44 bytes are left");
        if read.is_ok() && bytes == first_bytes(number, &salt) {
            return Ok(Some(salt));
        }
    }
    Ok(None)
}

/// The numbers of the segments in `dir`, in order. Other files are left alone.
fn numbers(dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")).filter(|stem| stem.len() == 8);
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The name of a segment.
pub fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.log"))
}

fn first_bytes(number: u32, salt: &Salt) -> [u8; FIRST_BYTES] {
    let mut bytes = [0; FIRST_BYTES];
    bytes[..16].copy_from_slice(MAGIC);
    bytes[16..20].copy_from_slice(&number.to_le_bytes());
    bytes[20..36].copy_from_slice(salt);
    let sum = crc32fast::hash(&bytes[..36]);
    bytes[36..40].copy_from_slice(&sum.to_le_bytes());
    bytes
}
