//! The index finds a digest in the log. It is expendable: short, damaged or gone, it is made anew from the log,
//! and nobody who asks it notices more than a pause.

mod entry;
mod guard;
mod mark;
mod overlay;
mod panics;
mod place;
mod replay;
mod tree;

use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use guard::Guard;
pub use mark::Mark;
use overlay::{Overlay, Work};
use place::{Opened, Place};
use tree::{Damaged, Tree};

use super::log::{Log, Point, Position, Tail};
use crate::digest::Digest;
use crate::messages::{Error, Page};
use crate::store::{Note, Notes};

/// After this long without a commit the tree is flushed.
const IDLE: Duration = Duration::from_secs(2);
/// The tree is flushed once it is ahead of its sentinel by so many entries, or by half of all if that is more: a flush
/// writes nearly all leaves, since digests hit all of them, and what they leave behind is space that is of no use.
const FLUSH_AFTER: u64 = 1 << 20;
/// The same in bytes of the log.
const FLUSH_AFTER_BYTES: u64 = 1 << 30;
/// So many messages, in so many bytes of the log, are left for the next process to replay: that is cheaper than a flush.
const FEW: usize = 256;
const FEW_BYTES: u64 = 1 << 18;
/// So much room is left on the disk by a flush: sled does not survive a full one.
const SPARE: u64 = 16 << 20;

/// Where each digest's message stands in the log.
pub struct Index {
    place: Place,
    overlay: Overlay,
    tree: RwLock<Arc<Tree>>,
    state: Mutex<State>,
}

/// What the tree holds, how much of that is flushed, and how many messages there are with those in the overlay.
#[derive(Debug, Clone)]
struct State {
    mark: Mark,
    flushed: Mark,
    messages: u64,
}

impl Index {
    /// Opens the index in `dir` and brings it up to date with the log; answers with how the log ends, too.
    pub fn open(dir: &Path, cache: u64, log: Arc<Log>, notes: Notes) -> Result<(Self, Tail), Error> {
        let place = Place { dir: dir.to_owned(), cache, log, notes };
        let Opened { tree, mut state, left, tail } = place.open()?;
        place.look_for_segments(&tree, &mut state)?;
        let overlay = Overlay::default();
        if !left.is_empty() {
            overlay.add(left.into_iter(), Point { segment: tail.segment, offset: tail.end.offset });
        }
        let (tree, state) = (RwLock::new(Arc::new(tree)), Mutex::new(state));
        Ok((Self { place, overlay, tree, state }, tail))
    }

    /// Where a message stands.
    pub fn get(&self, digest: &Digest) -> Result<Option<Position>, Error> {
        Ok(self.find(digest)?.filter(Position::is_message))
    }

    /// Where a digest's last record stands, be it a message or a removal.
    pub fn find(&self, digest: &Digest) -> Result<Option<Position>, Error> {
        match self.overlay.get(digest) {
            Some(position) => Ok(position),
            None => self.with_tree(|tree| tree.get(digest)),
        }
    }

    /// The same, if it was committed lately; for the thread that commits.
    #[allow(clippy::option_option, reason = "that nothing will be there is an answer, too")]
    pub fn find_recent(&self, digest: &Digest) -> Option<Option<Position>> {
        self.overlay.get(digest)
    }

    /// Makes committed records findable, or takes digests out; the log now ends at `end`, with so many messages more.
    pub fn add(&self, entries: impl Iterator<Item = (Digest, Option<Position>)>, end: Point, more: i64) {
        let mut state = self.state();
        state.messages = state.messages.saturating_add_signed(more);
        drop(state);
        self.overlay.add(entries, end);
    }

    /// A page of what is stored. Not on a full disk while there is something to flush, which sled does at its end.
    pub fn page(&self, page: &Page) -> Result<Vec<(Digest, Position)>, Error> {
        self.overlay.settle();
        let (first, last) = page.prefix.range().into_inner();
        let from = match page.after {
            Some(after) if after >= first => Bound::Excluded(after),
            _ => Bound::Included(first),
        };
        if page.after.is_some_and(|after| after >= last) {
            return Ok(Vec::new());
        }
        self.flush();
        if self.is_behind(|mark, flushed| mark != flushed) && !self.has_room() {
            return Err(Error::Full(self.place.dir.clone()));
        }
        self.with_tree(|tree| tree.range(from, last, page.limit))
    }

    /// What there is in all.
    pub fn totals(&self) -> Mark {
        self.overlay.settle();
        self.counted()
    }

    /// The same without what was committed lately.
    pub fn counted(&self) -> Mark {
        self.state().mark.clone()
    }

    /// Sees to it that after a crash, nothing of a segment is needed to bring the index up to date. Nothing must be
    /// appended to it any more.
    pub fn leave(&self, segment: u32) -> Result<(), Error> {
        if self.state().flushed.point.segment > segment {
            return Ok(());
        }
        let reached = self.totals().point;
        self.flush();
        match self.state().flushed.point >= reached {
            true => Ok(()),
            false => Err(Error::Full(self.place.dir.clone())),
        }
    }

    /// Makes the index anew from the log.
    pub fn renew(&self) -> Result<(), Error> {
        self.overlay.settle();
        let tree = self.tree();
        tree.abandon();
        self.rebuild(&tree, &Damaged::new("it does not fit it"))
    }

    /// The bytes that the index has on disk.
    pub fn disk(&self) -> io::Result<u64> {
        disk(&self.place.dir)
    }

    /// Moves what is committed into the tree, until [`Index::close`]; for a thread of its own.
    pub fn run(&self) {
        loop {
            match self.overlay.take(IDLE) {
                Work::Insert(entries, end) => {
                    let mut sorted: Vec<_> = entries.iter().map(|(digest, position)| (*digest, *position)).collect();
                    sorted.sort_unstable_by_key(|(digest, _)| *digest);
                    self.insert(&sorted, end);
                    self.overlay.done();
                    if self.is_behind(is_far_ahead) {
                        self.flush();
                    }
                }
                Work::Idle => self.flush(),
                Work::Closed => return self.flush(),
            }
        }
    }

    /// Ends [`Index::run`] once it has moved everything, or at once if it is but little. Nothing is added any more.
    pub fn close(&self) {
        self.overlay.close(self.can_leave());
    }

    /// Whether the tree, as it was flushed, will do for the next process.
    fn can_leave(&self) -> bool {
        let State { mark, flushed, messages } = self.state().clone();
        let (end, Point { segment, offset }) = (self.place.log.end(), flushed.point);
        mark == flushed
            && self.overlay.is_little()
            && end.segment == segment
            && end.offset - offset <= FEW_BYTES
            && Guard::new(&self.place.dir).after_growth(end, messages)
    }

    /// Inserts entries; a tree that fails is made anew, however long that takes.
    fn insert(&self, entries: &[(Digest, Option<Position>)], end: Point) {
        let inserted = self.with_tree(|tree| {
            let change = tree.insert(entries)?;
            let mut state = self.state();
            change.apply(&mut state.mark);
            state.mark.point = end;
            Ok(())
        });
        if let Err(error) = inserted {
            // The overlay's entries are in the log: the next process finds them there.
            (self.place.notes)(Note::Said(format!("the index cannot be kept: {error}")));
        }
    }

    fn is_behind(&self, compare: impl Fn(&Mark, &Mark) -> bool) -> bool {
        let state = self.state();
        compare(&state.mark, &state.flushed)
    }

    /// Makes the tree durable, if it is behind and there is room for it.
    fn flush(&self) {
        let State { mark, flushed, .. } = self.state().clone();
        if mark == flushed || !self.has_room() {
            return;
        }
        if self.with_tree(|tree| tree.flush(&mark)).is_ok() {
            self.state().flushed = mark;
        }
    }

    /// Whether a flush would leave room on the disk, however much it writes.
    fn has_room(&self) -> bool {
        let room = rustix::fs::statvfs(&self.place.dir).map(|stat| stat.f_bavail * stat.f_frsize);
        room.is_ok_and(|room| room >= self.disk().unwrap_or(0) + SPARE)
    }

    /// Asks the tree; one that is damaged is made anew first.
    fn with_tree<T>(&self, ask: impl Fn(&Tree) -> Result<T, Damaged>) -> Result<T, Error> {
        for _ in 0..2 {
            let tree = self.tree();
            match ask(&tree) {
                Ok(answer) => return Ok(answer),
                Err(why) => self.rebuild(&tree, &why)?,
            }
        }
        Err(Error::Unusable(format!("the index in {} fails again and again", self.place.dir.display())))
    }

    fn rebuild(&self, damaged: &Arc<Tree>, why: &Damaged) -> Result<(), Error> {
        let mut tree = self.tree.write().expect(UNBROKEN);
        if !Arc::ptr_eq(&tree, damaged) {
            return Ok(());
        }
        let until = self.state().mark.point;
        let made = self.place.rebuild(why, Some(until))?;
        *tree = Arc::new(made.tree);
        let mut state = self.state();
        let ahead = state.messages.saturating_sub(state.mark.messages);
        *state = State { messages: made.state.messages + ahead, ..made.state };
        Ok(())
    }

    fn tree(&self) -> Arc<Tree> {
        self.tree.read().expect(UNBROKEN).clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect(UNBROKEN)
    }
}

impl Drop for Index {
    /// sled flushes when it is dropped, and does not come back from a disk that fails: so it is left with nothing to do.
    fn drop(&mut self) {
        if self.is_behind(|mark, flushed| mark != flushed) {
            self.tree().abandon();
        }
    }
}

/// Whether so much would have to be replayed that a flush is worth its price.
fn is_far_ahead(mark: &Mark, flushed: &Mark) -> bool {
    mark.messages.saturating_sub(flushed.messages) > FLUSH_AFTER.max(flushed.messages / 2)
        || mark.bytes.saturating_sub(flushed.bytes) > FLUSH_AFTER_BYTES.max(flushed.bytes / 2)
}

/// The bytes on disk of all files below `dir`.
fn disk(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let data = entry.metadata()?;
        sum += if data.is_dir() { disk(&entry.path())? } else { data.blocks() * 512 };
    }
    Ok(sum)
}

const UNBROKEN: &str = "nobody panics while holding this";
