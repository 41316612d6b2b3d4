//! Pages: byte strings that are written once, read, and freed. A page number is reused only after the manifest that
//! needs its old page has been replaced, and then with a new generation, so a reader never gets another page's bytes.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use quick_cache::{Weighter, sync::Cache};

use super::block::{Block, Slot};
use super::bloom::BloomFilter;
use super::error::IndexError;
use super::sled_store::SledStore;
use crate::digest::Digest;

/// Number of freed pages whose bytes may stay on disk, in addition to one per [`PENDING_FREE_RATIO`] used pages.
const MAX_PENDING_FREE: usize = 16;
const PENDING_FREE_RATIO: usize = 16;

/// A page number and the generation in which the page was written. No two pages have both in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageId {
    pub number: u32,
    pub generation: u32,
}

/// The pages of an index, with a cache of decoded blocks.
pub struct PageStore {
    pub store: SledStore,
    block_cache: Cache<PageId, Arc<Block>, BlockWeighter>,
    allocator: Mutex<PageAllocator>,
}

struct PageAllocator {
    /// Generation of the pages that are written next.
    generation: u32,
    /// Number of pages in use.
    used_count: usize,
    /// Smallest number that was never used.
    next_number: u32,
    /// Numbers of freed pages whose bytes are still on disk.
    pending_free: Vec<u32>,
    /// Other free numbers.
    free: Vec<u32>,
}

#[derive(Clone)]
struct BlockWeighter;

impl Weighter<PageId, Arc<Block>> for BlockWeighter {
    fn weight(&self, _: &PageId, block: &Arc<Block>) -> u64 {
        block.memory_size() as u64
    }
}

impl PageStore {
    /// Creates a page store over `store`. `used` are the pages of the manifest, `generation` is that of the pages that
    /// are written next, and `cache` is the size of the block cache in bytes.
    pub fn new(store: SledStore, used: impl Iterator<Item = PageId>, generation: u32, cache: u64) -> Self {
        let mut numbers: Vec<_> = used.map(|page| page.number).collect();
        numbers.sort_unstable();
        let next_number = numbers.last().map_or(0, |last| last + 1);
        let free = (0..next_number).rev().filter(|number| numbers.binary_search(number).is_err()).collect();
        let allocator =
            PageAllocator { generation, used_count: numbers.len(), next_number, pending_free: Vec::new(), free };
        let expected_blocks = usize::try_from(cache / (1 << 16)).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let block_cache = Cache::with_weighter(expected_blocks, cache, BlockWeighter);
        Self { store, block_cache, allocator: Mutex::new(allocator) }
    }

    /// Returns the slot of `digest` in the block at `page`. A block that contains the digest is cached, because it is
    /// likely to be read again.
    pub fn find(&self, page: PageId, digest: &Digest) -> Result<Option<Slot>, IndexError> {
        if let Some(block) = self.block_cache.get(&page) {
            return Ok(block.find(digest));
        }
        let block = Block::decode(&self.read(page)?)?;
        let found = block.find(digest);
        if found.is_some() {
            self.block_cache.insert(page, Arc::new(block));
        }
        Ok(found)
    }

    /// Returns the block at `page` without inserting it into the cache.
    pub fn block(&self, page: PageId) -> Result<Arc<Block>, IndexError> {
        match self.block_cache.peek(&page) {
            Some(block) => Ok(block),
            None => Ok(Arc::new(Block::decode(&self.read(page)?)?)),
        }
    }

    /// Reads the Bloom filter at `page`.
    pub fn filter(&self, page: PageId) -> Result<BloomFilter, IndexError> {
        BloomFilter::decode(&self.read(page)?)
    }

    fn read(&self, page: PageId) -> Result<Vec<u8>, IndexError> {
        let mut bytes = self.store.get(page.number)?.unwrap_or_default();
        match bytes.split_last_chunk() {
            Some((_, generation)) if *generation == page.generation.to_le_bytes() => {
                bytes.truncate(bytes.len() - generation.len());
                Ok(bytes)
            }
            _ => Err(IndexError::PageReplaced),
        }
    }

    /// Writes a page, which becomes durable with the next flush. Must be called by one thread at a time, like all
    /// other methods that change the store.
    pub fn write(&self, mut bytes: Vec<u8>) -> Result<PageId, IndexError> {
        let mut allocator = self.allocator();
        let free = allocator.pending_free.pop().or_else(|| allocator.free.pop());
        let number = free.unwrap_or(allocator.next_number);
        allocator.next_number = allocator.next_number.max(number + 1);
        allocator.used_count += 1;
        let page = PageId { number, generation: allocator.generation };
        drop(allocator);
        bytes.extend(page.generation.to_le_bytes());
        self.store.set(number, &bytes)?;
        Ok(page)
    }

    /// Returns the generation of the pages that are written next.
    pub fn generation(&self) -> u32 {
        self.allocator().generation
    }

    /// Frees pages that the flushed manifest does not need, and begins a new generation. Called after a flush.
    pub fn free(&self, pages: impl Iterator<Item = PageId>) {
        let mut allocator = self.allocator();
        allocator.generation = allocator.generation.wrapping_add(1);
        let before = allocator.pending_free.len();
        allocator.pending_free.extend(pages.map(|page| page.number));
        allocator.used_count -= allocator.pending_free.len() - before;
    }

    /// Empties the values of freed pages if there are many. Returns whether the store has to be flushed.
    pub fn reclaim(&self) -> Result<bool, IndexError> {
        let mut allocator = self.allocator();
        if allocator.pending_free.len() <= MAX_PENDING_FREE + allocator.used_count / PENDING_FREE_RATIO {
            return Ok(false);
        }
        let reclaimed = std::mem::take(&mut allocator.pending_free);
        allocator.free.extend(&reclaimed);
        drop(allocator);
        reclaimed.into_iter().try_for_each(|number| self.store.set(number, &[])).map(|()| true)
    }

    fn allocator(&self) -> MutexGuard<'_, PageAllocator> {
        self.allocator.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::super::totals::Totals;
    use super::*;

    #[test]
    fn freed_page_is_unreadable_once_its_number_is_reused() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = SledStore::open(&dir.path().join("index")).unwrap();
        let pages = PageStore::new(store, std::iter::empty(), 0, 1 << 20);
        let [first, second] = [1, 2].map(|byte| pages.write(vec![byte; 9]).unwrap());
        pages.store.flush(b"", &Totals::EMPTY).unwrap();
        pages.free([first].into_iter());
        assert_eq!(pages.read(first).unwrap(), [1; 9]);
        let third = pages.write(vec![3; 9]).unwrap();
        assert_eq!((third.number, third.generation), (first.number, first.generation + 1));
        assert!(pages.read(first).is_err_and(|error| matches!(error, IndexError::PageReplaced)));
        assert_eq!([second, third].map(|page| pages.read(page).unwrap()), [[2; 9], [3; 9]]);
        let PageStore { store, .. } = pages;
        let pages = PageStore::new(store, [third].into_iter(), 7, 1 << 20);
        let [fourth, fifth] = [4, 5].map(|byte| pages.write(vec![byte; 9]).unwrap());
        assert_eq!([fourth, fifth].map(|page| page.number), [second.number, second.number + 1]);
    }

    #[test]
    fn reclaiming_many_freed_pages_releases_their_space() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = SledStore::open(&dir.path().join("index")).unwrap();
        let pages = PageStore::new(store, std::iter::empty(), 0, 1 << 20);
        let written: Vec<_> = (0..100).map(|byte| pages.write(vec![byte; 1 << 12]).unwrap()).collect();
        pages.free(written.iter().copied().skip(90));
        assert!(!pages.reclaim().unwrap());
        pages.free(written.iter().copied().take(70));
        assert!(pages.reclaim().unwrap() && !pages.reclaim().unwrap());
        let used = written.iter().filter(|page| !pages.store.get(page.number).unwrap().unwrap().is_empty());
        assert_eq!(used.count(), 20);
        assert!((70..90).all(|index| pages.read(written[index]).is_ok()));
    }
}
