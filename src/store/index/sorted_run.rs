//! Sorted runs: entries sorted by digest, written once, in partitions of blocks. A newer run takes precedence over an
//! older one. During a merge, the entries merged so far are in the output run and are skipped in the input runs.

use std::iter::Peekable;
use std::sync::{Arc, OnceLock};

use super::block::{self, BLOCK_ENTRIES, IndexEntry, Slot};
use super::bloom::BloomFilter;
use super::error::IndexError;
use super::page_store::{PageId, PageStore};
use crate::digest::Digest;

/// Maximum number of entries in a partition.
const PARTITION_ENTRIES: usize = 10 * BLOCK_ENTRIES;

/// A sorted run, or the part of it that an active merge has not moved yet.
#[derive(Debug, Clone, Default)]
pub struct SortedRun {
    partitions: Vec<Arc<Partition>>,
    /// Prefix of the first digest of each partition, in one piece of memory for the search.
    fence_keys: Vec<u64>,
    /// Entries with smaller prefixes were merged into another run.
    pub lower_bound: u64,
    /// Number of entries that were written to the run.
    pub entry_count: usize,
}

/// Blocks that share one Bloom filter.
#[derive(Debug)]
pub struct Partition {
    /// Prefix of the first digest, and page, of each block; never empty.
    pub blocks: Vec<(u64, PageId)>,
    pub filter_page: PageId,
    loaded_filter: OnceLock<BloomFilter>,
}

impl Partition {
    /// Creates a partition from pages that were written before. Its filter is loaded on first use.
    pub fn new(blocks: Vec<(u64, PageId)>, filter_page: PageId) -> Self {
        Self { blocks, filter_page, loaded_filter: OnceLock::new() }
    }

    fn write(entries: &[IndexEntry], pages: &PageStore) -> Result<Self, IndexError> {
        let filter = BloomFilter::build(entries);
        let write = |block: &[IndexEntry]| Ok((block[0].0.prefix_u64(), pages.write(block::encode(block))?));
        let blocks = entries.chunks(BLOCK_ENTRIES).map(write).collect::<Result<_, IndexError>>()?;
        let filter_page = pages.write(filter.encode())?;
        Ok(Self { blocks, filter_page, loaded_filter: OnceLock::from(filter) })
    }

    fn filter(&self, pages: &PageStore) -> Result<&BloomFilter, IndexError> {
        if let Some(filter) = self.loaded_filter.get() {
            return Ok(filter);
        }
        let filter = pages.filter(self.filter_page)?;
        Ok(self.loaded_filter.get_or_init(|| filter))
    }

    /// Returns the indices of the digests that may be found. `digests` must be sorted, with no prefix below the fence
    /// key. Digests with the prefix of the fence key are always included: they may be in the partition before.
    fn candidates(&self, digests: &[Digest], pages: &PageStore) -> Result<impl Iterator<Item = usize>, IndexError> {
        let equal_prefixes = digests.partition_point(|digest| digest.prefix_u64() == self.fence_key());
        let others = self.filter(pages)?.may_contain_batch(&digests[equal_prefixes..]);
        Ok((0..equal_prefixes).chain(others.into_iter().map(move |index| equal_prefixes + index)))
    }

    /// Returns the prefix of the first digest.
    pub fn fence_key(&self) -> u64 {
        self.blocks[0].0
    }

    /// Iterates over all pages of the partition.
    pub fn pages(&self) -> impl Iterator<Item = PageId> {
        self.blocks.iter().map(|(_, page)| *page).chain([self.filter_page])
    }

    fn find(&self, digest: &Digest, pages: &PageStore) -> Result<Option<Slot>, IndexError> {
        if !self.filter(pages)?.may_contain(digest) {
            return Ok(None);
        }
        let end = self.blocks.partition_point(|(first, _)| *first <= digest.prefix_u64());
        let find_in_block = |index: usize| pages.find(self.blocks[index].1, digest);
        search_equal_prefixes(end, |index| self.blocks[index].0, digest, find_in_block)
    }
}

/// Searches the blocks or partitions before `end` for `digest`, from the last one back. This is nearly always one,
/// but a digest may also be in an earlier one if the later ones start with its prefix.
fn search_equal_prefixes<T>(
    end: usize,
    first_prefix: impl Fn(usize) -> u64,
    digest: &Digest,
    find: impl Fn(usize) -> Result<Option<T>, IndexError>,
) -> Result<Option<T>, IndexError> {
    for index in (0..end).rev() {
        if let Some(found) = find(index)? {
            return Ok(Some(found));
        }
        if first_prefix(index) < digest.prefix_u64() {
            break;
        }
    }
    Ok(None)
}

impl SortedRun {
    /// Creates a run from partitions that were written before.
    pub fn new(partitions: Vec<Arc<Partition>>, lower_bound: u64, entry_count: usize) -> Self {
        let fence_keys = partitions.iter().map(|partition| partition.fence_key()).collect();
        Self { partitions, fence_keys, lower_bound, entry_count }
    }

    /// Returns the slot of `digest`, or `None` if the run has no entry for it.
    pub fn find(&self, digest: &Digest, pages: &PageStore) -> Result<Option<Slot>, IndexError> {
        let end = self.fence_keys.partition_point(|first| *first <= digest.prefix_u64());
        self.find_in_partitions(end, digest, pages)
    }

    /// Looks up sorted digests and sets the elements of `found` that are `None` and have an entry in the run.
    pub fn find_all(
        &self,
        digests: &[Digest],
        found: &mut [Option<Slot>],
        pages: &PageStore,
    ) -> Result<(), IndexError> {
        let (mut start, mut end) = (0, 0);
        while let Some(first) = digests.get(start) {
            end = self.gallop(end, first.prefix_u64());
            let is_before_next =
                |digest: &Digest| self.fence_keys.get(end).is_none_or(|next| digest.prefix_u64() < *next);
            let group = start..start + digests[start..].partition_point(is_before_next);
            start = group.end;
            let Some(partition) = end.checked_sub(1).map(|last| &self.partitions[last]) else { continue };
            for index in partition.candidates(&digests[group.clone()], pages)?.map(|index| group.start + index) {
                if found[index].is_none() {
                    found[index] = self.find_in_partitions(end, &digests[index], pages)?;
                }
            }
        }
        Ok(())
    }

    fn find_in_partitions(&self, end: usize, digest: &Digest, pages: &PageStore) -> Result<Option<Slot>, IndexError> {
        if digest.prefix_u64() < self.lower_bound {
            return Ok(None);
        }
        let find_in_partition = |index: usize| self.partitions[index].find(digest, pages);
        search_equal_prefixes(end, |index| self.fence_keys[index], digest, find_in_partition)
    }

    /// Returns the number of fence keys that are at most `prefix`, by exponential search from `known`, which must not
    /// exceed the result. The digests of a batch are sorted, so the result is usually close to `known`.
    fn gallop(&self, known: usize, prefix: u64) -> usize {
        let (mut end, mut step) = (known, 1);
        while self.fence_keys.get(end + step - 1).is_some_and(|first| *first <= prefix) {
            end += step;
            step *= 2;
        }
        let remaining = &self.fence_keys[end..self.fence_keys.len().min(end + step - 1)];
        end + remaining.partition_point(|first| *first <= prefix)
    }

    /// Returns the partitions, sorted.
    pub fn partitions(&self) -> &[Arc<Partition>] {
        &self.partitions
    }

    /// Iterates over all pages of the run.
    pub fn pages(&self) -> impl Iterator<Item = PageId> {
        self.partitions.iter().flat_map(|partition| partition.pages())
    }

    /// Iterates over the entries from `digest` on. The blocks are not inserted into the block cache.
    pub fn entries<'a>(
        &'a self,
        digest: Digest,
        pages: &'a PageStore,
    ) -> impl Iterator<Item = Result<IndexEntry, IndexError>> + 'a {
        let (lower_bound, start) = (self.lower_bound, digest.prefix_u64().max(self.lower_bound));
        // The last partition that begins before `start` may reach beyond it. The same is true of blocks.
        let first_partition = self.fence_keys.partition_point(|first| *first < start).saturating_sub(1);
        let first_block = |partition: &Arc<Partition>| {
            partition.blocks.partition_point(|(first, _)| *first < start).saturating_sub(1)
        };
        let skipped = self.partitions.get(first_partition).map_or(0, first_block);
        let partitions = &self.partitions[first_partition.min(self.partitions.len())..];
        let blocks = partitions.iter().flat_map(|partition| &partition.blocks).skip(skipped);
        blocks.flat_map(move |(_, page)| -> Box<dyn Iterator<Item = _> + 'a> {
            match pages.block(*page) {
                Ok(block) => {
                    let first = block.lower_bound(&digest);
                    let entries = (first..).map_while(move |index| block.entry(index));
                    Box::new(entries.filter(move |(digest, _)| digest.prefix_u64() >= lower_bound).map(Ok))
                }
                Err(error) => Box::new(std::iter::once(Err(error))),
            }
        })
    }

    /// Appends sorted entries that follow the last entry of the run. Stops after at least `limit` entries if more
    /// follow, and then returns the prefix of the next entry. Entries with equal prefixes are not separated.
    pub fn extend(
        &mut self,
        entries: &mut Peekable<impl Iterator<Item = Result<IndexEntry, IndexError>>>,
        limit: usize,
        pages: &PageStore,
    ) -> Result<Option<u64>, IndexError> {
        let mut written = 0;
        loop {
            let batch = entries.take(PARTITION_ENTRIES).collect::<Result<Vec<_>, _>>()?;
            let Some((last, _)) = batch.last() else { return Ok(None) };
            let partition = Partition::write(&batch, pages)?;
            self.fence_keys.push(partition.fence_key());
            self.partitions.push(Arc::new(partition));
            self.entry_count += batch.len();
            written += batch.len();
            if let Some(Ok((next, _))) = entries.peek()
                && written >= limit
                && next.prefix_u64() != last.prefix_u64()
            {
                return Ok(Some(next.prefix_u64()));
            }
        }
    }

    /// Raises the lower bound to `lower_bound`, removes the partitions below it, and returns their pages.
    pub fn truncate_front(&mut self, lower_bound: u64) -> Vec<PageId> {
        self.lower_bound = lower_bound;
        let merged = self.fence_keys.partition_point(|first| *first < lower_bound).saturating_sub(1);
        self.fence_keys.drain(..merged);
        self.partitions.drain(..merged).flat_map(|partition| partition.pages().collect::<Vec<_>>()).collect()
    }
}
