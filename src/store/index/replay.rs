//! Brings a table up to date with the log, from its mark on; says what is damaged on the way.

use std::io;

use super::block::Entry;
use super::overlay::is_little;
use super::table::Table;
use super::tree::Damaged;
use crate::digest::Digest;
use crate::store::log::{Found, Log, Point, Position, Tail};
use crate::store::{Note, Notes};

/// Entries that are inserted at a time.
const BATCH: usize = 1 << 14;
/// A shorter replay is over before anybody looks at a progress bar, in bytes.
const SHORT: u64 = 64 << 20;

/// Why a replay ended early.
pub enum Stopped {
    /// The log cannot be read.
    Log(io::Error),
    /// The table cannot be read or written.
    Table(Damaged),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Log(error)
    }
}

impl From<Damaged> for Stopped {
    fn from(damaged: Damaged) -> Self {
        Self::Table(damaged)
    }
}

/// What a replay found.
pub struct Replayed {
    /// So little that the table was spared it; then its mark is as it was.
    pub left: Vec<Entry>,
    /// How the log ends.
    pub tail: Tail,
}

/// Inserts what stands in the log between the table's mark and `until`, or its end; unless it is little and `may_leave`
/// is set.
pub fn replay(
    table: &Table,
    until: Option<Point>,
    may_leave: bool,
    log: &Log,
    notes: &Notes,
) -> Result<Replayed, Stopped> {
    let from = table.mark().point;
    let mut replay = Replay { table, batch: Vec::new(), inserted: false };
    let total = log.length_from(from)?;
    let mut done = 0;
    let tail = log.replay(from, |segment, found| {
        let offset = match found {
            Found::Whole(_, position) | Found::Corrupt(_, position) => position.offset,
            Found::Gap(offset, _) => offset,
        };
        if until.is_some_and(|until| Point { segment, offset } >= until) {
            return Ok(());
        }
        match found {
            Found::Whole(header, position) => {
                replay.add(header.digest, position)?;
                done += position.size();
            }
            Found::Corrupt(header, position) => {
                notes(Note::Said(format!("{} is corrupt in the log (segment {segment}, offset {offset})", header.digest)));
                replay.add_if_absent(header.digest, position)?;
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
    let is_left = may_leave && !replay.inserted && is_little(replay.batch.iter().map(|(_, position)| position));
    if !is_left {
        replay.insert(until.unwrap_or(tail.point()))?;
    }
    // What was found is known from now on, and a put of what is known is acknowledged as it is.
    log.sync_from(from)?;
    if total > SHORT {
        notes(Note::Replayed { done: total, total });
    }
    Ok(Replayed { left: replay.batch, tail })
}

struct Replay<'a> {
    table: &'a Table,
    batch: Vec<Entry>,
    inserted: bool,
}

impl Replay<'_> {
    fn add(&mut self, digest: Digest, position: Position) -> Result<(), Damaged> {
        self.batch.push((digest, Some(position)));
        if self.batch.len() < BATCH {
            return Ok(());
        }
        self.insert(position.end())?;
        self.table.tend()
    }

    /// What is corrupt must be known, so that asking for it says so; but a whole copy is better.
    fn add_if_absent(&mut self, digest: Digest, position: Position) -> Result<(), Damaged> {
        self.insert(position.point())?;
        let known = self.table.get(&digest)?;
        if known.is_some_and(|known| known.is_message()) { Ok(()) } else { self.add(digest, position) }
    }

    /// Inserts what was gathered; now the table is complete up to `end`.
    fn insert(&mut self, end: Point) -> Result<(), Damaged> {
        // A digest may stand in the log twice: the later record counts.
        self.batch.sort_by_key(|(digest, _)| *digest);
        self.table.insert(&self.batch, end)?;
        self.batch.clear();
        self.inserted = true;
        Ok(())
    }
}
