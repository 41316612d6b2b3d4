//! How the tree keeps where records stand: under the first bytes of a digest, the rest of it and the position.
//! So short a key stands in sled's leaves themselves, and finding it follows no pointers. Digests that begin alike are
//! rare unless somebody looks for them; they share an entry.

use std::io;

use crate::digest::Digest;
use crate::store::log::{Kind, Position};

/// The bytes of a digest that are its key: as many as sled's arrays keep within themselves.
const KEY: usize = 7;
/// Those that stand in the value.
const REST: usize = 32 - KEY;

/// Where a digest's last record stands.
pub type Entry = (Digest, Position);

/// The key of a digest. Keys are in the order of their digests.
pub fn key(digest: &Digest) -> [u8; KEY] {
    *digest.as_bytes().first_chunk().expect("a digest is longer")
}

/// The value for entries that share a key: of each, its length in a byte, the rest of the digest, and the position.
///
/// A message's position has 16 bytes, a compressed one's its own length behind them, a removal's only the first 12.
pub fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * (1 + REST + 16));
    for (digest, position) in entries {
        let offset = u32::try_from(position.offset / 8).expect("a segment is shorter than 32 GiB");
        let Position { segment, stored, length, time, .. } = *position;
        let numbers: &[u32] = match position.kind {
            Kind::Message => &[segment, offset, time, length],
            Kind::Compressed => &[segment, offset, time, stored, length],
            Kind::Removal => &[segment, offset, time],
        };
        bytes.push(u8::try_from(4 * numbers.len()).expect("20 at the most"));
        bytes.extend(&digest.as_bytes()[KEY..]);
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    }
    bytes
}

/// Reads what [`encode`] wrote.
pub fn decode(key: &[u8], value: &[u8]) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::with_capacity(1);
    let mut left = value;
    while !left.is_empty() {
        let (rest, position, behind) = split(left)?;
        let bytes = [key, rest].concat().try_into().map_err(|_| foreign("key"))?;
        entries.push((Digest::from_bytes(bytes), position));
        left = behind;
    }
    Ok(entries)
}

/// The position of one digest among those that share its key.
pub fn find(digest: &Digest, value: &[u8]) -> io::Result<Option<Position>> {
    let mut left = value;
    while !left.is_empty() {
        let (rest, position, behind) = split(left)?;
        if rest == &digest.as_bytes()[KEY..] {
            return Ok(Some(position));
        }
        left = behind;
    }
    Ok(None)
}

/// The rest of the first digest, its position, and what follows them.
fn split(value: &[u8]) -> io::Result<(&[u8], Position, &[u8])> {
    let cut = || {
        let (length, value) = value.split_first()?;
        let (rest, value) = value.split_at_checked(REST)?;
        let (position, behind) = value.split_at_checked(usize::from(*length))?;
        Some((rest, read(position)?, behind))
    };
    cut().ok_or_else(|| foreign("position"))
}

fn read(bytes: &[u8]) -> Option<Position> {
    let number = |at| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (kind, stored, length) = match bytes.len() {
        12 => (Kind::Removal, 0, 0),
        16 => (Kind::Message, number(12)?, number(12)?),
        20 => (Kind::Compressed, number(12)?, number(16)?),
        _ => return None,
    };
    let offset = u64::from(number(4)?) * 8;
    Some(Position { kind, segment: number(0)?, offset, stored, length, time: number(8)? })
}

/// For what the tree holds and nobody here wrote.
pub fn foreign(what: &str) -> io::Error {
    io::Error::other(format!("it holds a {what} of another form"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_share_a_key_read_back_and_a_cut_value_is_an_error() {
        let entry = |last, kind, stored, length| {
            let mut bytes = [7; 32];
            bytes[31] = last;
            let position = Position { kind, segment: 3, offset: 64, stored, length, time: 9 };
            (Digest::from_bytes(bytes), position)
        };
        let entries = [entry(1, Kind::Message, 5, 5), entry(2, Kind::Compressed, 6, 50), entry(3, Kind::Removal, 0, 0)];
        let value = encode(&entries);
        assert_eq!(decode(&[7; 7], &value).unwrap(), entries);
        for (digest, position) in entries {
            assert_eq!(find(&digest, &value).unwrap(), Some(position));
        }
        assert_eq!(find(&Digest::from_bytes([7; 32]), &value).unwrap(), None);
        let one = encode(&entries[..1]);
        for end in 1..one.len() {
            assert!(decode(&[7; 7], &one[..end]).is_err(), "{end}");
        }
    }
}
