//! Opens the table in its directory and brings it up to date with the log; makes it anew where it is of no use, and
//! says what the log has lost since.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::IndexEntry;
use super::lsm::LsmTree;
use super::replay::{ReplayError, ReplayOutcome, replay};
use super::sled_guard::SledGuard;
use super::sled_store::IndexError;
use super::totals::{Totals, TotalsDelta};
use crate::message_store::Error;
use crate::store::log::{Log, LogEnd};
use crate::store::{EventSink, StoreEvent};

/// Where the index is, and what it is made from.
pub struct IndexOpener {
    pub dir: PathBuf,
    pub cache: u64,
    pub log: Arc<Log>,
    pub events: EventSink,
}

/// An index that is open.
pub struct RecoveredIndex {
    pub lsm: LsmTree,
    /// How many messages there are, with those that the table was spared.
    pub message_count: u64,
    /// What the table was spared.
    pub deferred: Vec<IndexEntry>,
    /// How the log ends.
    pub log_end: LogEnd,
}

impl IndexOpener {
    /// The table, brought up to date with the log but for a little.
    pub fn open(&self) -> Result<RecoveredIndex, Error> {
        let table = match self.open_lsm() {
            Ok(table) => table,
            Err(why) if why.is_disk_full => return Err(Error::NoSpace(self.dir.clone())),
            Err(why) => return self.rebuild(&why, None),
        };
        let (guard, flushed) = (SledGuard::new(&self.dir), table.totals());
        if !self.log.contains(flushed.position).map_err(log_read_error)? {
            if guard.checkpoint().is_none_or(|sealed| sealed.position < flushed.position) {
                // A kill may have come between the flush and its seal.
                guard.after_flush(&flushed);
            }
            table.leak();
            return self.rebuild(&IndexError::new("it knows more than the log"), None);
        }
        let there = self.log.segment_ids();
        let is_whole =
            guard.previous_checkpoint().is_none() && flushed.live_bytes.keys().all(|number| there.contains(number));
        let may_leave = is_whole && guard.checkpoint().is_some();
        let replayed = replay(&table, None, may_leave, &self.log, &self.events);
        match replayed.and_then(|replayed| Ok((self.totals_after_replay(&table, &replayed)?, replayed))) {
            Ok((reached, ReplayOutcome { deferred: left, log_end: tail })) => {
                self.report_losses(None, &reached);
                Ok(RecoveredIndex { lsm: table, message_count: reached.messages, deferred: left, log_end: tail })
            }
            Err(ReplayError::Index(why)) => {
                table.leak();
                self.rebuild(&why, None)
            }
            Err(ReplayError::Log(why)) => {
                table.leak();
                Err(log_read_error(why))
            }
        }
    }

    /// What is known after a replay, with what the table was spared. Says what is lost of what the seal knows.
    fn totals_after_replay(&self, table: &LsmTree, replayed: &ReplayOutcome) -> Result<Totals, IndexError> {
        let (guard, end) = (SledGuard::new(&self.dir), replayed.log_end.position());
        let mut reached = Totals { position: end, ..table.totals() };
        match guard.checkpoint() {
            Some(sealed) if sealed.position == end => reached.messages = sealed.messages,
            sealed => {
                let mut change = TotalsDelta::default();
                for (digest, position) in &replayed.deferred {
                    change.replace(table.get(digest)?, *position);
                }
                change.apply(&mut reached);
                if let Some(sealed) = sealed.filter(|sealed| sealed.position > end) {
                    self.report_lost(&sealed, &reached);
                    guard.update_checkpoint(end, reached.messages);
                }
            }
        }
        Ok(reached)
    }

    /// Compares what was known before the table was made anew, also if that was interrupted and only now is done. It is
    /// known better from who had the table than from its last flush.
    fn report_losses(&self, before: Option<&Totals>, reached: &Totals) {
        let guard = SledGuard::new(&self.dir);
        if let Some(known) = before.cloned().or_else(|| guard.previous_checkpoint()) {
            self.compare_with_previous(&known, reached);
            guard.discard_previous();
        }
    }

    /// Says what the log no longer has of what was known to stand there.
    fn compare_with_previous(&self, known: &Totals, reached: &Totals) {
        if known.position == reached.position && known.messages <= reached.messages {
            // Segments that are gone were compacted.
            return;
        }
        self.report_lost(known, reached);
        let there = self.log.segment_ids();
        for number in known.live_bytes.keys().filter(|number| !there.contains(number)) {
            (self.events)(StoreEvent::Message(format!(
                "{number:08}.log is missing in the log, and what stood there with it"
            )));
        }
    }

    /// Says how many messages there are less.
    fn report_lost(&self, known: &Totals, reached: &Totals) {
        let lost = known.messages.saturating_sub(reached.messages);
        if reached.position < known.position && lost > 0 {
            (self.events)(StoreEvent::Message(format!("{lost} messages that were stored are gone from the log")));
        }
    }

    /// Says what is lost with segments that are gone. A removal in one of them has nothing left to remove.
    pub fn drop_missing_segments(&self, table: &LsmTree) -> Result<(), Error> {
        let (there, mark) = (self.log.segment_ids(), table.totals());
        let gone: Vec<_> = mark.live_bytes.keys().copied().filter(|number| !there.contains(number)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let failed = |why: IndexError| Error::io(format!("cannot read {}", self.dir.display()), io::Error::other(why));
        let entries = table.entries_in_segments(&gone).map_err(failed)?;
        let removals = entries.iter().filter(|(_, position)| !position.is_message());
        let removals: Vec<_> = removals.map(|(digest, _)| (*digest, None)).collect();
        table.insert(&removals, mark.position).map_err(failed)?;
        let lost = entries.len() - removals.len();
        if lost == 0 {
            table.clear_segment_totals(&gone);
        } else {
            let names: Vec<_> = gone.iter().map(|number| format!("{number:08}.log")).collect();
            let names = names.join(", ");
            (self.events)(StoreEvent::Message(format!("{names} is missing in the log, and {lost} messages with it")));
        }
        Ok(())
    }

    /// Opens the table, on a full disk with what was put by for that.
    fn open_lsm(&self) -> Result<LsmTree, IndexError> {
        match LsmTree::open(&self.dir, self.cache) {
            Err(why) if why.is_disk_full && SledGuard::new(&self.dir).release_reserve() => {
                LsmTree::open(&self.dir, self.cache)
            }
            opened => opened,
        }
    }

    /// Makes the table anew from the log, as far as it was `before` or all of it, with the old one moved aside.
    pub fn rebuild(&self, why: &IndexError, before: Option<&Totals>) -> Result<RecoveredIndex, Error> {
        let until = before.map(|mark| mark.position);
        (self.events)(StoreEvent::Message(format!("the index is made anew from the log: {why}")));
        let failed = |error| Error::io(format!("cannot make {} anew", self.dir.display()), error);
        let aside = self.dir.with_extension("damaged");
        remove_dir(&aside).map_err(failed)?;
        match std::fs::rename(&self.dir, &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        SledGuard::new(&self.dir).retire_checkpoint();
        let made = self.open_lsm().map_err(ReplayError::Index);
        let made = made.and_then(|table| match replay(&table, until, false, &self.log, &self.events) {
            Ok(replayed) => Ok((replayed, table)),
            Err(stopped) => {
                table.leak();
                Err(stopped)
            }
        });
        match made {
            Ok((ReplayOutcome { deferred: left, log_end: tail }, table)) => {
                remove_dir(&aside).map_err(failed)?;
                let mark = table.totals();
                self.report_losses(before, &mark);
                Ok(RecoveredIndex { lsm: table, message_count: mark.messages, deferred: left, log_end: tail })
            }
            Err(ReplayError::Index(why)) if why.is_disk_full => Err(Error::NoSpace(self.dir.clone())),
            Err(ReplayError::Index(why)) => Err(failed(io::Error::other(why))),
            Err(ReplayError::Log(why)) => Err(log_read_error(why)),
        }
    }
}

fn log_read_error(why: io::Error) -> Error {
    Error::io("cannot read the log", why)
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
