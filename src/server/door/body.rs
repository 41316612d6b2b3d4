//! Bytes in, a body out, piece by piece. Pure. Chunk sizes are bare hex; extensions and trailers are checked, bounded
//! and dropped. Past the last byte of the body nothing is taken.

use super::line;
use super::request::{Framing, Refusal, parse_fields};

/// Hex digits of a chunk's size; leading zeros count.
const MAX_DIGITS: u32 = 16;
/// Of all extensions of a body, in bytes.
const MAX_EXTENSIONS: usize = 4 << 10;
/// Of the trailers, in bytes.
const MAX_TRAILERS: usize = 8 << 10;
/// Of the fields in the trailers.
const MAX_FIELDS: usize = 32;

const TOO_LARGE: Refusal = Refusal::new(413, "Request body too large");
const BAD_CHUNK: Refusal = Refusal::bad("Invalid chunk");

/// A body on its way in.
#[derive(Debug)]
pub(super) struct Body {
    state: State,
    limit: u64,
    received: u64,
    extensions: usize,
}

#[derive(Debug)]
enum State {
    /// So many bytes are still to come.
    Length(u64),
    Size {
        digits: u32,
        value: u64,
    },
    /// In an extension: the byte before.
    Extension(u8, u64),
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailers(Vec<u8>),
    Done,
}

impl Body {
    /// A body framed so, of `limit` bytes at most.
    pub(super) fn new(framing: Framing, limit: u64) -> Result<Self, Refusal> {
        let state = match framing {
            Framing::Length(length) if length > limit => return Err(TOO_LARGE),
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { digits: 0, value: 0 },
        };
        Ok(Self { state, limit, received: 0, extensions: 0 })
    }

    /// Whether all of it came.
    pub(super) const fn is_whole(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// How many bytes of it came.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// Takes what belongs to the body from `input`, adds its content to `out`, and says how many bytes were taken.
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < input.len() && !self.is_whole() {
            at += match self.state {
                State::Length(left) | State::Data(left) => self.copy(&input[at..], left, out),
                _ => self.step(input[at]).map(|()| 1)?,
            };
        }
        Ok(at)
    }

    fn copy(&mut self, input: &[u8], left: u64, out: &mut Vec<u8>) -> usize {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        out.extend_from_slice(&input[..count]);
        self.received += count as u64;
        let left = left - count as u64;
        self.state = match self.state {
            State::Data(_) if left == 0 => State::DataCr,
            State::Data(_) => State::Data(left),
            _ if left == 0 => State::Done,
            _ => State::Length(left),
        };
        count
    }

    fn step(&mut self, byte: u8) -> Result<(), Refusal> {
        match &mut self.state {
            State::Size { digits, value } => match char::from(byte).to_digit(16) {
                Some(_) if *digits == MAX_DIGITS => return Err(BAD_CHUNK),
                Some(digit) => {
                    *digits += 1;
                    *value = *value << 4 | u64::from(digit);
                }
                None if *digits == 0 => return Err(BAD_CHUNK),
                None => return self.size_ends(byte),
            },
            State::Extension(before, size) => {
                let size = *size;
                if !line::may_follow(*before, byte) || self.extensions == MAX_EXTENSIONS {
                    return Err(BAD_CHUNK);
                }
                *before = byte;
                self.extensions += 1;
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
            State::Trailers(_) => return self.trailer(byte),
            State::DataCr | State::DataLf => return Err(BAD_CHUNK),
            State::Length(_) | State::Data(_) | State::Done => unreachable!("these take bytes by the run, or none"),
        }
        Ok(())
    }

    fn size_ends(&mut self, byte: u8) -> Result<(), Refusal> {
        let State::Size { value, .. } = self.state else { return Err(BAD_CHUNK) };
        if value > self.limit - self.received {
            return Err(TOO_LARGE);
        }
        self.state = match byte {
            b'\r' => State::SizeEnd(value),
            b';' => State::Extension(byte, value),
            _ => return Err(BAD_CHUNK),
        };
        Ok(())
    }

    fn trailer(&mut self, byte: u8) -> Result<(), Refusal> {
        let State::Trailers(bytes) = &mut self.state else { return Err(BAD_CHUNK) };
        if !line::may_follow(bytes.last().copied().unwrap_or(0), byte) {
            return Err(Refusal::bad("Control character in the trailers"));
        }
        if bytes.len() == MAX_TRAILERS {
            return Err(Refusal::new(431, "Trailers too large"));
        }
        bytes.push(byte);
        if bytes == b"\r\n" {
            self.state = State::Done;
        } else if bytes.ends_with(b"\r\n\r\n") {
            parse_fields(bytes, &mut [httparse::EMPTY_HEADER; MAX_FIELDS])?;
            self.state = State::Done;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
