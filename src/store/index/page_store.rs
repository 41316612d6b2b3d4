//! Pages of the tree: written once, read, and given up when nothing needs them any more. A number is used again only
//! after what needs its old page is gone for good, and then under another stamp: so no page is taken for another.

use std::sync::{Arc, Mutex, MutexGuard};

use quick_cache::{Weighter, sync::Cache};

use super::block::{Block, Slot};
use super::bloom::BloomFilter;
use super::sled_store::{IndexError, SledStore};
use crate::digest::Digest;

/// So many pages may lie about with their bytes, beyond one for so many that are used.
const MAX_PENDING_FREE: usize = 16;
const PENDING_FREE_RATIO: usize = 16;

/// Names a page, once and for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageId {
    pub number: u32,
    pub generation: u32,
}

/// The pages of a tree, and the blocks that were read lately.
pub struct PageStore {
    pub store: SledStore,
    block_cache: Cache<PageId, Arc<Block>, BlockWeighter>,
    allocator: Mutex<PageAllocator>,
}

/// Which numbers are free.
struct PageAllocator {
    /// What is written from now on is stamped with this.
    generation: u32,
    used_count: usize,
    next_number: u32,
    /// Given up, with their bytes still there.
    pending_free: Vec<u32>,
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
    /// The pages of `tree`, of which these are used; with memory for so many bytes of blocks.
    pub fn new(tree: SledStore, used: impl Iterator<Item = PageId>, stamp: u32, cache: u64) -> Self {
        let mut numbers: Vec<_> = used.map(|page| page.number).collect();
        numbers.sort_unstable();
        let next = numbers.last().map_or(0, |last| last + 1);
        let empty = (0..next).rev().filter(|number| numbers.binary_search(number).is_err()).collect();
        let ledger = PageAllocator {
            generation: stamp,
            used_count: numbers.len(),
            next_number: next,
            pending_free: Vec::new(),
            free: empty,
        };
        let usual = usize::try_from(cache / (1 << 16)).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let blocks = Cache::with_weighter(usual, cache, BlockWeighter);
        Self { store: tree, block_cache: blocks, allocator: Mutex::new(ledger) }
    }

    /// What a block says of a digest. If it says something it is kept, since it is likely to be asked for again.
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

    /// A block that is read in passing.
    pub fn block(&self, page: PageId) -> Result<Arc<Block>, IndexError> {
        match self.block_cache.peek(&page) {
            Some(block) => Ok(block),
            None => Ok(Arc::new(Block::decode(&self.read(page)?)?)),
        }
    }

    /// A filter.
    pub fn filter(&self, page: PageId) -> Result<BloomFilter, IndexError> {
        BloomFilter::decode(&self.read(page)?)
    }

    fn read(&self, page: PageId) -> Result<Vec<u8>, IndexError> {
        let mut bytes = self.store.get(page.number)?.unwrap_or_default();
        match bytes.split_last_chunk() {
            Some((_, stamp)) if *stamp == page.generation.to_le_bytes() => {
                bytes.truncate(bytes.len() - stamp.len());
                Ok(bytes)
            }
            _ => Err(IndexError::page_replaced("a page of it is missing")),
        }
    }

    /// Writes a page, durable with the next flush. For one thread at a time, as all that follows.
    pub fn write(&self, mut bytes: Vec<u8>) -> Result<PageId, IndexError> {
        let mut ledger = self.allocator();
        let free = ledger.pending_free.pop().or_else(|| ledger.free.pop());
        let number = free.unwrap_or(ledger.next_number);
        ledger.next_number = ledger.next_number.max(number + 1);
        ledger.used_count += 1;
        let page = PageId { number, generation: ledger.generation };
        drop(ledger);
        bytes.extend(page.generation.to_le_bytes());
        self.store.set(number, &bytes)?;
        Ok(page)
    }

    /// What the next pages are stamped with.
    pub fn generation(&self) -> u32 {
        self.allocator().generation
    }

    /// After a flush: these are not needed any more, and what comes is told apart from what was.
    pub fn free(&self, pages: impl Iterator<Item = PageId>) {
        let mut ledger = self.allocator();
        ledger.generation = ledger.generation.wrapping_add(1);
        let before = ledger.pending_free.len();
        ledger.pending_free.extend(pages.map(|page| page.number));
        ledger.used_count -= ledger.pending_free.len() - before;
    }

    /// Takes the bytes away from pages that were given up, if they are many; says whether there is something to flush.
    pub fn reclaim(&self) -> Result<bool, IndexError> {
        let mut ledger = self.allocator();
        if ledger.pending_free.len() <= MAX_PENDING_FREE + ledger.used_count / PENDING_FREE_RATIO {
            return Ok(false);
        }
        let swept = std::mem::take(&mut ledger.pending_free);
        ledger.free.extend(&swept);
        drop(ledger);
        swept.into_iter().try_for_each(|number| self.store.set(number, &[])).map(|()| true)
    }

    fn allocator(&self) -> MutexGuard<'_, PageAllocator> {
        self.allocator.lock().expect("nobody panics while holding this")
    }
}

#[cfg(test)]
mod tests {
    use super::super::totals::Totals;
    use super::*;

    #[test]
    fn freed_page_is_unreadable_once_its_number_is_reused() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, _) = SledStore::open(&dir.path().join("index")).unwrap();
        let pages = PageStore::new(tree, std::iter::empty(), 0, 1 << 20);
        let [first, second] = [1, 2].map(|byte| pages.write(vec![byte; 9]).unwrap());
        pages.store.flush(b"", &Totals::EMPTY).unwrap();
        pages.free([first].into_iter());
        assert_eq!(pages.read(first).unwrap(), [1; 9]);
        let third = pages.write(vec![3; 9]).unwrap();
        assert_eq!((third.number, third.generation), (first.number, first.generation + 1));
        assert!(pages.read(first).is_err_and(|why| why.is_page_replaced));
        assert_eq!([second, third].map(|page| pages.read(page).unwrap()), [[2; 9], [3; 9]]);
        let PageStore { store: tree, .. } = pages;
        let pages = PageStore::new(tree, [third].into_iter(), 7, 1 << 20);
        let [fourth, fifth] = [4, 5].map(|byte| pages.write(vec![byte; 9]).unwrap());
        assert_eq!([fourth, fifth].map(|page| page.number), [second.number, second.number + 1]);
    }

    #[test]
    fn reclaiming_many_freed_pages_releases_their_space() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, _) = SledStore::open(&dir.path().join("index")).unwrap();
        let pages = PageStore::new(tree, std::iter::empty(), 0, 1 << 20);
        let written: Vec<_> = (0..100).map(|byte| pages.write(vec![byte; 1 << 12]).unwrap()).collect();
        pages.free(written.iter().copied().skip(90));
        assert!(!pages.reclaim().unwrap());
        pages.free(written.iter().copied().take(70));
        assert!(pages.reclaim().unwrap() && !pages.reclaim().unwrap());
        let left = written.iter().filter(|page| !pages.store.get(page.number).unwrap().unwrap().is_empty());
        assert_eq!(left.count(), 20);
        assert!((70..90).all(|at| pages.read(written[at]).is_ok()));
    }
}
