//! The files of the log: how they are named, and what each begins with.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::record::Salt;

/// The first record of a segment begins here; before it stand the magic, the number and the salt.
pub const SEGMENT_HEADER_LEN: u64 = SEGMENT_HEADER_SIZE as u64;
const SEGMENT_HEADER_SIZE: usize = 64;
const SEGMENT_MAGIC: &[u8; 16] = b"sha-api segment\n";

/// The salt that a segment in `dir` was made with, for a store that has lost the file that says it.
pub fn recover_salt(dir: &Path) -> io::Result<Option<Salt>> {
    for number in segment_ids(dir)? {
        let mut bytes = [0; SEGMENT_HEADER_SIZE];
        let read = File::open(segment_path(dir, number)).and_then(|mut file| file.read_exact(&mut bytes));
        let salt = *bytes[20..].first_chunk().expect("44 bytes are left");
        if read.is_ok() && bytes == segment_header(number, &salt) {
            return Ok(Some(salt));
        }
    }
    Ok(None)
}

/// The numbers of the segments in `dir`, in order. Other files are left alone.
pub fn segment_ids(dir: &Path) -> io::Result<Vec<u32>> {
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
pub fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.log"))
}

/// What the segment `number` begins with.
pub fn segment_header(number: u32, salt: &Salt) -> [u8; SEGMENT_HEADER_SIZE] {
    let mut bytes = [0; SEGMENT_HEADER_SIZE];
    bytes[..16].copy_from_slice(SEGMENT_MAGIC);
    bytes[16..20].copy_from_slice(&number.to_le_bytes());
    bytes[20..36].copy_from_slice(salt);
    let sum = crc32fast::hash(&bytes[..36]);
    bytes[36..40].copy_from_slice(&sum.to_le_bytes());
    bytes
}
