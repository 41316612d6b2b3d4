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
pub const RECORD_ALIGN: usize = 8;
/// The length of a header.
pub const HEADER_LEN: usize = 48;

/// What a header begins with.
pub const RECORD_MAGIC: [u8; 3] = [0xd5, 0x5a, 0xa7];

/// What keeps the records of one store apart from those of all others; random.
pub type Salt = [u8; 16];

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// The bytes that follow are the message.
    Message = 1,
    /// The bytes that follow are the message's length and the message, compressed: see [`super::compression`].
    Compressed = 2,
    /// The message is removed. No bytes follow.
    Tombstone = 3,
}

/// A header, read or to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the record says.
    pub kind: RecordKind,
    /// Of the bytes that follow; of a removal, the last segment that may hold what it removes.
    pub len_or_bound: u32,
    /// Seconds since 1970; enough until 2106.
    pub time: u32,
    /// Of the message.
    pub digest: Digest,
}

impl RecordHeader {
    /// How many bytes follow.
    pub fn payload_len(&self) -> u32 {
        if self.kind == RecordKind::Tombstone { 0 } else { self.len_or_bound }
    }

    /// The 48 bytes for this place.
    pub fn encode(&self, salt: &Salt, segment: u32, offset: u64) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..3].copy_from_slice(&RECORD_MAGIC);
        bytes[3] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.len_or_bound.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.time.to_le_bytes());
        bytes[12..44].copy_from_slice(self.digest.as_bytes());
        let sum = checksum(salt, segment, offset, &bytes[..44]);
        bytes[44..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The header that stands at this place, or `None` where none does.
    pub fn decode(bytes: &[u8], salt: &Salt, segment: u32, offset: u64) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER_LEN>()?;
        if bytes[..3] != RECORD_MAGIC || bytes[44..] != checksum(salt, segment, offset, &bytes[..44]).to_le_bytes() {
            return None;
        }
        let kind = match bytes[3] {
            1 => RecordKind::Message,
            2 => RecordKind::Compressed,
            3 => RecordKind::Tombstone,
            _ => return None,
        };
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let digest = *bytes[12..].first_chunk().expect("36 bytes are left");
        Some(Self { kind, len_or_bound: number(4), time: number(8), digest: Digest::from_bytes(digest) })
    }

    /// What the whole record takes, header and padding included.
    pub fn record_len(&self) -> u64 {
        record_len_for(self.payload_len())
    }
}

/// What a record takes in the log that stores so many bytes.
pub fn record_len_for(stored: u32) -> u64 {
    (HEADER_LEN as u64 + u64::from(stored)).next_multiple_of(RECORD_ALIGN as u64)
}

/// Now, as a record says it. A clock before 1970 or after 2106 counts as the nearest of the two.
pub fn unix_now() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// The time that a record says.
pub fn to_system_time(seconds: u32) -> SystemTime {
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
    fn header_decodes_only_at_its_own_location() {
        for kind in [RecordKind::Message, RecordKind::Compressed, RecordKind::Tombstone] {
            let header = RecordHeader { kind, len_or_bound: 3, time: 1_700_000_000, digest: Digest::compute(b"foo") };
            let bytes = header.encode(&SALT, 7, 64);
            assert_eq!(RecordHeader::decode(&bytes, &SALT, 7, 64), Some(header));
            assert_eq!(RecordHeader::decode(&bytes, &SALT, 8, 64), None);
            assert_eq!(RecordHeader::decode(&bytes, &SALT, 7, 72), None);
            assert_eq!(RecordHeader::decode(&bytes, b"another 16 bytes", 7, 64), None);
            assert_eq!(RecordHeader::decode(&bytes[..47], &SALT, 7, 64), None);
        }
    }

    #[test]
    fn any_flipped_bit_is_detected() {
        let header =
            RecordHeader { kind: RecordKind::Message, len_or_bound: 3, time: 1, digest: Digest::compute(b"foo") };
        let bytes = header.encode(&SALT, 1, 64);
        for bit in 0..HEADER_LEN * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&bytes, &SALT, 1, 64), None, "bit {bit}");
        }
    }

    #[test]
    fn zeros_do_not_decode_as_a_header() {
        assert_eq!(RecordHeader::decode(&[0; HEADER_LEN], &SALT, 1, 64), None);
    }

    #[test]
    fn record_length_is_a_multiple_of_the_alignment() {
        assert_eq!((record_len_for(0), record_len_for(1), record_len_for(8), record_len_for(9)), (48, 56, 56, 64));
    }
}
