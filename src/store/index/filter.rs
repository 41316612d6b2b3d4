//! Says of most digests that are not in a group of entries that they are not, without a look at the entries: a split
//! block Bloom filter (as in Apache Parquet's specification), which needs no hash since digests are random.

use std::ops::BitAnd;

use super::tree::Damaged;
use crate::digest::Digest;

/// Bytes of filter for an entry. With three, it is wrong about one digest in ten thousand; each time a block is read.
const BYTES_AN_ENTRY: usize = 3;
/// A cell is eight words of 32 bits, and a digest sets one bit in each word of one cell.
const CELL: usize = 32;

/// A filter in memory.
#[derive(Debug)]
pub struct Filter(Vec<[u8; CELL]>);

impl Filter {
    /// A filter that holds these.
    pub fn of<'a>(digests: impl ExactSizeIterator<Item = &'a Digest>) -> Self {
        let mut cells = vec![[0; CELL]; (digests.len() * BYTES_AN_ENTRY).div_ceil(CELL).max(1)];
        for digest in digests {
            let cell = place(digest, cells.len());
            bits(digest).for_each(|(byte, bit)| cells[cell][byte] |= bit);
        }
        Self(cells)
    }

    /// Whether it may hold a digest. If not, it surely does not.
    pub fn may_hold(&self, digest: &Digest) -> bool {
        let cell = &self.0[place(digest, self.0.len())];
        // All are looked at, since which of them is the first that is missing cannot be foreseen.
        bits(digest).map(|(byte, bit)| cell[byte] & bit != 0).fold(true, BitAnd::bitand)
    }

    /// As it is stored.
    pub fn encode(&self) -> &[u8] {
        self.0.as_flattened()
    }

    /// Reads what [`Filter::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        match bytes.as_chunks() {
            (cells @ [_, ..], []) => Ok(Self(cells.to_vec())),
            _ => Err(Damaged::new("it holds a filter of another form")),
        }
    }
}

/// The cell of a digest, from bytes that do not say where it stands among others.
fn place(digest: &Digest, cells: usize) -> usize {
    let random = u32::from_le_bytes(*digest.as_bytes()[12..].first_chunk().expect("20 bytes are left"));
    usize::try_from((u64::from(random) * cells as u64) >> 32).expect("less than cells")
}

/// The byte and the bit in it, in each of eight words, by five bits of a byte of the digest.
fn bits(digest: &Digest) -> impl Iterator<Item = (usize, u8)> {
    let random: [u8; 8] = *digest.as_bytes()[16..].first_chunk().expect("16 bytes are left");
    (0..8).zip(random).map(|(word, byte)| (word * 4 + usize::from(byte >> 3 & 3), 1 << (byte & 7)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_wrong_about_what_it_holds_and_seldom_about_the_rest() {
        let digest = |number: u32| Digest::of(&number.to_le_bytes());
        let held: Vec<_> = (0..16_000).map(digest).collect();
        let filter = Filter::decode(Filter::of(held.iter()).encode()).unwrap();
        assert!(held.iter().all(|digest| filter.may_hold(digest)));
        let wrong = (16_000..116_000).filter(|number| filter.may_hold(&digest(*number))).count();
        assert!(wrong < 50, "{wrong} of 100,000");
        assert!(Filter::decode(&filter.encode()[1..]).is_err() && Filter::decode(&[]).is_err());
    }
}
