//! Writes past the page cache, for much at a time: nothing is copied there, and the system need not find memory for
//! what is not likely to be read soon. They are of whole blocks, so the last one is written again once it is fuller.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Memory, offsets and lengths are multiples of this, which does for all usual devices and file systems.
const ALIGNMENT: usize = 4096;
/// What is gathered for one write.
pub const WRITE_CHUNK: usize = 1 << 20;

/// The end of a file that grows.
#[derive(Debug)]
pub struct DirectWriter {
    direct_file: File,
    file: Arc<File>,
    buffer: Vec<u8>,
    /// Where in the memory the gathered bytes begin, as a block does.
    start: usize,
    /// How many there are; before they are written, up to [`WRITE_CHUNK`], and less than a block thereafter.
    buffered: usize,
    /// Where in the file they begin.
    offset: u64,
}

impl DirectWriter {
    /// For the file at `path`, which is open as `file`; an error where the file system has no such writes.
    pub fn open(path: &Path, file: Arc<File>) -> io::Result<Self> {
        let flags = OFlags::DIRECT.bits().cast_signed();
        let past_cache = File::options().write(true).custom_flags(flags).open(path)?;
        let memory = vec![0; WRITE_CHUNK + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Ok(Self { direct_file: past_cache, file, buffer: memory, start, buffered: 0, offset: 0 })
    }

    /// Gathers what comes at the file's `end`, and writes it once it is much.
    pub fn write(&mut self, end: u64, mut bytes: &[u8]) -> io::Result<()> {
        self.seek_to(end)?;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(WRITE_CHUNK - self.buffered));
            self.buffer[self.start + self.buffered..][..now.len()].copy_from_slice(now);
            self.buffered += now.len();
            bytes = later;
            if self.buffered == WRITE_CHUNK {
                self.write_blocks()?;
            }
        }
        Ok(())
    }

    /// Writes what is left up to the file's `end`, with zeros in the rest of its block; answers with where that ends.
    pub fn flush(&mut self, end: u64) -> io::Result<u64> {
        self.seek_to(end)?;
        self.write_blocks()?;
        Ok(end.next_multiple_of(ALIGNMENT as u64))
    }

    /// Sees to it that what is gathered reaches to `end`: if others have written, only what stands in its block.
    fn seek_to(&mut self, end: u64) -> io::Result<()> {
        if self.offset + self.buffered as u64 != end {
            self.buffered = usize::try_from(end % ALIGNMENT as u64).expect("less than a block");
            self.offset = end - self.buffered as u64;
            self.file.read_exact_at(&mut self.buffer[self.start..][..self.buffered], self.offset)?;
        }
        Ok(())
    }

    fn write_blocks(&mut self) -> io::Result<()> {
        let memory = &mut self.buffer[self.start..];
        let blocks = self.buffered.next_multiple_of(ALIGNMENT);
        memory[self.buffered..blocks].fill(0);
        match self.direct_file.write_all_at(&memory[..blocks], self.offset) {
            // Something else is asked for than is usual.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.file.write_all_at(&memory[..blocks], self.offset)?;
            }
            written => written?,
        }
        let full = self.buffered / ALIGNMENT * ALIGNMENT;
        memory.copy_within(full..self.buffered, 0);
        self.offset += full as u64;
        self.buffered -= full;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pseudo_random_bytes(length: usize, seed: u64) -> Vec<u8> {
        (0..length as u64).map(|at| (at.wrapping_mul(seed) >> 7).to_le_bytes()[0]).collect()
    }

    #[test]
    fn file_holds_the_written_bytes_padded_to_a_block_despite_buffered_writes_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = Arc::new(File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap());
        let mut direct = DirectWriter::open(&path, file.clone()).unwrap();
        // Where memory does not begin like a block, the other way is taken.
        for shift in [0, 1] {
            (direct.start, direct.buffered, direct.offset) = (direct.start + shift, 0, 0);
            let mut expected = std::fs::read(&path).unwrap();
            for (at, length) in [1, 4095, 1, 8192, 100, 3 << 20, 5, WRITE_CHUNK, 70_000, 12].into_iter().enumerate() {
                let bytes = pseudo_random_bytes(length, 77 + at as u64);
                let end = expected.len() as u64;
                if at % 4 == 3 {
                    file.write_all_at(&bytes, end).unwrap();
                    direct.flush(end + length as u64).unwrap();
                } else {
                    let (one, other) = bytes.split_at(length / 3);
                    direct.write(end, one).unwrap();
                    direct.write(end + one.len() as u64, other).unwrap();
                    let filled = direct.flush(end + length as u64).unwrap();
                    assert_eq!(filled % 4096, 0);
                    assert!(std::fs::read(&path).unwrap()[expected.len() + length..].iter().all(|byte| *byte == 0));
                }
                expected.extend(bytes);
                assert!(std::fs::read(&path).unwrap().starts_with(&expected), "{at}");
            }
            file.set_len(expected.len() as u64).unwrap();
        }
    }
}
