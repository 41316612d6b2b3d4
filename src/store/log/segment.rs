//! Segment files: their names and headers. See docs/formats.md, "Log segments".

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::record::Salt;

/// Length of a segment header in bytes; offset of the first record.
pub const SEGMENT_HEADER_LEN: u64 = SEGMENT_HEADER_SIZE as u64;
const SEGMENT_HEADER_SIZE: usize = 64;
const SEGMENT_MAGIC: &[u8; 16] = b"sha-api segment\n";

/// Returns the salt in the first valid segment header in `dir`, or `None` if no header is valid.
pub fn recover_salt(dir: &Path) -> io::Result<Option<Salt>> {
    for number in segment_ids(dir)? {
        let mut header = [0; SEGMENT_HEADER_SIZE];
        let read = File::open(segment_path(dir, number)).and_then(|mut file| file.read_exact(&mut header));
        let salt = *header[20..].first_chunk().expect("44 bytes remain");
        if read.is_ok() && header == segment_header(number, &salt) {
            return Ok(Some(salt));
        }
    }
    Ok(None)
}

/// Returns the numbers of the segments in `dir`, in ascending order. Files with other names are ignored.
pub fn segment_ids(dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".log")).filter(|stem| stem.len() == 8);
        numbers.extend(stem.and_then(|stem| stem.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Returns the path of the segment `number` in `dir`.
pub fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.log"))
}

/// Returns the header of the segment `number`.
pub fn segment_header(number: u32, salt: &Salt) -> [u8; SEGMENT_HEADER_SIZE] {
    let mut header = [0; SEGMENT_HEADER_SIZE];
    header[..16].copy_from_slice(SEGMENT_MAGIC);
    header[16..20].copy_from_slice(&number.to_le_bytes());
    header[20..36].copy_from_slice(salt);
    let checksum = crc32fast::hash(&header[..36]);
    header[36..40].copy_from_slice(&checksum.to_le_bytes());
    header
}
