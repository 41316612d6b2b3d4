//! The catalog: which runs there are, where they stand, and how far into the log they go. It is the root of the tree,
//! flushed together with all that it names, so that it is always true.

use std::sync::Arc;

use super::page_store::PageId;
use super::sled_store::IndexError;
use super::sorted_run::{Partition, SortedRun};
use super::totals::{self, Totals};

/// Of an index of another form, the catalog begins otherwise, so that it is made anew.
const FORMAT_VERSION: u8 = 5;

/// Runs, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct RunSet {
    pub list: Vec<SortedRun>,
    /// Which of them is being written, if one is, and how many behind it move into it.
    pub active_merge: Option<(usize, usize)>,
}

impl RunSet {
    /// All their pages.
    pub fn pages(&self) -> impl Iterator<Item = PageId> {
        self.list.iter().flat_map(SortedRun::pages)
    }
}

/// As it is stored: the mark, the stamp of the newest pages, the runs.
pub fn encode(mark: &Totals, stamp: u32, runs: &RunSet) -> Vec<u8> {
    let mark = mark.encode();
    let mut out = vec![FORMAT_VERSION];
    let long = |out: &mut Vec<u8>, number: u64| out.extend(number.to_le_bytes());
    let page =
        |out: &mut Vec<u8>, page: PageId| [page.number, page.generation].map(|number| out.extend(number.to_le_bytes()));
    long(&mut out, mark.len() as u64);
    out.extend(mark);
    let (written, moving) = runs.active_merge.unwrap_or_default();
    for number in [u64::from(stamp), written as u64, moving as u64, runs.list.len() as u64] {
        long(&mut out, number);
    }
    for run in &runs.list {
        for number in [run.lower_bound, run.entry_count as u64, run.partitions().len() as u64] {
            long(&mut out, number);
        }
        for group in run.partitions() {
            page(&mut out, group.filter_page);
            long(&mut out, group.blocks.len() as u64);
            for (first, block) in &group.blocks {
                long(&mut out, *first);
                page(&mut out, *block);
            }
        }
    }
    out
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<(Totals, u32, RunSet), IndexError> {
    let mut reader = ManifestReader(bytes);
    reader
        .manifest()
        .filter(|_| reader.0.is_empty())
        .ok_or_else(|| IndexError::new("it holds a catalog of another form"))
}

/// What is left to read; nothing more once something is missing.
struct ManifestReader<'a>(&'a [u8]);

impl ManifestReader<'_> {
    fn manifest(&mut self) -> Option<(Totals, u32, RunSet)> {
        let form = self.read_bytes(1)?[0];
        let length = if form == FORMAT_VERSION { self.next_usize()? } else { return None };
        let mark = Totals::decode(self.read_bytes(length)?)?;
        let (stamp, written, moving, count) =
            (self.next_u64()?, self.next_usize()?, self.next_usize()?, self.next_u64()?);
        let list = (0..count).map(|_| self.run()).collect::<Option<Vec<_>>>()?;
        let is_whole = moving == 0 || written.checked_add(moving)? < list.len();
        let merging = (moving > 0).then_some((written, moving));
        is_whole.then_some((mark, u32::try_from(stamp).ok()?, RunSet { list, active_merge: merging }))
    }

    fn run(&mut self) -> Option<SortedRun> {
        let (from, entries, count) = (self.next_u64()?, self.next_usize()?, self.next_u64()?);
        let groups = (0..count).map(|_| self.partition()).collect::<Option<_>>()?;
        Some(SortedRun::new(groups, from, entries))
    }

    fn partition(&mut self) -> Option<Arc<Partition>> {
        let (filter, count) = (self.page()?, self.next_u64()?);
        let blocks: Vec<_> = (0..count).map(|_| Some((self.next_u64()?, self.page()?))).collect::<Option<_>>()?;
        (!blocks.is_empty()).then(|| Arc::new(Partition::new(blocks, filter)))
    }

    fn page(&mut self) -> Option<PageId> {
        let both = self.read_bytes(8)?;
        Some(PageId { number: totals::read_u32(both, 0), generation: totals::read_u32(both, 4) })
    }

    fn next_usize(&mut self) -> Option<usize> {
        usize::try_from(self.next_u64()?).ok()
    }

    fn next_u64(&mut self) -> Option<u64> {
        Some(totals::read_u64(self.read_bytes(8)?, 0))
    }

    fn read_bytes(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_round_trips_and_truncated_bytes_are_an_error() {
        let page = |number| PageId { number, generation: number + 7 };
        let group = |first| Arc::new(Partition::new(vec![(first, page(1)), (first + 1, page(2))], page(3)));
        let run = |from| SortedRun::new(vec![group(5), group(9)], from, 4);
        let runs = RunSet { list: vec![run(0), run(3), SortedRun::default()], active_merge: Some((0, 2)) };
        let bytes = encode(&Totals::EMPTY, 9, &runs);
        let (mark, stamp, read) = decode(&bytes).unwrap();
        assert_eq!((mark, stamp), (Totals::EMPTY, 9));
        assert_eq!(encode(&Totals::EMPTY, 9, &read), bytes);
        assert_eq!(read.pages().collect::<Vec<_>>(), runs.pages().collect::<Vec<_>>());
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end}");
        }
    }
}
