//! Compression of single messages: a length prefix, then a zstd frame. A message that does not shrink is stored as it
//! is. See docs/formats.md, "Compression".

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use super::record::record_len_for;

/// Minimum length of a message that is compressed, in bytes.
const MIN_LEN: usize = 64;
/// Length of the prefix that holds the length of the message, in bytes.
const LEN_PREFIX: usize = 4;

thread_local! {
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Returns the compressed form of `message`, or `None` if its record would not be shorter than that of the message.
pub fn compress(message: &[u8], level: i32) -> Option<Vec<u8>> {
    let length = u32::try_from(message.len()).ok().filter(|_| message.len() >= MIN_LEN)?;
    let frame = COMPRESSOR.with_borrow_mut(|cached| {
        if cached.as_ref().is_none_or(|(cached_level, _)| *cached_level != level) {
            *cached = Some((level, Compressor::new(level).ok()?));
        }
        cached.as_mut()?.1.compress(message).ok()
    })?;
    let payload = [length.to_le_bytes().as_slice(), &frame].concat();
    (record_len_for(u32::try_from(payload.len()).ok()?) < record_len_for(length)).then_some(payload)
}

/// Returns the message, or `None` if `payload` is not the compressed form of one.
pub fn decompress(payload: &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(uncompressed_len(payload)?).ok()?;
    let mut message = Vec::new();
    // A damaged length may ask for too much memory, which must not abort the process.
    message.try_reserve_exact(length).ok()?;
    DECOMPRESSOR.with_borrow_mut(|cached| {
        if cached.is_none() {
            *cached = Some(Decompressor::new().ok()?);
        }
        cached.as_mut()?.decompress_to_buffer(payload.get(LEN_PREFIX..)?, &mut message).ok()
    })?;
    (message.len() == length).then_some(message)
}

/// Returns the length of the message in bytes, as stored in the prefix; `None` if `payload` is too short.
pub fn uncompressed_len(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressible_messages_round_trip_and_others_are_not_compressed() {
        for length in [64, 1000, 1 << 20] {
            let message = b"to be or not to be ".iter().copied().cycle().take(length).collect::<Vec<_>>();
            let payload = compress(&message, 3).unwrap();
            assert!(payload.len() < length);
            assert_eq!(decompress(&payload), Some(message));
        }
        let incompressible = digests_of_counter(4096);
        assert_eq!(compress(&incompressible, 3), None);
        assert_eq!(compress(b"short", 3), None);
    }

    #[test]
    fn decompressing_damaged_bytes_returns_none_without_aborting() {
        let payload = compress(&[b'a'; 5000], 3).unwrap();
        for end in 0..payload.len() {
            assert_eq!(decompress(&payload[..end]), None, "{end}");
        }
        for length in [0, 4999, 5001, u32::MAX] {
            let damaged = [length.to_le_bytes().as_slice(), &payload[LEN_PREFIX..]].concat();
            assert_eq!(decompress(&damaged), None, "{length}");
        }
    }

    fn digests_of_counter(length: u32) -> Vec<u8> {
        let digest = |number: u32| *crate::digest::Digest::compute(&number.to_le_bytes()).as_bytes();
        (0..length / 32).flat_map(digest).collect()
    }
}
