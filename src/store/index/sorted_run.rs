//! Runs: entries in the order of their digests, written once, in groups of blocks. A newer run counts before an older
//! one. While runs are merged, what has moved on stands in the merged one and is passed over in the others.

use std::iter::Peekable;
use std::sync::{Arc, OnceLock};

use super::block::{self, BLOCK_ENTRIES, IndexEntry, Slot};
use super::bloom::BloomFilter;
use super::page_store::{PageId, PageStore};
use super::sled_store::IndexError;
use crate::digest::Digest;

/// Entries that share a filter.
const PARTITION_ENTRIES: usize = 10 * BLOCK_ENTRIES;

/// A run, or what is left of it.
#[derive(Debug, Clone, Default)]
pub struct SortedRun {
    partitions: Vec<Arc<Partition>>,
    /// The leading bytes of the first digest of each group, close together to be searched.
    fence_keys: Vec<u64>,
    /// Digests whose leading bytes are below this have moved on to another run.
    pub lower_bound: u64,
    /// How many entries it had when it was written.
    pub entry_count: usize,
}

/// Blocks with a filter for all of them.
#[derive(Debug)]
pub struct Partition {
    /// Of each block, the leading bytes of its first digest, and where it stands. There is one at least.
    pub blocks: Vec<(u64, PageId)>,
    pub filter_page: PageId,
    loaded_filter: OnceLock<BloomFilter>,
}

impl Partition {
    /// A group that was written before.
    pub fn new(blocks: Vec<(u64, PageId)>, filter: PageId) -> Self {
        Self { blocks, filter_page: filter, loaded_filter: OnceLock::new() }
    }

    fn write(entries: &[IndexEntry], pages: &PageStore) -> Result<Self, IndexError> {
        let filter = BloomFilter::build(entries);
        let write = |part: &[IndexEntry]| Ok((part[0].0.prefix_u64(), pages.write(block::encode(part))?));
        let blocks = entries.chunks(BLOCK_ENTRIES).map(write).collect::<Result<_, IndexError>>()?;
        let page = pages.write(filter.encode())?;
        Ok(Self { blocks, filter_page: page, loaded_filter: OnceLock::from(filter) })
    }

    fn filter(&self, pages: &PageStore) -> Result<&BloomFilter, IndexError> {
        if let Some(filter) = self.loaded_filter.get() {
            return Ok(filter);
        }
        let filter = pages.filter(self.filter_page)?;
        Ok(self.loaded_filter.get_or_init(|| filter))
    }

    /// The places of those, in order and none below its first, that may stand in it, or in one before it that ends
    /// alike.
    fn candidates(&self, digests: &[Digest], pages: &PageStore) -> Result<impl Iterator<Item = usize>, IndexError> {
        let alike = digests.partition_point(|digest| digest.prefix_u64() == self.fence_key());
        let likely = self.filter(pages)?.may_contain_batch(&digests[alike..]);
        Ok((0..alike).chain(likely.into_iter().map(move |place| alike + place)))
    }

    /// The leading bytes of its first digest.
    pub fn fence_key(&self) -> u64 {
        self.blocks[0].0
    }

    /// All its pages.
    pub fn pages(&self) -> impl Iterator<Item = PageId> {
        self.blocks.iter().map(|(_, page)| *page).chain([self.filter_page])
    }

    fn find(&self, digest: &Digest, pages: &PageStore) -> Result<Option<Slot>, IndexError> {
        if !self.filter(pages)?.may_contain(digest) {
            return Ok(None);
        }
        let end = self.blocks.partition_point(|(first, _)| *first <= digest.prefix_u64());
        search_equal_prefixes(end, |at| self.blocks[at].0, digest, |at| pages.find(self.blocks[at].1, digest))
    }
}

/// Asks those of the first `end` parts that may hold a digest, by their places: nearly always one, the last, which does
/// not begin behind it. But parts may begin and end with the same bytes.
fn search_equal_prefixes<T>(
    end: usize,
    first: impl Fn(usize) -> u64,
    digest: &Digest,
    find: impl Fn(usize) -> Result<Option<T>, IndexError>,
) -> Result<Option<T>, IndexError> {
    for at in (0..end).rev() {
        if let Some(found) = find(at)? {
            return Ok(Some(found));
        }
        if first(at) < digest.prefix_u64() {
            break;
        }
    }
    Ok(None)
}

impl SortedRun {
    /// A run that was written before.
    pub fn new(groups: Vec<Arc<Partition>>, from: u64, entries: usize) -> Self {
        let firsts = groups.iter().map(|group| group.fence_key()).collect();
        Self { partitions: groups, fence_keys: firsts, lower_bound: from, entry_count: entries }
    }

    /// What the run says of a digest, if anything.
    pub fn find(&self, digest: &Digest, pages: &PageStore) -> Result<Option<Slot>, IndexError> {
        let end = self.fence_keys.partition_point(|first| *first <= digest.prefix_u64());
        self.find_in_partitions(end, digest, pages)
    }

    /// The same of many in their order, where nothing was found yet.
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
            let these = start..start + digests[start..].partition_point(is_before_next);
            start = these.end;
            let Some(group) = end.checked_sub(1).map(|last| &self.partitions[last]) else { continue };
            for place in group.candidates(&digests[these.clone()], pages)?.map(|place| these.start + place) {
                if found[place].is_none() {
                    found[place] = self.find_in_partitions(end, &digests[place], pages)?;
                }
            }
        }
        Ok(())
    }

    fn find_in_partitions(&self, end: usize, digest: &Digest, pages: &PageStore) -> Result<Option<Slot>, IndexError> {
        if digest.prefix_u64() < self.lower_bound {
            return Ok(None);
        }
        search_equal_prefixes(end, |at| self.fence_keys[at], digest, |at| self.partitions[at].find(digest, pages))
    }

    /// How many groups do not begin behind `wanted`, if so many are known not to: nearly always it is not far.
    fn gallop(&self, known: usize, wanted: u64) -> usize {
        let (mut end, mut step) = (known, 1);
        while self.fence_keys.get(end + step - 1).is_some_and(|first| *first <= wanted) {
            end += step;
            step *= 2;
        }
        let rest = &self.fence_keys[end..self.fence_keys.len().min(end + step - 1)];
        end + rest.partition_point(|first| *first <= wanted)
    }

    /// Its groups, in order.
    pub fn partitions(&self) -> &[Arc<Partition>] {
        &self.partitions
    }

    /// All its pages.
    pub fn pages(&self) -> impl Iterator<Item = PageId> {
        self.partitions.iter().flat_map(|group| group.pages())
    }

    /// Its entries from `digest` on. Blocks are read in passing.
    pub fn entries<'a>(
        &'a self,
        digest: Digest,
        pages: &'a PageStore,
    ) -> impl Iterator<Item = Result<IndexEntry, IndexError>> + 'a {
        let (from, start) = (self.lower_bound, digest.prefix_u64().max(self.lower_bound));
        // The one before the first that begins at the start, or behind it, may reach beyond the start.
        let group = self.fence_keys.partition_point(|first| *first < start).saturating_sub(1);
        let blocks =
            |group: &Arc<Partition>| group.blocks.partition_point(|(first, _)| *first < start).saturating_sub(1);
        let passed = self.partitions.get(group).map_or(0, blocks);
        let blocks =
            self.partitions[group.min(self.partitions.len())..].iter().flat_map(|group| &group.blocks).skip(passed);
        blocks.flat_map(move |(_, page)| -> Box<dyn Iterator<Item = _> + 'a> {
            match pages.block(*page) {
                Ok(block) => {
                    let first = block.lower_bound(&digest);
                    let entries = (first..).map_while(move |at| block.entry(at));
                    Box::new(entries.filter(move |(digest, _)| digest.prefix_u64() >= from).map(Ok))
                }
                Err(damaged) => Box::new(std::iter::once(Err(damaged))),
            }
        })
    }

    /// Appends entries, which go on where it ends, as groups. Stops after `limit` if there are more; answers with the
    /// leading bytes of the next one then.
    pub fn extend(
        &mut self,
        entries: &mut Peekable<impl Iterator<Item = Result<IndexEntry, IndexError>>>,
        limit: usize,
        pages: &PageStore,
    ) -> Result<Option<u64>, IndexError> {
        let mut written = 0;
        loop {
            let group = entries.take(PARTITION_ENTRIES).collect::<Result<Vec<_>, _>>()?;
            let Some((last, _)) = group.last() else { return Ok(None) };
            let written_group = Partition::write(&group, pages)?;
            self.fence_keys.push(written_group.fence_key());
            self.partitions.push(Arc::new(written_group));
            self.entry_count += group.len();
            written += group.len();
            if let Some(Ok((next, _))) = entries.peek()
                && written >= limit
                && next.prefix_u64() != last.prefix_u64()
            {
                return Ok(Some(next.prefix_u64()));
            }
        }
    }

    /// Entries below `from` have moved on: answers with the pages that are not needed any more.
    pub fn truncate_front(&mut self, from: u64) -> Vec<PageId> {
        self.lower_bound = from;
        let passed = self.fence_keys.partition_point(|first| *first < from).saturating_sub(1);
        self.fence_keys.drain(..passed);
        self.partitions.drain(..passed).flat_map(|group| group.pages().collect::<Vec<_>>()).collect()
    }
}
