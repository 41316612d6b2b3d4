//! The catalog: which runs there are, where they stand, and how far into the log they go. It is the root of the tree,
//! flushed together with all that it names, so that it is always true.

use std::sync::Arc;

use super::mark::{self, Mark};
use super::pages::Page;
use super::run::{Group, Run};
use super::tree::Damaged;

/// Of an index of another form, the catalog begins otherwise, so that it is made anew.
const FORM: u8 = 5;

/// Runs, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    pub list: Vec<Run>,
    /// Which of them is being written, if one is, and how many behind it move into it.
    pub merging: Option<(usize, usize)>,
}

impl Runs {
    /// All their pages.
    pub fn pages(&self) -> impl Iterator<Item = Page> {
        self.list.iter().flat_map(Run::pages)
    }
}

/// As it is stored: the mark, the stamp of the newest pages, the runs.
pub fn encode(mark: &Mark, stamp: u32, runs: &Runs) -> Vec<u8> {
    let mark = mark.encode();
    let mut out = vec![FORM];
    let long = |out: &mut Vec<u8>, number: u64| out.extend(number.to_le_bytes());
    let page = |out: &mut Vec<u8>, page: Page| [page.number, page.stamp].map(|number| out.extend(number.to_le_bytes()));
    long(&mut out, mark.len() as u64);
    out.extend(mark);
    let (written, moving) = runs.merging.unwrap_or_default();
    for number in [u64::from(stamp), written as u64, moving as u64, runs.list.len() as u64] {
        long(&mut out, number);
    }
    for run in &runs.list {
        for number in [run.from, run.entries as u64, run.groups().len() as u64] {
            long(&mut out, number);
        }
        for group in run.groups() {
            page(&mut out, group.filter);
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
pub fn decode(bytes: &[u8]) -> Result<(Mark, u32, Runs), Damaged> {
    let mut reader = Reader(bytes);
    reader.catalog().filter(|_| reader.0.is_empty()).ok_or_else(|| Damaged::new("it holds a catalog of another form"))
}

/// What is left to read; nothing more once something is missing.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn catalog(&mut self) -> Option<(Mark, u32, Runs)> {
        let form = self.take(1)?[0];
        let length = if form == FORM { self.count()? } else { return None };
        let mark = Mark::decode(self.take(length)?)?;
        let (stamp, written, moving, count) = (self.long()?, self.count()?, self.count()?, self.long()?);
        let list = (0..count).map(|_| self.run()).collect::<Option<Vec<_>>>()?;
        let is_whole = moving == 0 || written.checked_add(moving)? < list.len();
        let merging = (moving > 0).then_some((written, moving));
        is_whole.then_some((mark, u32::try_from(stamp).ok()?, Runs { list, merging }))
    }

    fn run(&mut self) -> Option<Run> {
        let (from, entries, count) = (self.long()?, self.count()?, self.long()?);
        let groups = (0..count).map(|_| self.group()).collect::<Option<_>>()?;
        Some(Run::new(groups, from, entries))
    }

    fn group(&mut self) -> Option<Arc<Group>> {
        let (filter, count) = (self.page()?, self.long()?);
        let blocks: Vec<_> = (0..count).map(|_| Some((self.long()?, self.page()?))).collect::<Option<_>>()?;
        (!blocks.is_empty()).then(|| Arc::new(Group::new(blocks, filter)))
    }

    fn page(&mut self) -> Option<Page> {
        let both = self.take(8)?;
        Some(Page { number: mark::short(both, 0), stamp: mark::short(both, 4) })
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.long()?).ok()
    }

    fn long(&mut self) -> Option<u64> {
        Some(mark::long(self.take(8)?, 0))
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_reads_back_and_a_cut_one_is_damage() {
        let page = |number| Page { number, stamp: number + 7 };
        let group = |first| Arc::new(Group::new(vec![(first, page(1)), (first + 1, page(2))], page(3)));
        let run = |from| Run::new(vec![group(5), group(9)], from, 4);
        let runs = Runs { list: vec![run(0), run(3), Run::default()], merging: Some((0, 2)) };
        let bytes = encode(&Mark::EMPTY, 9, &runs);
        let (mark, stamp, read) = decode(&bytes).unwrap();
        assert_eq!((mark, stamp), (Mark::EMPTY, 9));
        assert_eq!(encode(&Mark::EMPTY, 9, &read), bytes);
        assert_eq!(read.pages().collect::<Vec<_>>(), runs.pages().collect::<Vec<_>>());
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end}");
        }
    }
}
