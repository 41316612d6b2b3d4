//! The manifest: the sorted runs with their pages, the active merge, and the totals. It is flushed together with the
//! pages that it names, so every durable manifest is complete.

use std::ops::Range;
use std::sync::Arc;

use super::error::IndexError;
use super::page_store::PageId;
use super::sorted_run::{Partition, SortedRun};
use super::totals::{Reader, Totals};

/// Format version of the index, the first byte of the manifest. An index with another version is rebuilt.
const FORMAT_VERSION: u8 = 5;

/// The sorted runs, oldest first.
#[derive(Debug, Clone, Default)]
pub struct RunSet {
    pub list: Vec<SortedRun>,
    pub active_merge: Option<ActiveMerge>,
}

/// A merge that is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveMerge {
    /// Index of the output run.
    pub output: usize,
    /// Number of input runs, which follow the output run.
    pub input_count: usize,
}

impl ActiveMerge {
    /// Returns the indices of the input runs.
    pub fn inputs(self) -> Range<usize> {
        self.output + 1..self.end()
    }

    /// Returns the index after the last input run.
    pub fn end(self) -> usize {
        self.output + 1 + self.input_count
    }
}

/// A decoded manifest.
#[derive(Default)]
pub struct Manifest {
    pub totals: Totals,
    /// Generation of the newest pages.
    pub generation: u32,
    pub runs: RunSet,
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
    let (output, input_count) = runs.active_merge.map_or((0, 0), |merge| (merge.output, merge.input_count));
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

/// Decodes a manifest that [`encode`] encoded.
pub fn decode(bytes: &[u8]) -> Result<Manifest, IndexError> {
    let mut reader = Reader(bytes);
    match read_manifest(&mut reader) {
        Some(manifest) if reader.is_at_end() => Ok(manifest),
        _ => Err(IndexError::corrupt("invalid or unknown format of the manifest")),
    }
}

fn read_manifest(reader: &mut Reader) -> Option<Manifest> {
    if reader.bytes(1)? != [FORMAT_VERSION] {
        return None;
    }
    let length = reader.usize()?;
    let totals = Totals::decode(reader.bytes(length)?)?;
    let generation = u32::try_from(reader.u64()?).ok()?;
    let (output, input_count, run_count) = (reader.usize()?, reader.usize()?, reader.u64()?);
    let list = (0..run_count).map(|_| read_run(reader)).collect::<Option<Vec<_>>>()?;
    let is_consistent = input_count == 0 || output.checked_add(input_count)? < list.len();
    let active_merge = (input_count > 0).then_some(ActiveMerge { output, input_count });
    is_consistent.then_some(Manifest { totals, generation, runs: RunSet { list, active_merge } })
}

fn read_run(reader: &mut Reader) -> Option<SortedRun> {
    let (lower_bound, entry_count, partition_count) = (reader.u64()?, reader.usize()?, reader.u64()?);
    let partitions = (0..partition_count).map(|_| read_partition(reader)).collect::<Option<_>>()?;
    Some(SortedRun::new(partitions, lower_bound, entry_count))
}

fn read_partition(reader: &mut Reader) -> Option<Arc<Partition>> {
    let (filter_page, block_count) = (read_page(reader)?, reader.u64()?);
    let blocks: Vec<_> = (0..block_count).map(|_| Some((reader.u64()?, read_page(reader)?))).collect::<Option<_>>()?;
    (!blocks.is_empty()).then(|| Arc::new(Partition::new(blocks, filter_page)))
}

fn read_page(reader: &mut Reader) -> Option<PageId> {
    Some(PageId { number: reader.u32()?, generation: reader.u32()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_round_trips_and_truncated_bytes_are_an_error() {
        let page = |number| PageId { number, generation: number + 7 };
        let partition = |first| Arc::new(Partition::new(vec![(first, page(1)), (first + 1, page(2))], page(3)));
        let run = |lower_bound| SortedRun::new(vec![partition(5), partition(9)], lower_bound, 4);
        let runs = RunSet {
            list: vec![run(0), run(3), SortedRun::default()],
            active_merge: Some(ActiveMerge { output: 0, input_count: 2 }),
        };
        let bytes = encode(&Totals::EMPTY, 9, &runs);
        let Manifest { totals, generation, runs: decoded } = decode(&bytes).unwrap();
        assert_eq!((totals, generation), (Totals::EMPTY, 9));
        assert_eq!(encode(&Totals::EMPTY, 9, &decoded), bytes);
        assert_eq!(decoded.pages().collect::<Vec<_>>(), runs.pages().collect::<Vec<_>>());
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end}");
        }
    }
}
