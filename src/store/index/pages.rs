//! Pages of the tree: written once, read, and given up when nothing needs them any more. A number is used again only
//! after what needs its old page is gone for good, and then under another stamp: so no page is taken for another.

use std::sync::{Arc, Mutex, MutexGuard};

use quick_cache::{Weighter, sync::Cache};

use super::block::{Block, Standing};
use super::filter::Filter;
use super::tree::{Damaged, Tree};
use crate::digest::Digest;

/// So many pages may lie about with their bytes, beyond one for so many that are used.
const LITTER: usize = 16;
const USED: usize = 16;

/// Names a page, once and for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Page {
    pub number: u32,
    pub stamp: u32,
}

/// The pages of a tree, and the blocks that were read lately.
pub struct Pages {
    pub tree: Tree,
    blocks: Cache<Page, Arc<Block>, Weight>,
    ledger: Mutex<Ledger>,
}

/// Which numbers are free.
struct Ledger {
    /// What is written from now on is stamped with this.
    stamp: u32,
    used: usize,
    next: u32,
    /// Given up, with their bytes still there.
    littered: Vec<u32>,
    empty: Vec<u32>,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Page, Arc<Block>> for Weight {
    fn weight(&self, _: &Page, block: &Arc<Block>) -> u64 {
        block.size() as u64
    }
}

impl Pages {
    /// The pages of `tree`, of which these are used; with memory for so many bytes of blocks.
    pub fn new(tree: Tree, used: impl Iterator<Item = Page>, stamp: u32, cache: u64) -> Self {
        let mut numbers: Vec<_> = used.map(|page| page.number).collect();
        numbers.sort_unstable();
        let next = numbers.last().map_or(0, |last| last + 1);
        let empty = (0..next).rev().filter(|number| numbers.binary_search(number).is_err()).collect();
        let ledger = Ledger { stamp, used: numbers.len(), next, littered: Vec::new(), empty };
        let usual = usize::try_from(cache / (1 << 16)).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let blocks = Cache::with_weighter(usual, cache, Weight);
        Self { tree, blocks, ledger: Mutex::new(ledger) }
    }

    /// What a block says of a digest. If it says something it is kept, since it is likely to be asked for again.
    pub fn find(&self, page: Page, digest: &Digest) -> Result<Option<Standing>, Damaged> {
        if let Some(block) = self.blocks.get(&page) {
            return Ok(block.find(digest));
        }
        let block = Block::decode(&self.read(page)?)?;
        let found = block.find(digest);
        if found.is_some() {
            self.blocks.insert(page, Arc::new(block));
        }
        Ok(found)
    }

    /// A block that is read in passing.
    pub fn block(&self, page: Page) -> Result<Arc<Block>, Damaged> {
        match self.blocks.peek(&page) {
            Some(block) => Ok(block),
            None => Ok(Arc::new(Block::decode(&self.read(page)?)?)),
        }
    }

    /// A filter.
    pub fn filter(&self, page: Page) -> Result<Filter, Damaged> {
        Filter::decode(&self.read(page)?)
    }

    fn read(&self, page: Page) -> Result<Vec<u8>, Damaged> {
        let mut bytes = self.tree.get(page.number)?.unwrap_or_default();
        match bytes.split_last_chunk() {
            Some((_, stamp)) if *stamp == page.stamp.to_le_bytes() => {
                bytes.truncate(bytes.len() - stamp.len());
                Ok(bytes)
            }
            _ => Err(Damaged::gone("a page of it is missing")),
        }
    }

    /// Writes a page, durable with the next flush. For one thread at a time, as all that follows.
    pub fn write(&self, mut bytes: Vec<u8>) -> Result<Page, Damaged> {
        let mut ledger = self.ledger();
        let free = ledger.littered.pop().or_else(|| ledger.empty.pop());
        let number = free.unwrap_or(ledger.next);
        ledger.next = ledger.next.max(number + 1);
        ledger.used += 1;
        let page = Page { number, stamp: ledger.stamp };
        drop(ledger);
        bytes.extend(page.stamp.to_le_bytes());
        self.tree.set(number, &bytes)?;
        Ok(page)
    }

    /// What the next pages are stamped with.
    pub fn stamp(&self) -> u32 {
        self.ledger().stamp
    }

    /// After a flush: these are not needed any more, and what comes is told apart from what was.
    pub fn give_up(&self, pages: impl Iterator<Item = Page>) {
        let mut ledger = self.ledger();
        ledger.stamp = ledger.stamp.wrapping_add(1);
        let before = ledger.littered.len();
        ledger.littered.extend(pages.map(|page| page.number));
        ledger.used -= ledger.littered.len() - before;
    }

    /// Takes the bytes away from pages that were given up, if they are many; says whether there is something to flush.
    pub fn sweep(&self) -> Result<bool, Damaged> {
        let mut ledger = self.ledger();
        if ledger.littered.len() <= LITTER + ledger.used / USED {
            return Ok(false);
        }
        let swept = std::mem::take(&mut ledger.littered);
        ledger.empty.extend(&swept);
        drop(ledger);
        swept.into_iter().try_for_each(|number| self.tree.set(number, &[])).map(|()| true)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("nobody panics while holding this")
    }
}

#[cfg(test)]
mod tests {
    use super::super::mark::Mark;
    use super::*;

    #[test]
    fn a_page_that_was_given_up_is_gone_and_its_number_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, _) = Tree::open(&dir.path().join("index")).unwrap();
        let pages = Pages::new(tree, std::iter::empty(), 0, 1 << 20);
        let [first, second] = [1, 2].map(|byte| pages.write(vec![byte; 9]).unwrap());
        pages.tree.flush(b"", &Mark::EMPTY).unwrap();
        pages.give_up([first].into_iter());
        assert_eq!(pages.read(first).unwrap(), [1; 9]);
        let third = pages.write(vec![3; 9]).unwrap();
        assert_eq!((third.number, third.stamp), (first.number, first.stamp + 1));
        assert!(pages.read(first).is_err_and(|why| why.is_gone));
        assert_eq!([second, third].map(|page| pages.read(page).unwrap()), [[2; 9], [3; 9]]);
        let Pages { tree, .. } = pages;
        let pages = Pages::new(tree, [third].into_iter(), 7, 1 << 20);
        let [fourth, fifth] = [4, 5].map(|byte| pages.write(vec![byte; 9]).unwrap());
        assert_eq!([fourth, fifth].map(|page| page.number), [second.number, second.number + 1]);
    }

    #[test]
    fn many_pages_that_were_given_up_take_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, _) = Tree::open(&dir.path().join("index")).unwrap();
        let pages = Pages::new(tree, std::iter::empty(), 0, 1 << 20);
        let written: Vec<_> = (0..100).map(|byte| pages.write(vec![byte; 1 << 12]).unwrap()).collect();
        pages.give_up(written.iter().copied().skip(90));
        assert!(!pages.sweep().unwrap());
        pages.give_up(written.iter().copied().take(70));
        assert!(pages.sweep().unwrap() && !pages.sweep().unwrap());
        let left = written.iter().filter(|page| !pages.tree.get(page.number).unwrap().unwrap().is_empty());
        assert_eq!(left.count(), 20);
        assert!((70..90).all(|at| pages.read(written[at]).is_ok()));
    }
}
