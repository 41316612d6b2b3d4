//! The encoding of sled values: compressed if that makes a value smaller, and padded so that no leaf gets the length
//! that sled corrupts.

use super::error::IndexError;
use crate::store::log;

/// zstd level for values. Values are mostly digests, which do not shrink at any level. A negative level only replaces
/// repeated sequences, which is fast.
const VALUE_COMPRESSION_LEVEL: i32 = -3;
/// Alignment of values in bytes. sled corrupts a leaf of 65,529 bytes, because the leaf's last byte and its length
/// overlap in the file. 65,529 is a multiple of 256 plus 249, and a leaf has fewer than 249 bytes beside its values.
const VALUE_ALIGN: usize = 1 << 8;

/// Encodes `bytes` as a value: the content, zeros, the length of the content, and a byte that is 1 if the content is
/// compressed. Empty input gives an empty value.
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let compressed = log::compress(bytes, VALUE_COMPRESSION_LEVEL);
    let is_compressed = compressed.is_some();
    let mut value = compressed.unwrap_or_else(|| bytes.to_vec());
    let length = u32::try_from(value.len()).expect("a page is shorter than 4 GiB");
    let trailer = [length.to_le_bytes().as_slice(), &[u8::from(is_compressed)]].concat();
    value.resize((value.len() + trailer.len()).next_multiple_of(VALUE_ALIGN) - trailer.len(), 0);
    value.extend(trailer);
    value
}

/// Decodes a value that [`pack`] encoded.
pub fn unpack(value: &[u8]) -> Result<Vec<u8>, IndexError> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let decode = || {
        let (padded, [length @ .., is_compressed]) = value.split_last_chunk::<5>()?;
        let content = padded.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        if *is_compressed == 0 { Some(content.to_vec()) } else { log::decompress(content) }
    };
    decode().ok_or_else(|| IndexError::corrupt("invalid encoding of a value"))
}

/// Returns pseudorandom bytes, which do not compress.
#[cfg(test)]
pub fn incompressible_bytes(length: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_round_trips_and_truncated_or_foreign_bytes_are_an_error() {
        for bytes in [
            vec![],
            vec![7],
            vec![7; 1000],
            incompressible_bytes(251, 1),
            incompressible_bytes(252, 1),
            incompressible_bytes(70_000, 2),
        ] {
            let value = pack(&bytes);
            assert_eq!((value.len() % VALUE_ALIGN, unpack(&value).unwrap()), (0, bytes));
        }
        assert_eq!(pack(&[7; 1000]).len(), VALUE_ALIGN);
        let value = pack(&incompressible_bytes(1000, 3));
        for end in [1, 4, 300, value.len() - 1] {
            assert!(unpack(&value[..end]).is_err(), "{end}");
        }
        let mut foreign = pack(&[7; 1000]);
        foreign[3] ^= 1;
        assert!(unpack(&foreign).is_err());
    }
}
