//! The form of a value in the tree: compressed, if that makes it less, and of a length that does sled no harm.

use super::sled_store::IndexError;
use crate::store::log;

/// How hard values are compressed, as a level of zstd. They are mostly digests, which do not shrink, however long that
/// is tried; below 0, it looks for what is repeated and for nothing else.
const VALUE_COMPRESSION_LEVEL: i32 = -3;
/// Values are multiples of this, with less than 249 bytes beside them in a leaf. sled spoils a leaf of 65,529 bytes,
/// which is a multiple and 249: its last byte and its length share a place in the file.
const VALUE_ALIGN: usize = 1 << 8;

/// Bytes as a value: as they are or compressed, zeros, then how many there are before those, and whether they are
/// compressed. Nothing stays nothing.
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let compressed = log::compress(bytes, VALUE_COMPRESSION_LEVEL);
    let is_compressed = compressed.is_some();
    let mut value = compressed.unwrap_or_else(|| bytes.to_vec());
    let length = u32::try_from(value.len()).expect("a page is short");
    let end = [length.to_le_bytes().as_slice(), &[u8::from(is_compressed)]].concat();
    value.resize((value.len() + end.len()).next_multiple_of(VALUE_ALIGN) - end.len(), 0);
    value.extend(end);
    value
}

/// The bytes of what [`pack`] made.
pub fn unpack(value: &[u8]) -> Result<Vec<u8>, IndexError> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let unpacked = || {
        let (rest, [length @ .., is_compressed]) = value.split_last_chunk::<5>()?;
        let bytes = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        if *is_compressed == 0 { Some(bytes.to_vec()) } else { log::decompress(bytes) }
    };
    unpacked().ok_or_else(|| IndexError::new("it holds a value of another form"))
}

/// Bytes that do not shrink.
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
