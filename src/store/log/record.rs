//! Records of the log: a header of 48 bytes, the stored bytes, and zeros up to a multiple of 8. The checksum of a
//! header covers the store's salt and the place of the record, so a message whose bytes look like a record is never
//! taken for one. See docs/formats.md, "Records".

use std::time::{Duration, SystemTime};

use crate::digest::Digest;

/// Alignment of records in bytes.
pub const RECORD_ALIGN: usize = 8;
/// Length of a record header in bytes.
pub const HEADER_LEN: usize = 48;

/// First bytes of a record header.
pub const RECORD_MAGIC: [u8; 3] = [0xd5, 0x5a, 0xa7];

/// Random bytes that are chosen when a store is created, and part of the checksum of each of its record headers.
pub type Salt = [u8; 16];

/// Kind of a record, with the number in its header that depends on the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A message. The stored bytes are the message.
    Message {
        /// Number of stored bytes.
        len: u32,
    },
    /// A message in compressed form; see [`super::compression`].
    Compressed {
        /// Number of stored bytes.
        len: u32,
    },
    /// Removal of a message. There are no stored bytes.
    Tombstone {
        /// Number of the last segment that may contain the removed message.
        up_to_segment: u32,
    },
}

/// Kind of a record without its number: the byte in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordTag {
    /// Tag of [`RecordKind::Message`].
    Message = 1,
    /// Tag of [`RecordKind::Compressed`].
    Compressed = 2,
    /// Tag of [`RecordKind::Tombstone`].
    Tombstone = 3,
}

impl RecordKind {
    /// Returns the kind without its number.
    pub fn tag(self) -> RecordTag {
        match self {
            Self::Message { .. } => RecordTag::Message,
            Self::Compressed { .. } => RecordTag::Compressed,
            Self::Tombstone { .. } => RecordTag::Tombstone,
        }
    }
}

/// Header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Kind of the record.
    pub kind: RecordKind,
    /// Time of storage, in seconds since 1970; sufficient until 2106.
    pub time: u32,
    /// Digest of the message.
    pub digest: Digest,
}

impl RecordHeader {
    /// Returns the number of stored bytes after the header.
    pub fn payload_len(&self) -> u32 {
        match self.kind {
            RecordKind::Message { len } | RecordKind::Compressed { len } => len,
            RecordKind::Tombstone { .. } => 0,
        }
    }

    /// Encodes the header for a place in the log of the store with this salt.
    pub fn encode(&self, salt: &Salt, segment: u32, offset: u64) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..3].copy_from_slice(&RECORD_MAGIC);
        bytes[3] = self.kind.tag() as u8;
        let (RecordKind::Message { len: number }
        | RecordKind::Compressed { len: number }
        | RecordKind::Tombstone { up_to_segment: number }) = self.kind;
        bytes[4..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.time.to_le_bytes());
        bytes[12..44].copy_from_slice(self.digest.as_bytes());
        let checksum = checksum(salt, segment, offset, &bytes[..44]);
        bytes[44..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Decodes the header at the beginning of `bytes`, which were read from this place. Returns `None` if it is not a
    /// valid header for it.
    pub fn decode(bytes: &[u8], salt: &Salt, segment: u32, offset: u64) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER_LEN>()?;
        if bytes[..3] != RECORD_MAGIC || bytes[44..] != checksum(salt, segment, offset, &bytes[..44]).to_le_bytes() {
            return None;
        }
        let read_u32 = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let number = read_u32(4);
        let kind = match bytes[3] {
            1 => RecordKind::Message { len: number },
            2 => RecordKind::Compressed { len: number },
            3 => RecordKind::Tombstone { up_to_segment: number },
            _ => return None,
        };
        let digest = *bytes[12..].first_chunk().expect("36 bytes remain");
        Some(Self { kind, time: read_u32(8), digest: Digest::from_bytes(digest) })
    }

    /// Returns the length of the record in bytes, header and padding included.
    pub fn record_len(&self) -> u64 {
        record_len_for(self.payload_len())
    }
}

/// Returns the length in bytes of a record with `payload_len` stored bytes, header and padding included.
pub fn record_len_for(payload_len: u32) -> u64 {
    (HEADER_LEN as u64 + u64::from(payload_len)).next_multiple_of(RECORD_ALIGN as u64)
}

/// Returns the current time in seconds since 1970, clamped to the range of a record.
pub fn unix_now() -> u32 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX)
}

/// Converts the time of a record, in seconds since 1970.
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
        let tombstone = RecordKind::Tombstone { up_to_segment: 3 };
        for kind in [RecordKind::Message { len: 3 }, RecordKind::Compressed { len: 3 }, tombstone] {
            let header = RecordHeader { kind, time: 1_700_000_000, digest: Digest::compute(b"foo") };
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
        let header = RecordHeader { kind: RecordKind::Message { len: 3 }, time: 1, digest: Digest::compute(b"foo") };
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
