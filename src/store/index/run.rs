//! Runs: entries in the order of their digests, written once, in groups of blocks. A newer run counts before an older
//! one. While runs are merged, what has moved on stands in the merged one and is passed over in the others.

use std::iter::Peekable;
use std::sync::{Arc, OnceLock};

use super::block::{self, BLOCK, Entry, Standing};
use super::filter::Filter;
use super::pages::{Page, Pages};
use super::tree::Damaged;
use crate::digest::Digest;

/// Entries that share a filter.
const GROUP: usize = 10 * BLOCK;

/// A run, or what is left of it.
#[derive(Debug, Clone, Default)]
pub struct Run {
    groups: Vec<Arc<Group>>,
    /// The leading bytes of the first digest of each group, close together to be searched.
    firsts: Vec<u64>,
    /// Digests whose leading bytes are below this have moved on to another run.
    pub from: u64,
    /// How many entries it had when it was written.
    pub entries: usize,
}

/// Blocks with a filter for all of them.
#[derive(Debug)]
pub struct Group {
    /// Of each block, the leading bytes of its first digest, and where it stands. There is one at least.
    pub blocks: Vec<(u64, Page)>,
    pub filter: Page,
    loaded: OnceLock<Filter>,
}

impl Group {
    /// A group that was written before.
    pub fn new(blocks: Vec<(u64, Page)>, filter: Page) -> Self {
        Self { blocks, filter, loaded: OnceLock::new() }
    }

    fn write(entries: &[Entry], pages: &Pages) -> Result<Self, Damaged> {
        let filter = Filter::of(entries);
        let write = |part: &[Entry]| Ok((part[0].0.leading(), pages.write(block::encode(part))?));
        let blocks = entries.chunks(BLOCK).map(write).collect::<Result<_, Damaged>>()?;
        let page = pages.write(filter.encode())?;
        Ok(Self { blocks, filter: page, loaded: OnceLock::from(filter) })
    }

    fn filter(&self, pages: &Pages) -> Result<&Filter, Damaged> {
        if let Some(filter) = self.loaded.get() {
            return Ok(filter);
        }
        let filter = pages.filter(self.filter)?;
        Ok(self.loaded.get_or_init(|| filter))
    }

    /// The places of those, in order and none below its first, that may stand in it, or in one before it that ends
    /// alike.
    fn likely(&self, digests: &[Digest], pages: &Pages) -> Result<impl Iterator<Item = usize>, Damaged> {
        let alike = digests.partition_point(|digest| digest.leading() == self.first());
        let likely = self.filter(pages)?.likely(&digests[alike..]);
        Ok((0..alike).chain(likely.into_iter().map(move |place| alike + place)))
    }

    /// The leading bytes of its first digest.
    pub fn first(&self) -> u64 {
        self.blocks[0].0
    }

    /// All its pages.
    pub fn pages(&self) -> impl Iterator<Item = Page> {
        self.blocks.iter().map(|(_, page)| *page).chain([self.filter])
    }

    fn find(&self, digest: &Digest, pages: &Pages) -> Result<Option<Standing>, Damaged> {
        if !self.filter(pages)?.may_hold(digest) {
            return Ok(None);
        }
        let end = self.blocks.partition_point(|(first, _)| *first <= digest.leading());
        find_behind(end, |at| self.blocks[at].0, digest, |at| pages.find(self.blocks[at].1, digest))
    }
}

/// Asks those of the first `end` parts that may hold a digest, by their places: nearly always one, the last, which does
/// not begin behind it. But parts may begin and end with the same bytes.
fn find_behind<Found>(
    end: usize,
    first: impl Fn(usize) -> u64,
    digest: &Digest,
    find: impl Fn(usize) -> Result<Option<Found>, Damaged>,
) -> Result<Option<Found>, Damaged> {
    for at in (0..end).rev() {
        if let Some(found) = find(at)? {
            return Ok(Some(found));
        }
        if first(at) < digest.leading() {
            break;
        }
    }
    Ok(None)
}

impl Run {
    /// A run that was written before.
    pub fn new(groups: Vec<Arc<Group>>, from: u64, entries: usize) -> Self {
        let firsts = groups.iter().map(|group| group.first()).collect();
        Self { groups, firsts, from, entries }
    }

    /// What the run says of a digest, if anything.
    pub fn find(&self, digest: &Digest, pages: &Pages) -> Result<Option<Standing>, Damaged> {
        let end = self.firsts.partition_point(|first| *first <= digest.leading());
        self.find_before(end, digest, pages)
    }

    /// The same of many in their order, where nothing was found yet.
    pub fn find_all(&self, digests: &[Digest], found: &mut [Option<Standing>], pages: &Pages) -> Result<(), Damaged> {
        let (mut start, mut end) = (0, 0);
        while let Some(first) = digests.get(start) {
            end = self.end_from(end, first.leading());
            let is_before_next = |digest: &Digest| self.firsts.get(end).is_none_or(|next| digest.leading() < *next);
            let these = start..start + digests[start..].partition_point(is_before_next);
            start = these.end;
            let Some(group) = end.checked_sub(1).map(|last| &self.groups[last]) else { continue };
            for place in group.likely(&digests[these.clone()], pages)?.map(|place| these.start + place) {
                if found[place].is_none() {
                    found[place] = self.find_before(end, &digests[place], pages)?;
                }
            }
        }
        Ok(())
    }

    fn find_before(&self, end: usize, digest: &Digest, pages: &Pages) -> Result<Option<Standing>, Damaged> {
        if digest.leading() < self.from {
            return Ok(None);
        }
        find_behind(end, |at| self.firsts[at], digest, |at| self.groups[at].find(digest, pages))
    }

    /// How many groups do not begin behind `wanted`, if so many are known not to: nearly always it is not far.
    fn end_from(&self, known: usize, wanted: u64) -> usize {
        let (mut end, mut step) = (known, 1);
        while self.firsts.get(end + step - 1).is_some_and(|first| *first <= wanted) {
            end += step;
            step *= 2;
        }
        let rest = &self.firsts[end..self.firsts.len().min(end + step - 1)];
        end + rest.partition_point(|first| *first <= wanted)
    }

    /// Its groups, in order.
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// All its pages.
    pub fn pages(&self) -> impl Iterator<Item = Page> {
        self.groups.iter().flat_map(|group| group.pages())
    }

    /// Its entries from `digest` on. Blocks are read in passing.
    pub fn entries<'a>(
        &'a self,
        digest: Digest,
        pages: &'a Pages,
    ) -> impl Iterator<Item = Result<Entry, Damaged>> + 'a {
        let (from, start) = (self.from, digest.leading().max(self.from));
        // The one before the first that begins at the start, or behind it, may reach beyond the start.
        let group = self.firsts.partition_point(|first| *first < start).saturating_sub(1);
        let blocks = |group: &Arc<Group>| group.blocks.partition_point(|(first, _)| *first < start).saturating_sub(1);
        let passed = self.groups.get(group).map_or(0, blocks);
        let blocks = self.groups[group.min(self.groups.len())..].iter().flat_map(|group| &group.blocks).skip(passed);
        blocks.flat_map(move |(_, page)| -> Box<dyn Iterator<Item = _> + 'a> {
            match pages.block(*page) {
                Ok(block) => {
                    let first = block.place_of(&digest);
                    let entries = (first..).map_while(move |at| block.entry(at));
                    Box::new(entries.filter(move |(digest, _)| digest.leading() >= from).map(Ok))
                }
                Err(damaged) => Box::new(std::iter::once(Err(damaged))),
            }
        })
    }

    /// Appends entries, which go on where it ends, as groups. Stops after `limit` if there are more; answers with the
    /// leading bytes of the next one then.
    pub fn extend(
        &mut self,
        entries: &mut Peekable<impl Iterator<Item = Result<Entry, Damaged>>>,
        limit: usize,
        pages: &Pages,
    ) -> Result<Option<u64>, Damaged> {
        let mut written = 0;
        loop {
            let group = entries.take(GROUP).collect::<Result<Vec<_>, _>>()?;
            let Some((last, _)) = group.last() else { return Ok(None) };
            let written_group = Group::write(&group, pages)?;
            self.firsts.push(written_group.first());
            self.groups.push(Arc::new(written_group));
            self.entries += group.len();
            written += group.len();
            if let Some(Ok((next, _))) = entries.peek()
                && written >= limit
                && next.leading() != last.leading()
            {
                return Ok(Some(next.leading()));
            }
        }
    }

    /// Entries below `from` have moved on: answers with the pages that are not needed any more.
    pub fn move_on(&mut self, from: u64) -> Vec<Page> {
        self.from = from;
        let passed = self.firsts.partition_point(|first| *first < from).saturating_sub(1);
        self.firsts.drain(..passed);
        self.groups.drain(..passed).flat_map(|group| group.pages().collect::<Vec<_>>()).collect()
    }
}
