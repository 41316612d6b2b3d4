//! Opens the table in its directory and brings it up to date with the log; makes it anew where it is of no use, and
//! says what the log has lost since.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::Entry;
use super::guard::Guard;
use super::mark::{Change, Mark};
use super::replay::{Replayed, Stopped, replay};
use super::table::Table;
use super::tree::Damaged;
use crate::messages::Error;
use crate::store::log::{Log, Tail};
use crate::store::{Note, Notes};

/// Where the index is, and what it is made from.
pub struct Place {
    pub dir: PathBuf,
    pub cache: u64,
    pub log: Arc<Log>,
    pub notes: Notes,
}

/// An index that is open.
pub struct Opened {
    pub table: Table,
    /// How many messages there are, with those that the table was spared.
    pub messages: u64,
    /// What the table was spared.
    pub left: Vec<Entry>,
    /// How the log ends.
    pub tail: Tail,
}

impl Place {
    /// The table, brought up to date with the log but for a little.
    pub fn open(&self) -> Result<Opened, Error> {
        let table = match self.open_table() {
            Ok(table) => table,
            Err(why) if why.is_full => return Err(Error::Full(self.dir.clone())),
            Err(why) => return self.rebuild(&why, None),
        };
        let (guard, flushed) = (Guard::new(&self.dir), table.mark());
        if !self.log.covers(flushed.point).map_err(unreadable)? {
            if guard.sealed().is_none_or(|sealed| sealed.point < flushed.point) {
                // A kill may have come between the flush and its seal.
                guard.after_flush(&flushed);
            }
            table.abandon();
            return self.rebuild(&Damaged::new("it knows more than the log"), None);
        }
        let there = self.log.numbers();
        let is_whole = guard.known().is_none() && flushed.live.keys().all(|number| there.contains(number));
        let may_leave = is_whole && guard.sealed().is_some();
        let replayed = replay(&table, None, may_leave, &self.log, &self.notes);
        match replayed.and_then(|replayed| Ok((self.reached(&table, &replayed)?, replayed))) {
            Ok((reached, Replayed { left, tail })) => {
                self.settle(None, &reached);
                Ok(Opened { table, messages: reached.messages, left, tail })
            }
            Err(Stopped::Table(why)) => {
                table.abandon();
                self.rebuild(&why, None)
            }
            Err(Stopped::Log(why)) => {
                table.abandon();
                Err(unreadable(why))
            }
        }
    }

    /// What is known after a replay, with what the table was spared. Says what is lost of what the seal knows.
    fn reached(&self, table: &Table, replayed: &Replayed) -> Result<Mark, Damaged> {
        let (guard, end) = (Guard::new(&self.dir), replayed.tail.point());
        let mut reached = Mark { point: end, ..table.mark() };
        match guard.sealed() {
            Some(sealed) if sealed.point == end => reached.messages = sealed.messages,
            sealed => {
                let mut change = Change::default();
                for (digest, position) in &replayed.left {
                    change.count(table.get(digest)?, *position);
                }
                change.apply(&mut reached);
                if let Some(sealed) = sealed.filter(|sealed| sealed.point > end) {
                    self.say_lost(&sealed, &reached);
                    guard.after_growth(end, reached.messages);
                }
            }
        }
        Ok(reached)
    }

    /// Compares what was known before the table was made anew, also if that was interrupted and only now is done. It is
    /// known better from who had the table than from its last flush.
    fn settle(&self, before: Option<&Mark>, reached: &Mark) {
        let guard = Guard::new(&self.dir);
        if let Some(known) = before.cloned().or_else(|| guard.known()) {
            self.compare(&known, reached);
            guard.settle();
        }
    }

    /// Says what the log no longer has of what was known to stand there.
    fn compare(&self, known: &Mark, reached: &Mark) {
        if known.point == reached.point && known.messages <= reached.messages {
            // Segments that are gone were compacted.
            return;
        }
        self.say_lost(known, reached);
        let there = self.log.numbers();
        for number in known.live.keys().filter(|number| !there.contains(number)) {
            (self.notes)(Note::Said(format!("{number:08}.log is missing in the log, and what stood there with it")));
        }
    }

    /// Says how many messages there are less.
    fn say_lost(&self, known: &Mark, reached: &Mark) {
        let lost = known.messages.saturating_sub(reached.messages);
        if reached.point < known.point && lost > 0 {
            (self.notes)(Note::Said(format!("{lost} messages that were stored are gone from the log")));
        }
    }

    /// Says what is lost with segments that are gone. A removal in one of them has nothing left to remove.
    pub fn look_for_segments(&self, table: &Table) -> Result<(), Error> {
        let (there, mark) = (self.log.numbers(), table.mark());
        let gone: Vec<_> = mark.live.keys().copied().filter(|number| !there.contains(number)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let failed = |why: Damaged| Error::io(format!("cannot read {}", self.dir.display()), io::Error::other(why));
        let entries = table.entries_in(&gone).map_err(failed)?;
        let removals = entries.iter().filter(|(_, position)| !position.is_message());
        let removals: Vec<_> = removals.map(|(digest, _)| (*digest, None)).collect();
        table.insert(&removals, mark.point).map_err(failed)?;
        let lost = entries.len() - removals.len();
        if lost == 0 {
            table.forget_segments(&gone);
        } else {
            let names: Vec<_> = gone.iter().map(|number| format!("{number:08}.log")).collect();
            let names = names.join(", ");
            (self.notes)(Note::Said(format!("{names} is missing in the log, and {lost} messages with it")));
        }
        Ok(())
    }

    /// Opens the table, on a full disk with what was put by for that.
    fn open_table(&self) -> Result<Table, Damaged> {
        match Table::open(&self.dir, self.cache) {
            Err(why) if why.is_full && Guard::new(&self.dir).spend_reserve() => Table::open(&self.dir, self.cache),
            opened => opened,
        }
    }

    /// Makes the table anew from the log, as far as it was `before` or all of it, with the old one moved aside.
    pub fn rebuild(&self, why: &Damaged, before: Option<&Mark>) -> Result<Opened, Error> {
        let until = before.map(|mark| mark.point);
        (self.notes)(Note::Said(format!("the index is made anew from the log: {why}")));
        let failed = |error| Error::io(format!("cannot make {} anew", self.dir.display()), error);
        let aside = self.dir.with_extension("damaged");
        remove_dir(&aside).map_err(failed)?;
        match std::fs::rename(&self.dir, &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        Guard::new(&self.dir).reset();
        let made = self.open_table().map_err(Stopped::Table);
        let made = made.and_then(|table| match replay(&table, until, false, &self.log, &self.notes) {
            Ok(replayed) => Ok((replayed, table)),
            Err(stopped) => {
                table.abandon();
                Err(stopped)
            }
        });
        match made {
            Ok((Replayed { left, tail }, table)) => {
                remove_dir(&aside).map_err(failed)?;
                let mark = table.mark();
                self.settle(before, &mark);
                Ok(Opened { table, messages: mark.messages, left, tail })
            }
            Err(Stopped::Table(why)) if why.is_full => Err(Error::Full(self.dir.clone())),
            Err(Stopped::Table(why)) => Err(failed(io::Error::other(why))),
            Err(Stopped::Log(why)) => Err(unreadable(why)),
        }
    }
}

fn unreadable(why: io::Error) -> Error {
    Error::io("cannot read the log", why)
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
