//! A buffered writer that appends to a file with `O_DIRECT`, so that large batches do not evict the page cache. All
//! writes are whole blocks; a partial last block is written again when it has grown.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Block size in bytes: alignment of memory, offsets and lengths. It suffices for all common devices and file systems.
const ALIGNMENT: usize = 4096;
/// Number of buffered bytes that are written at once.
pub const WRITE_CHUNK: usize = 1 << 20;

/// Appends to a file with `O_DIRECT`. Other writers may append to the file between two calls.
#[derive(Debug)]
pub struct DirectWriter {
    direct_file: File,
    file: Arc<File>,
    buffer: Vec<u8>,
    /// Index in `buffer` of the first aligned byte, where the buffered bytes begin.
    start: usize,
    /// Number of buffered bytes: at most [`WRITE_CHUNK`], and less than a block after a write.
    buffered: usize,
    /// Offset in the file of the first buffered byte; a multiple of [`ALIGNMENT`].
    offset: u64,
}

impl DirectWriter {
    /// Opens the file at `path`, which is open as `file`, with `O_DIRECT`. Returns an error if the file system does not
    /// support that.
    pub fn open(path: &Path, file: Arc<File>) -> io::Result<Self> {
        let flags = OFlags::DIRECT.bits().cast_signed();
        let direct_file = File::options().write(true).custom_flags(flags).open(path)?;
        let buffer = vec![0; WRITE_CHUNK + ALIGNMENT];
        let start = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Ok(Self { direct_file, file, buffer, start, buffered: 0, offset: 0 })
    }

    /// Buffers bytes that belong at offset `end`, the end of the file's content. Writes the buffer whenever it is full.
    pub fn write(&mut self, end: u64, mut bytes: &[u8]) -> io::Result<()> {
        self.seek_to(end)?;
        while !bytes.is_empty() {
            let (fitting, remaining) = bytes.split_at(bytes.len().min(WRITE_CHUNK - self.buffered));
            self.buffer[self.start + self.buffered..][..fitting.len()].copy_from_slice(fitting);
            self.buffered += fitting.len();
            bytes = remaining;
            if self.buffered == WRITE_CHUNK {
                self.write_blocks()?;
            }
        }
        Ok(())
    }

    /// Writes the buffered bytes, which extend to offset `end`, and pads their last block with zeros. Returns the
    /// offset after the padding.
    pub fn flush(&mut self, end: u64) -> io::Result<u64> {
        self.seek_to(end)?;
        self.write_blocks()?;
        Ok(end.next_multiple_of(ALIGNMENT as u64))
    }

    /// Makes the buffered bytes extend to offset `end`. If another writer has appended to the file, the buffer is
    /// filled with the partial last block of the file.
    fn seek_to(&mut self, end: u64) -> io::Result<()> {
        if self.offset + self.buffered as u64 != end {
            self.buffered = usize::try_from(end % ALIGNMENT as u64).expect("less than a block");
            self.offset = end - self.buffered as u64;
            self.file.read_exact_at(&mut self.buffer[self.start..][..self.buffered], self.offset)?;
        }
        Ok(())
    }

    fn write_blocks(&mut self) -> io::Result<()> {
        let aligned = &mut self.buffer[self.start..];
        let length = self.buffered.next_multiple_of(ALIGNMENT);
        aligned[self.buffered..length].fill(0);
        match self.direct_file.write_all_at(&aligned[..length], self.offset) {
            // The device requires another alignment.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.file.write_all_at(&aligned[..length], self.offset)?;
            }
            written => written?,
        }
        let full_blocks = self.buffered / ALIGNMENT * ALIGNMENT;
        aligned.copy_within(full_blocks..self.buffered, 0);
        self.offset += full_blocks as u64;
        self.buffered -= full_blocks;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pseudo_random_bytes(length: usize, seed: u64) -> Vec<u8> {
        (0..length as u64).map(|index| (index.wrapping_mul(seed) >> 7).to_le_bytes()[0]).collect()
    }

    #[test]
    fn file_holds_the_written_bytes_padded_to_a_block_despite_buffered_writes_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = Arc::new(File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap());
        let mut direct = DirectWriter::open(&path, file.clone()).unwrap();
        // A shift of 1 makes the memory unaligned, so that the writes fall back to the page cache.
        for shift in [0, 1] {
            (direct.start, direct.buffered, direct.offset) = (direct.start + shift, 0, 0);
            let mut expected = std::fs::read(&path).unwrap();
            for (index, length) in [1, 4095, 1, 8192, 100, 3 << 20, 5, WRITE_CHUNK, 70_000, 12].into_iter().enumerate()
            {
                let bytes = pseudo_random_bytes(length, 77 + index as u64);
                let end = expected.len() as u64;
                if index % 4 == 3 {
                    file.write_all_at(&bytes, end).unwrap();
                    direct.flush(end + length as u64).unwrap();
                } else {
                    let (first, second) = bytes.split_at(length / 3);
                    direct.write(end, first).unwrap();
                    direct.write(end + first.len() as u64, second).unwrap();
                    let padded_end = direct.flush(end + length as u64).unwrap();
                    assert_eq!(padded_end % 4096, 0);
                    assert!(std::fs::read(&path).unwrap()[expected.len() + length..].iter().all(|byte| *byte == 0));
                }
                expected.extend(bytes);
                assert!(std::fs::read(&path).unwrap().starts_with(&expected), "{index}");
            }
            file.set_len(expected.len() as u64).unwrap();
        }
    }
}
