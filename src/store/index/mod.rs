//! The index finds a digest in the log. It is expendable: short, damaged or gone, it is made anew from the log,
//! and nobody who asks it notices more than a pause.

mod block;
mod catalog;
mod filter;
mod guard;
mod mark;
mod merged;
mod overlay;
mod pages;
mod panics;
mod place;
mod replay;
mod run;
mod table;
mod tree;
mod value;

use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use block::{Entry, Standing};
use guard::Guard;
pub use mark::Mark;
use overlay::{Overlay, Work};
use place::{Opened, Place};
use table::Table;
use tree::Damaged;

use super::log::{Log, Point, Position, Tail};
use crate::digest::Digest;
use crate::messages::{Error, Page};
use crate::store::{Note, Notes};

/// After this long without a commit the table is flushed.
const IDLE: Duration = Duration::from_secs(2);
/// So many messages, in so many bytes of the log, are left for the next process to replay: that is cheaper than a flush.
const FEW: usize = 256;
const FEW_BYTES: u64 = 1 << 18;

/// Where each digest's message stands in the log.
pub struct Index {
    place: Place,
    overlay: Overlay,
    table: RwLock<Arc<Table>>,
    /// How many there are with those in the overlay.
    messages: Mutex<u64>,
    /// How far the log goes that the table should have, and has not since it could not be made anew.
    missed: Mutex<Option<Point>>,
}

impl Index {
    /// Opens the index in `dir` and brings it up to date with the log; answers with how the log ends, too.
    pub fn open(dir: &Path, cache: u64, log: Arc<Log>, notes: Notes) -> Result<(Self, Tail), Error> {
        let place = Place { dir: dir.to_owned(), cache, log, notes };
        let Opened { table, messages, left, tail } = place.open()?;
        place.look_for_segments(&table)?;
        let overlay = Overlay::default();
        if !left.is_empty() {
            overlay.add(left.into_iter(), tail.point());
        }
        let (table, messages) = (RwLock::new(Arc::new(table)), Mutex::new(messages));
        Ok((Self { place, overlay, table, messages, missed: Mutex::default() }, tail))
    }

    /// Where a message stands.
    pub fn get(&self, digest: &Digest) -> Result<Option<Position>, Error> {
        Ok(self.find(digest)?.filter(Position::is_message))
    }

    /// Where messages stand. In their order they are found sooner than one by one.
    pub fn get_all(&self, digests: &[Digest]) -> Result<Vec<Option<Position>>, Error> {
        let mut found = self.overlay.get_all(digests);
        let mut wanted: Vec<_> = (0..digests.len()).filter(|at| found[*at].is_none()).collect();
        wanted.sort_unstable_by_key(|at| digests[*at]);
        let sorted: Vec<_> = wanted.iter().map(|at| digests[*at]).collect();
        for (at, standing) in wanted.into_iter().zip(self.with_table(|table| table.get_all(&sorted))?) {
            found[at] = Some(standing);
        }
        Ok(found.into_iter().map(|standing| standing.flatten().filter(Position::is_message)).collect())
    }

    /// Where a digest's last record stands, be it a message or a removal.
    pub fn find(&self, digest: &Digest) -> Result<Option<Position>, Error> {
        match self.overlay.get(digest) {
            Some(position) => Ok(position),
            None => self.with_table(|table| table.get(digest)),
        }
    }

    /// The same, if it was committed lately; for the thread that commits.
    pub fn find_recent(&self, digest: &Digest) -> Option<Standing> {
        self.overlay.get(digest)
    }

    /// Makes committed records findable, or takes digests out; the log now ends at `end`, with so many messages more.
    pub fn add(&self, entries: impl Iterator<Item = Entry>, end: Point, more: i64) {
        let mut messages = self.messages.lock().expect(UNBROKEN);
        *messages = messages.saturating_add_signed(more);
        drop(messages);
        self.overlay.add(entries, end);
    }

    /// A page of what is stored.
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
        self.with_table(|table| table.range(from, last, page.limit))
    }

    /// What there is in all.
    pub fn totals(&self) -> Mark {
        self.overlay.settle();
        self.counted()
    }

    /// The same without what was committed lately.
    pub fn counted(&self) -> Mark {
        self.table().mark()
    }

    /// Sees to it that after a crash, nothing of a segment is needed to bring the index up to date. Nothing must be
    /// appended to it any more.
    pub fn leave(&self, segment: u32) -> Result<(), Error> {
        if self.table().flushed().point.segment > segment {
            return Ok(());
        }
        let reached = self.totals().point;
        let flushed = self.with_table(|table| table.flush().map(|()| table.flushed()))?;
        match flushed.point >= reached {
            true => Ok(()),
            false => Err(Error::Full(self.place.dir.clone())),
        }
    }

    /// Makes the index anew from the log.
    pub fn renew(&self) -> Result<(), Error> {
        self.overlay.settle();
        self.rebuild(&self.table(), &Damaged::new("it does not fit it")).map(drop)
    }

    /// The bytes that the index has on disk.
    pub fn disk(&self) -> io::Result<u64> {
        disk(&self.place.dir)
    }

    /// Moves what is committed into the table, until [`Index::close`]; for a thread of its own.
    pub fn run(&self) {
        loop {
            match self.overlay.take(IDLE) {
                Work::Insert(entries, end) => {
                    let mut sorted: Vec<_> = entries.iter().map(|(digest, position)| (*digest, *position)).collect();
                    sorted.sort_unstable_by_key(|(digest, _)| *digest);
                    self.insert(&sorted, end);
                    self.overlay.done();
                    // Who closes does not wait for what can be done later.
                    if !self.overlay.is_closed() {
                        self.write(Table::tend);
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

    /// Whether the table, as it was flushed, will do for the next process.
    fn can_leave(&self) -> bool {
        let (table, end) = (self.table(), self.place.log.end());
        let Point { segment, offset } = table.flushed().point;
        table.is_flushed()
            && self.overlay.is_little()
            && self.missed().is_none()
            && end.segment == segment
            && end.offset - offset <= FEW_BYTES
            && Guard::new(&self.place.dir).after_growth(end, *self.messages.lock().expect(UNBROKEN))
    }

    /// Inserts entries; a table that fails is made anew, however long that takes.
    fn insert(&self, entries: &[Entry], end: Point) {
        if let Err(error) = self.with_table(|table| table.insert(entries, end)) {
            // The overlay's entries are in the log: who makes the table anew finds them there.
            *self.missed() = Some(end);
            (self.place.notes)(Note::Said(format!("the index cannot be kept: {error}")));
        }
    }

    /// Makes the table durable, if there is room for that.
    fn flush(&self) {
        self.write(Table::flush);
    }

    /// Has the table written. One that cannot be is made anew; and if that fails, who asks next is told.
    fn write(&self, write: impl Fn(&Table) -> Result<(), Damaged>) {
        let _ = self.with_table(write);
    }

    /// Asks the table; one that is damaged is made anew first.
    fn with_table<T>(&self, ask: impl Fn(&Table) -> Result<T, Damaged>) -> Result<T, Error> {
        let mut failures = 0;
        while failures < 2 {
            let table = self.table();
            match ask(&table) {
                Ok(answer) => return Ok(answer),
                Err(why) => failures += usize::from(self.rebuild(&table, &why)?),
            }
        }
        Err(Error::Unusable(format!("the index in {} fails again and again", self.place.dir.display())))
    }

    /// Makes the table anew, unless another has done so; says which.
    fn rebuild(&self, damaged: &Arc<Table>, why: &Damaged) -> Result<bool, Error> {
        let mut table = self.table.write().expect(UNBROKEN);
        if !Arc::ptr_eq(&table, damaged) {
            return Ok(false);
        }
        let mut before = damaged.retire();
        before.point = before.point.max(self.missed().unwrap_or(Point::START));
        let made = self.place.rebuild(why, Some(&before))?;
        *table = Arc::new(made.table);
        let mut messages = self.messages.lock().expect(UNBROKEN);
        *messages = (made.messages + *messages).saturating_sub(before.messages);
        Ok(true)
    }

    fn missed(&self) -> MutexGuard<'_, Option<Point>> {
        self.missed.lock().expect(UNBROKEN)
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().expect(UNBROKEN).clone()
    }
}

impl Drop for Index {
    /// sled flushes when it is dropped, and does not come back from a disk that fails: so it is left alone if the last
    /// flush did not happen.
    fn drop(&mut self) {
        let table = self.table();
        if !table.is_flushed() {
            table.abandon();
        }
    }
}

/// The bytes on disk of all files below `dir`; those that go meanwhile are none.
fn disk(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        sum += match entry.metadata() {
            Ok(data) if data.is_dir() => disk(&entry.path())?,
            Ok(data) => data.blocks() * 512,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(sum)
}

const UNBROKEN: &str = "nobody panics while holding this";

#[cfg(test)]
mod tests;
