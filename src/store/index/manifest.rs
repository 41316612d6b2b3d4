//! The manifest: the sorted runs with their pages, the active merge, and the totals. It is flushed together with the
//! pages that it names, so every durable manifest is complete.

use std::sync::Arc;

use super::error::IndexError;
use super::page_store::PageId;
use super::sorted_run::{Partition, SortedRun};
use super::totals::{self, Totals};

/// Format version of the index, the first byte of the manifest. An index with another version is rebuilt.
const FORMAT_VERSION: u8 = 5;

/// The sorted runs, oldest first.
#[derive(Debug, Clone, Default)]
pub struct RunSet {
    pub list: Vec<SortedRun>,
    /// Index of the output run of the active merge, and the number of input runs, which follow it.
    pub active_merge: Option<(usize, usize)>,
}

impl RunSet {
    /// Iterates over all pages of all runs.
    pub fn pages(&self) -> impl Iterator<Item = PageId> {
        self.list.iter().flat_map(SortedRun::pages)
    }
}

/// Encodes a manifest. `generation` is that of the newest pages.
pub fn encode(totals: &Totals, generation: u32, runs: &RunSet) -> Vec<u8> {
    let totals = totals.encode();
    let mut out = vec![FORMAT_VERSION];
    let push_u64 = |out: &mut Vec<u8>, number: u64| out.extend(number.to_le_bytes());
    let push_page =
        |out: &mut Vec<u8>, page: PageId| [page.number, page.generation].map(|number| out.extend(number.to_le_bytes()));
    push_u64(&mut out, totals.len() as u64);
    out.extend(totals);
    let (output, input_count) = runs.active_merge.unwrap_or_default();
    for number in [u64::from(generation), output as u64, input_count as u64, runs.list.len() as u64] {
        push_u64(&mut out, number);
    }
    for run in &runs.list {
        for number in [run.lower_bound, run.entry_count as u64, run.partitions().len() as u64] {
            push_u64(&mut out, number);
        }
        for partition in run.partitions() {
            push_page(&mut out, partition.filter_page);
            push_u64(&mut out, partition.blocks.len() as u64);
            for (first, block) in &partition.blocks {
                push_u64(&mut out, *first);
                push_page(&mut out, *block);
            }
        }
    }
    out
}

/// Decodes a manifest that [`encode`] encoded: the totals, the generation, and the runs.
pub fn decode(bytes: &[u8]) -> Result<(Totals, u32, RunSet), IndexError> {
    let mut reader = ManifestReader(bytes);
    reader
        .manifest()
        .filter(|_| reader.0.is_empty())
        .ok_or_else(|| IndexError::corrupt("invalid or unknown format of the manifest"))
}

/// The bytes that are not decoded yet. Every method returns `None` if too few are left.
struct ManifestReader<'a>(&'a [u8]);

impl ManifestReader<'_> {
    fn manifest(&mut self) -> Option<(Totals, u32, RunSet)> {
        let version = self.read_bytes(1)?[0];
        let length = if version == FORMAT_VERSION { self.next_usize()? } else { return None };
        let totals = Totals::decode(self.read_bytes(length)?)?;
        let (generation, output, input_count, run_count) =
            (self.next_u64()?, self.next_usize()?, self.next_usize()?, self.next_u64()?);
        let list = (0..run_count).map(|_| self.run()).collect::<Option<Vec<_>>>()?;
        let is_consistent = input_count == 0 || output.checked_add(input_count)? < list.len();
        let active_merge = (input_count > 0).then_some((output, input_count));
        is_consistent.then_some((totals, u32::try_from(generation).ok()?, RunSet { list, active_merge }))
    }

    fn run(&mut self) -> Option<SortedRun> {
        let (lower_bound, entry_count, partition_count) = (self.next_u64()?, self.next_usize()?, self.next_u64()?);
        let partitions = (0..partition_count).map(|_| self.partition()).collect::<Option<_>>()?;
        Some(SortedRun::new(partitions, lower_bound, entry_count))
    }

    fn partition(&mut self) -> Option<Arc<Partition>> {
        let (filter_page, block_count) = (self.page()?, self.next_u64()?);
        let blocks: Vec<_> = (0..block_count).map(|_| Some((self.next_u64()?, self.page()?))).collect::<Option<_>>()?;
        (!blocks.is_empty()).then(|| Arc::new(Partition::new(blocks, filter_page)))
    }

    fn page(&mut self) -> Option<PageId> {
        let bytes = self.read_bytes(8)?;
        Some(PageId { number: totals::read_u32(bytes, 0), generation: totals::read_u32(bytes, 4) })
    }

    fn next_usize(&mut self) -> Option<usize> {
        usize::try_from(self.next_u64()?).ok()
    }

    fn next_u64(&mut self) -> Option<u64> {
        Some(totals::read_u64(self.read_bytes(8)?, 0))
    }

    fn read_bytes(&mut self, count: usize) -> Option<&[u8]> {
        let (bytes, remaining) = self.0.split_at_checked(count)?;
        self.0 = remaining;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_round_trips_and_truncated_bytes_are_an_error() {
        let page = |number| PageId { number, generation: number + 7 };
        let partition = |first| Arc::new(Partition::new(vec![(first, page(1)), (first + 1, page(2))], page(3)));
        let run = |lower_bound| SortedRun::new(vec![partition(5), partition(9)], lower_bound, 4);
        let runs = RunSet { list: vec![run(0), run(3), SortedRun::default()], active_merge: Some((0, 2)) };
        let bytes = encode(&Totals::EMPTY, 9, &runs);
        let (totals, generation, decoded) = decode(&bytes).unwrap();
        assert_eq!((totals, generation), (Totals::EMPTY, 9));
        assert_eq!(encode(&Totals::EMPTY, 9, &decoded), bytes);
        assert_eq!(decoded.pages().collect::<Vec<_>>(), runs.pages().collect::<Vec<_>>());
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end}");
        }
    }
}
