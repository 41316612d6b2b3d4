//! The form of a record in the log: a header of 48 bytes, the bytes of the message, zeros up to a multiple of 8.
//! A header counts only where its checksum does, and the checksum holds for one place in one store.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 3 | the mark |
//! | 3 | 1 | the kind |
//! | 4 | 4 | the length of the bytes that follow; of a removal, the last segment that may hold what it removes |
//! | 8 | 4 | when it was stored, in seconds since 1970 |
//! | 12 | 32 | the digest |
//! | 44 | 4 | CRC-32 of the store's salt, the segment, the offset and the 44 bytes before |
//!
//! Numbers are little-endian. The salt keeps a message that looks like records from being taken for some.

use std::time::{Duration, SystemTime};

use crate::digest::Digest;

/// Records begin at multiples of this.
pub const ALIGN: usize = 8;
/// The length of a header.
pub const HEADER: usize = 48;

/// What a header begins with.
pub const MARK: [u8; 3] = [0xd5, 0x5a, 0xa7];

/// What keeps the records of one store apart from those of all others; random.
pub type Salt = [u8; 16];

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The bytes that follow are the message.
    Message = 1,
    /// The bytes that follow are the message's length and the message, compressed: see [`super::compression`].
    Compressed = 2,
    /// The message is removed. No bytes follow.
    Removal = 3,
}

/// A header, read or to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the record says.
    pub kind: Kind,
    /// Of the bytes that follow; of a removal, the last segment that may hold what it removes.
    pub number: u32,
    /// Seconds since 1970; enough until 2106.
    pub time: u32,
    /// Of the message.
    pub digest: Digest,
}

impl Header {
    /// How many bytes follow.
    pub fn stored(&self) -> u32 {
        if self.kind == Kind::Removal { 0 } else { self.number }
    }

    /// The 48 bytes for this place.
    pub fn encode(&self, salt: &Salt, segment: u32, offset: u64) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..3].copy_from_slice(&MARK);
        bytes[3] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.time.to_le_bytes());
        bytes[12..44].copy_from_slice(self.digest.as_bytes());
        let sum = checksum(salt, segment, offset, &bytes[..44]);
        bytes[44..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The header that stands at this place, or `None` where none does.
    pub fn decode(bytes: &[u8], salt: &Salt, segment: u32, offset: u64) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER>()?;
        if bytes[..3] != MARK || bytes[44..] != checksum(salt, segment, offset, &bytes[..44]).to_le_bytes() {
            return None;
        }
        let kind = match bytes[3] {
            1 => Kind::Message,
            2 => Kind::Compressed,
            3 => Kind::Removal,
            _ => return None,
        };
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let digest = *bytes[12..].first_chunk().expect("36 bytes are left");
        Some(Self { kind, number: number(4), time: number(8), digest: Digest::from_bytes(digest) })
    }

    /// What the whole record takes, header and padding included.
    pub fn size(&self) -> u64 {
        size(self.stored())
    }
}

/// What a record takes in the log that stores so many bytes.
pub fn size(stored: u32) -> u64 {
    (HEADER as u64 + u64::from(stored)).next_multiple_of(ALIGN as u64)
}

/// Now, as a record says it. A clock before 1970 or after 2106 counts as the nearest of the two.
pub fn now() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// The time that a record says.
pub fn time(seconds: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(seconds))
}

fn checksum(salt: &Salt, segment: u32, offset: u64, header: &[u8]) -> u32 {
    let mut bytes = [0; 16 + 4 + 8 + 44];
    bytes[..16].copy_from_slice(salt);
    bytes[16..20].copy_from_slice(&segment.to_le_bytes());
    bytes[20..28].copy_from_slice(&offset.to_le_bytes());
    bytes[28..].copy_from_slice(header);
    crc32fast::hash(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = *b"a salt for tests";

    #[test]
    fn a_header_reads_back_at_its_place_and_at_no_other() {
        for kind in [Kind::Message, Kind::Compressed, Kind::Removal] {
            let header = Header { kind, number: 3, time: 1_700_000_000, digest: Digest::of(b"foo") };
            let bytes = header.encode(&SALT, 7, 64);
            assert_eq!(Header::decode(&bytes, &SALT, 7, 64), Some(header));
            assert_eq!(Header::decode(&bytes, &SALT, 8, 64), None);
            assert_eq!(Header::decode(&bytes, &SALT, 7, 72), None);
            assert_eq!(Header::decode(&bytes, b"another 16 bytes", 7, 64), None);
            assert_eq!(Header::decode(&bytes[..47], &SALT, 7, 64), None);
        }
    }

    #[test]
    fn any_flipped_bit_is_seen() {
        let header = Header { kind: Kind::Message, number: 3, time: 1, digest: Digest::of(b"foo") };
        let bytes = header.encode(&SALT, 1, 64);
        for bit in 0..HEADER * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes, &SALT, 1, 64), None, "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_no_header() {
        assert_eq!(Header::decode(&[0; HEADER], &SALT, 1, 64), None);
    }

    #[test]
    fn a_record_takes_whole_multiples_of_the_alignment() {
        assert_eq!((size(0), size(1), size(8), size(9)), (48, 56, 56, 64));
    }
}
