//! Splits a stream into delimited records. The records that one read completes are one batch, so a batch never waits
//! for further input. Memory usage does not depend on the length of the stream.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};

/// Maximum number of bytes per read.
const CHUNK_BYTES: usize = 1 << 18;
/// Maximum number of batches that wait for the consumer.
const READ_AHEAD_BATCHES: usize = 4;

/// Error that ends a stream of records.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input cannot be read.
    #[error("cannot read the input")]
    Read(#[from] io::Error),
    /// A record exceeds the limit.
    #[error("record {number} is over the limit of {limit} bytes; raise --max-message")]
    TooLong {
        /// Number of the record, from 1.
        number: u64,
        /// Maximum length in bytes.
        limit: u64,
    },
}

/// Iterator over batches of records without their delimiters.
pub struct Records<R> {
    input: R,
    delimiter: u8,
    limit: u64,
    chunk: Vec<u8>,
    partial: Vec<u8>,
    number: u64,
    pending_error: Option<Error>,
    done: bool,
}

impl<R: Read> Records<R> {
    /// Splits `input` into records of at most `limit` bytes. The last record may lack the delimiter.
    pub fn new(input: R, delimiter: u8, limit: u64) -> Self {
        Self {
            input,
            delimiter,
            limit,
            chunk: vec![0; CHUNK_BYTES],
            partial: Vec::new(),
            number: 0,
            pending_error: None,
            done: false,
        }
    }

    fn split_chunk(&mut self, length: usize) -> Vec<Vec<u8>> {
        let mut batch = Vec::new();
        for piece in self.chunk[..length].split_inclusive(|byte| *byte == self.delimiter) {
            let (piece, is_complete) = match piece.strip_suffix(&[self.delimiter]) {
                Some(piece) => (piece, true),
                None => (piece, false),
            };
            if (self.partial.len() + piece.len()) as u64 > self.limit {
                self.pending_error = Some(Error::TooLong { number: self.number + 1, limit: self.limit });
                break;
            }
            self.partial.extend_from_slice(piece);
            if is_complete {
                self.number += 1;
                batch.push(std::mem::take(&mut self.partial));
            }
        }
        batch
    }
}

impl<R: Read> Iterator for Records<R> {
    type Item = Result<Vec<Vec<u8>>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            if let Some(error) = self.pending_error.take() {
                self.done = true;
                return Some(Err(error));
            }
            let batch = match self.input.read(&mut self.chunk) {
                Ok(0) => {
                    self.done = true;
                    let last = std::mem::take(&mut self.partial);
                    if last.is_empty() { Vec::new() } else { vec![last] }
                }
                Ok(length) => self.split_chunk(length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.pending_error = Some(error.into());
                    continue;
                }
            };
            if !batch.is_empty() {
                return Some(Ok(batch));
            }
        }
        None
    }
}

/// Reads batches in a separate thread, so that reading overlaps with hashing and syncing.
pub fn read_ahead<R: Read + Send + 'static>(records: Records<R>) -> Receiver<Result<Vec<Vec<u8>>, Error>> {
    let (sender, receiver) = sync_channel(READ_AHEAD_BATCHES);
    std::thread::spawn(move || {
        for batch in records {
            if sender.send(batch).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reader that returns one piece per read.
    struct ChunkedReader(Vec<&'static [u8]>);

    impl Read for ChunkedReader {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    fn read_batches(pieces: &[&'static [u8]], limit: u64) -> (Vec<Vec<Vec<u8>>>, Option<String>) {
        let mut complete = Vec::new();
        for batch in Records::new(ChunkedReader(pieces.to_vec()), b'\n', limit) {
            match batch {
                Ok(batch) => complete.push(batch),
                Err(error) => return (complete, Some(error.to_string())),
            }
        }
        (complete, None)
    }

    #[test]
    fn records_are_complete_regardless_of_read_boundaries() {
        let (batches, error) = read_batches(&[b"a\nb", b"c", b"\n\nd\n", b"e"], 10);
        assert_eq!(batches, [vec![b"a".to_vec()], vec![b"bc".to_vec(), vec![], b"d".to_vec()], vec![b"e".to_vec()]]);
        assert_eq!(error, None);
    }

    #[test]
    fn an_empty_stream_has_no_records_and_a_newline_is_one_empty_record() {
        assert_eq!(read_batches(&[], 10).0, Vec::<Vec<Vec<u8>>>::new());
        assert_eq!(read_batches(&[b"\n"], 10).0, [vec![Vec::<u8>::new()]]);
    }

    #[test]
    fn records_before_an_oversized_one_are_returned_and_its_number_is_reported() {
        let (batches, error) = read_batches(&[b"abc\nabcd\nx\n"], 3);
        assert_eq!(batches, [vec![b"abc".to_vec()]]);
        assert_eq!(error.unwrap(), "record 2 is over the limit of 3 bytes; raise --max-message");
    }
}
