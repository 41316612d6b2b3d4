//! Compression at rest: the message's length in 4 bytes, little-endian, then a zstd frame (RFC 8878), each record by
//! itself. A message that does not shrink stays as it is; digests are always those of the messages.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use super::record::record_len_for;

/// Shorter messages are not worth a try.
const MIN_LEN: usize = 64;
/// What the message's length takes.
const LEN_PREFIX: usize = 4;

thread_local! {
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The bytes to store for `message`; `None` if they would take no less of the log than the message itself.
pub fn compress(message: &[u8], level: i32) -> Option<Vec<u8>> {
    let length = u32::try_from(message.len()).ok().filter(|_| message.len() >= MIN_LEN)?;
    let frame = COMPRESSOR.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(its, _)| *its != level) {
            *kept = Some((level, Compressor::new(level).ok()?));
        }
        kept.as_mut()?.1.compress(message).ok()
    })?;
    let stored = [length.to_le_bytes().as_slice(), &frame].concat();
    (record_len_for(u32::try_from(stored.len()).ok()?) < record_len_for(length)).then_some(stored)
}

/// The message; `None` if these are no such bytes.
pub fn decompress(stored: &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(uncompressed_len(stored)?).ok()?;
    let mut message = Vec::new();
    // The length may be damaged: it must not take the process down.
    message.try_reserve_exact(length).ok()?;
    DECOMPRESSOR.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Some(Decompressor::new().ok()?);
        }
        kept.as_mut()?.decompress_to_buffer(stored.get(LEN_PREFIX..)?, &mut message).ok()
    })?;
    (message.len() == length).then_some(message)
}

/// The length of the message, as it is said in front of it.
pub fn uncompressed_len(stored: &[u8]) -> Option<u32> {
    stored.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressible_messages_round_trip_and_others_are_not_compressed() {
        for length in [64, 1000, 1 << 20] {
            let message = b"to be or not to be ".iter().copied().cycle().take(length).collect::<Vec<_>>();
            let stored = compress(&message, 3).unwrap();
            assert!(stored.len() < length);
            assert_eq!(decompress(&stored), Some(message));
        }
        let noise = sha2_of_counter(4096);
        assert_eq!(compress(&noise, 3), None);
        assert_eq!(compress(b"short", 3), None);
    }

    #[test]
    fn decompressing_damaged_bytes_returns_none_without_aborting() {
        let stored = compress(&[b'a'; 5000], 3).unwrap();
        for end in 0..stored.len() {
            assert_eq!(decompress(&stored[..end]), None, "{end}");
        }
        for length in [0, 4999, 5001, u32::MAX] {
            let lying = [length.to_le_bytes().as_slice(), &stored[LEN_PREFIX..]].concat();
            assert_eq!(decompress(&lying), None, "{length}");
        }
    }

    fn sha2_of_counter(length: u32) -> Vec<u8> {
        let block = |number: u32| *crate::digest::Digest::compute(&number.to_le_bytes()).as_bytes();
        (0..length / 32).flat_map(block).collect()
    }
}
