//! Brings a tree up to date with the log, from the tree's sentinel on; says what is damaged on the way.

use std::io;

use super::tree::{Damaged, Mark, Tree};
use crate::digest::Digest;
use crate::store::log::{Found, Header, Log, Point, Position, Tail};
use crate::store::{Note, Notes};

/// Entries that are inserted at a time.
const BATCH: usize = 1 << 14;
/// A shorter replay is over before anybody looks at a progress bar, in bytes.
const SHORT: u64 = 64 << 20;

/// Why a replay ended early.
pub enum Stopped {
    /// The log cannot be read.
    Log(io::Error),
    /// The tree cannot be written.
    Tree(Damaged),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Log(error)
    }
}

impl From<Damaged> for Stopped {
    fn from(damaged: Damaged) -> Self {
        Self::Tree(damaged)
    }
}

/// Inserts what stands in the log between `mark` and `until`, or its end; answers with the mark it reached.
pub fn replay(
    tree: &Tree,
    mark: Mark,
    until: Option<Point>,
    log: &Log,
    notes: &Notes,
) -> Result<(Mark, Tail), Stopped> {
    let mut replay = Replay { tree, mark, batch: Vec::new() };
    let total = log.length_from(mark.point)?;
    let mut done = 0;
    let tail = log.replay(mark.point, |segment, found| {
        let offset = match found {
            Found::Whole(offset, _) | Found::Corrupt(offset, _) | Found::Gap(offset, _) => offset,
        };
        if until.is_some_and(|until| Point { segment, offset } >= until) {
            return Ok(());
        }
        match found {
            Found::Whole(offset, header) => {
                replay.add(segment, offset, &header)?;
                done += header.size();
            }
            Found::Corrupt(offset, header) => {
                notes(Note::Said(format!("{} is corrupt in the log (segment {segment}, offset {offset})", header.digest)));
                replay.add_if_absent(segment, offset, &header)?;
            }
            Found::Gap(offset, length) => {
                notes(Note::Said(format!(
                    "{length} bytes of the log are damaged (segment {segment}, offset {offset}); what stood there is lost"
                )));
            }
        }
        if total > SHORT && replay.batch.is_empty() {
            notes(Note::Replayed { done, total });
        }
        Ok::<_, Stopped>(())
    })?;
    replay.insert()?;
    // What was found is known from now on, and a put of what is known is acknowledged as it is.
    log.sync_from(mark.point)?;
    let end = Point { segment: tail.segment, offset: tail.end.offset };
    replay.mark.point = until.unwrap_or(end);
    if total > SHORT {
        notes(Note::Replayed { done: total, total });
    }
    Ok((replay.mark, tail))
}

struct Replay<'a> {
    tree: &'a Tree,
    mark: Mark,
    batch: Vec<(Digest, Position)>,
}

impl Replay<'_> {
    fn add(&mut self, segment: u32, offset: u64, header: &Header) -> Result<(), Damaged> {
        let position = Position { segment, offset, length: header.length, time: header.time };
        self.batch.push((header.digest, position));
        if self.batch.len() >= BATCH { self.insert() } else { Ok(()) }
    }

    /// What is corrupt must be known, so that asking for it says so; but a whole copy is better.
    fn add_if_absent(&mut self, segment: u32, offset: u64, header: &Header) -> Result<(), Damaged> {
        self.insert()?;
        if self.tree.get(&header.digest)?.is_none() {
            self.add(segment, offset, header)?;
        }
        Ok(())
    }

    fn insert(&mut self) -> Result<(), Damaged> {
        // A digest may stand in the log twice: the later record counts.
        self.batch.sort_by_key(|(digest, _)| *digest);
        let (messages, bytes) = self.tree.insert(self.batch.iter().map(|(digest, position)| (digest, position)))?;
        self.mark.messages += messages;
        self.mark.bytes += bytes;
        self.mark.newest = self.batch.iter().map(|(_, position)| position.time).fold(self.mark.newest, u32::max);
        self.batch.clear();
        Ok(())
    }
}
