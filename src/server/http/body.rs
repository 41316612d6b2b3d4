//! Incremental decoder of request bodies, without I/O. A chunk size is a plain hexadecimal number. Chunk extensions and
//! trailers are validated, bounded and dropped. Bytes after the end of the body are not consumed.

use super::byte_class;
use super::fields::parse_field_lines;
use super::head::Framing;
use super::request_error::RequestError;

/// Maximum number of hexadecimal digits in a chunk size, with leading zeros.
const MAX_CHUNK_SIZE_DIGITS: u32 = 16;
/// Maximum length of all chunk extensions of a body, in bytes.
const MAX_EXTENSION_BYTES: usize = 4 << 10;
/// Maximum length of the trailers, in bytes.
const MAX_TRAILER_BYTES: usize = 8 << 10;
/// Maximum number of fields in the trailers.
const MAX_TRAILER_FIELDS: usize = 32;

const BODY_TOO_LARGE: RequestError = RequestError::new(413, "Request body too large");
const BAD_CHUNK: RequestError = RequestError::bad_request("Invalid chunk");

/// Decoder of one request body.
#[derive(Debug)]
pub(super) struct BodyDecoder {
    state: State,
    limit: u64,
    received: u64,
    extension_bytes: usize,
}

#[derive(Debug)]
enum State {
    /// Number of missing bytes of a body with `Content-Length`.
    Length(u64),
    Size {
        digits: u32,
        value: u64,
    },
    /// Previous byte of a chunk extension, and size of the chunk.
    Extension(u8, u64),
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailers(Vec<u8>),
    Done,
}

impl BodyDecoder {
    /// Creates a decoder. A `Content-Length` of more than `limit` bytes is the error 413.
    pub(super) fn new(framing: Framing, limit: u64) -> Result<Self, RequestError> {
        let state = match framing {
            Framing::Length(length) if length > limit => return Err(BODY_TOO_LARGE),
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { digits: 0, value: 0 },
        };
        Ok(Self { state, limit, received: 0, extension_bytes: 0 })
    }

    /// Returns whether the body is complete.
    pub(super) const fn is_complete(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Returns the number of decoded bytes.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// Decodes the bytes of `input` that belong to the body and appends its content to `out`. Returns the number of
    /// bytes consumed.
    pub(super) fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, RequestError> {
        let mut consumed = 0;
        while consumed < input.len() && !self.is_complete() {
            consumed += match self.state {
                State::Length(remaining) | State::Data(remaining) => self.copy(&input[consumed..], remaining, out),
                _ => self.feed_byte(input[consumed]).map(|()| 1)?,
            };
        }
        Ok(consumed)
    }

    fn copy(&mut self, input: &[u8], remaining: u64, out: &mut Vec<u8>) -> usize {
        let count = usize::try_from(remaining).unwrap_or(usize::MAX).min(input.len());
        out.extend_from_slice(&input[..count]);
        self.received += count as u64;
        let remaining = remaining - count as u64;
        self.state = match self.state {
            State::Data(_) if remaining == 0 => State::DataCr,
            State::Data(_) => State::Data(remaining),
            _ if remaining == 0 => State::Done,
            _ => State::Length(remaining),
        };
        count
    }

    fn feed_byte(&mut self, byte: u8) -> Result<(), RequestError> {
        match &mut self.state {
            State::Size { digits, value } => match char::from(byte).to_digit(16) {
                Some(_) if *digits == MAX_CHUNK_SIZE_DIGITS => return Err(BAD_CHUNK),
                Some(digit) => {
                    *digits += 1;
                    *value = *value << 4 | u64::from(digit);
                }
                None if *digits == 0 => return Err(BAD_CHUNK),
                None => return self.finish_chunk_size(byte),
            },
            State::Extension(previous, size) => {
                let size = *size;
                if !byte_class::is_legal_after(*previous, byte) || self.extension_bytes == MAX_EXTENSION_BYTES {
                    return Err(BAD_CHUNK);
                }
                *previous = byte;
                self.extension_bytes += 1;
                if byte == b'\r' {
                    self.state = State::SizeEnd(size);
                }
            }
            State::SizeEnd(size) => {
                self.state = match (byte, *size) {
                    (b'\n', 0) => State::Trailers(Vec::new()),
                    (b'\n', size) => State::Data(size),
                    _ => return Err(BAD_CHUNK),
                };
            }
            State::DataCr if byte == b'\r' => self.state = State::DataLf,
            State::DataLf if byte == b'\n' => self.state = State::Size { digits: 0, value: 0 },
            State::Trailers(_) => return self.trailer_byte(byte),
            State::DataCr | State::DataLf => return Err(BAD_CHUNK),
            State::Length(_) | State::Data(_) | State::Done => {
                unreachable!("`decode` does not pass single bytes in these states")
            }
        }
        Ok(())
    }

    fn finish_chunk_size(&mut self, byte: u8) -> Result<(), RequestError> {
        let State::Size { value, .. } = self.state else { return Err(BAD_CHUNK) };
        if value > self.limit - self.received {
            return Err(BODY_TOO_LARGE);
        }
        self.state = match byte {
            b'\r' => State::SizeEnd(value),
            b';' => State::Extension(byte, value),
            _ => return Err(BAD_CHUNK),
        };
        Ok(())
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<(), RequestError> {
        let State::Trailers(bytes) = &mut self.state else { return Err(BAD_CHUNK) };
        if !byte_class::is_legal_after(bytes.last().copied().unwrap_or(0), byte) {
            return Err(RequestError::bad_request("Control character in the trailers"));
        }
        if bytes.len() == MAX_TRAILER_BYTES {
            return Err(RequestError::new(431, "Trailers too large"));
        }
        bytes.push(byte);
        if bytes == b"\r\n" {
            self.state = State::Done;
        } else if bytes.ends_with(b"\r\n\r\n") {
            parse_field_lines(bytes, &mut [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS])?;
            self.state = State::Done;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
