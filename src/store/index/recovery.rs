//! Opens the index and brings it up to date with the log. Rebuilds an index that cannot be used, and reports messages
//! that the log has lost since the last checkpoint.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::IndexEntry;
use super::error::IndexError;
use super::lsm::LsmTree;
use super::replay::{ReplayError, ReplayOutcome, replay};
use super::sled_guard::SledGuard;
use super::totals::{Totals, TotalsDelta};
use crate::message_store::Error;
use crate::store::log::{Log, LogEnd};
use crate::store::{EventSink, StoreEvent};

/// Everything that opening or rebuilding the index needs.
pub struct IndexOpener {
    pub dir: PathBuf,
    /// Size of the block cache in bytes.
    pub cache: u64,
    pub log: Arc<Log>,
    pub events: EventSink,
}

/// An index that is up to date with the log.
pub struct RecoveredIndex {
    pub lsm: LsmTree,
    /// Number of messages, including the deferred entries.
    pub message_count: u64,
    /// Entries that were read from the log and not inserted into the tree.
    pub deferred: Vec<IndexEntry>,
    pub log_end: LogEnd,
}

impl IndexOpener {
    /// Opens the index and replays the log. An index that cannot be used is rebuilt.
    pub fn open(&self) -> Result<RecoveredIndex, Error> {
        let lsm = match self.open_lsm() {
            Ok(lsm) => lsm,
            Err(IndexError::DiskFull) => return Err(Error::NoSpace(self.dir.clone())),
            Err(error) => return self.rebuild(&error, None),
        };
        let (guard, flushed) = (SledGuard::new(&self.dir), lsm.totals());
        if !self.log.contains(flushed.position).map_err(log_read_error)? {
            if guard.checkpoint().is_none_or(|checkpoint| checkpoint.position < flushed.position) {
                // The process may have been killed between the flush and the checkpoint.
                guard.after_flush(&flushed);
            }
            lsm.leak();
            return self.rebuild(&IndexError::corrupt("the index is ahead of the log"), None);
        }
        let segments = self.log.segment_ids();
        let is_complete =
            guard.previous_checkpoint().is_none() && flushed.live_bytes.keys().all(|number| segments.contains(number));
        let allow_defer = is_complete && guard.checkpoint().is_some();
        let outcome = replay(&lsm, None, allow_defer, &self.log, &self.events);
        match outcome.and_then(|outcome| Ok((self.totals_after_replay(&lsm, &outcome)?, outcome))) {
            Ok((totals, ReplayOutcome { deferred, log_end })) => {
                self.report_losses(None, &totals);
                Ok(RecoveredIndex { lsm, message_count: totals.messages, deferred, log_end })
            }
            Err(ReplayError::Index(error)) => {
                lsm.leak();
                self.rebuild(&error, None)
            }
            Err(ReplayError::Log(error)) => {
                lsm.leak();
                Err(log_read_error(error))
            }
        }
    }

    /// Returns the totals after a replay, including the deferred entries. Reports messages that the checkpoint counts
    /// and the log has lost.
    fn totals_after_replay(&self, lsm: &LsmTree, outcome: &ReplayOutcome) -> Result<Totals, IndexError> {
        let (guard, end) = (SledGuard::new(&self.dir), outcome.log_end.position());
        let mut totals = Totals { position: end, ..lsm.totals() };
        match guard.checkpoint() {
            Some(checkpoint) if checkpoint.position == end => totals.messages = checkpoint.messages,
            checkpoint => {
                let mut delta = TotalsDelta::default();
                for (digest, slot) in &outcome.deferred {
                    delta.replace(lsm.get(digest)?, *slot);
                }
                delta.apply(&mut totals);
                if let Some(checkpoint) = checkpoint.filter(|checkpoint| checkpoint.position > end) {
                    self.report_lost_messages(&checkpoint, &totals);
                    guard.update_checkpoint(end, totals.messages);
                }
            }
        }
        Ok(totals)
    }

    /// Reports what the log has lost since `before`, the final totals of the index that was replaced, or else since the
    /// previous checkpoint. Then discards the previous checkpoint, which outlives an interrupted rebuild until here.
    fn report_losses(&self, before: Option<&Totals>, totals: &Totals) {
        let guard = SledGuard::new(&self.dir);
        if let Some(previous) = before.cloned().or_else(|| guard.previous_checkpoint()) {
            self.compare_with_previous(&previous, totals);
            guard.discard_previous();
        }
    }

    /// Reports messages and segments that were in the log and are not any more.
    fn compare_with_previous(&self, previous: &Totals, totals: &Totals) {
        if previous.position == totals.position && previous.messages <= totals.messages {
            // No message is lost, so compaction has deleted the missing segments.
            return;
        }
        self.report_lost_messages(previous, totals);
        let segments = self.log.segment_ids();
        for number in previous.live_bytes.keys().filter(|number| !segments.contains(number)) {
            let text = format!("missing log segment: {number:08}.log; its messages are lost");
            (self.events)(StoreEvent::Message(text));
        }
    }

    /// Reports the number of lost messages if the log ends earlier than it did.
    fn report_lost_messages(&self, previous: &Totals, totals: &Totals) {
        let lost = previous.messages.saturating_sub(totals.messages);
        if totals.position < previous.position && lost > 0 {
            let text = format!("data loss: {lost} of {} stored messages missing from the log", previous.messages);
            (self.events)(StoreEvent::Message(text));
        }
    }

    /// Reports messages in segments that are missing. Drops their tombstones from the index: a tombstone in a missing
    /// segment has nothing left to remove.
    pub fn drop_missing_segments(&self, lsm: &LsmTree) -> Result<(), Error> {
        let (segments, totals) = (self.log.segment_ids(), lsm.totals());
        let missing: Vec<_> = totals.live_bytes.keys().copied().filter(|number| !segments.contains(number)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let failed =
            |error: IndexError| Error::io(format!("cannot read {}", self.dir.display()), io::Error::other(error));
        let entries = lsm.entries_in_segments(&missing).map_err(failed)?;
        let tombstones = entries.iter().filter(|(_, location)| !location.is_message());
        let tombstones: Vec<_> = tombstones.map(|(digest, _)| (*digest, None)).collect();
        lsm.insert(&tombstones, totals.position).map_err(failed)?;
        let lost = entries.len() - tombstones.len();
        if lost == 0 {
            lsm.clear_segment_totals(&missing);
        } else {
            let names: Vec<_> = missing.iter().map(|number| format!("{number:08}.log")).collect();
            let text = format!("missing log segment: {}; number of lost messages: {lost}", names.join(", "));
            (self.events)(StoreEvent::Message(text));
        }
        Ok(())
    }

    /// Opens the tree. If the disk is full, releases the reserved space and tries again.
    fn open_lsm(&self) -> Result<LsmTree, IndexError> {
        match LsmTree::open(&self.dir, self.cache) {
            Err(IndexError::DiskFull) if SledGuard::new(&self.dir).release_reserve() => {
                LsmTree::open(&self.dir, self.cache)
            }
            result => result,
        }
    }

    /// Moves the index aside and fills a new one from the log: up to the position in `before`, the final totals of
    /// the replaced index, or from the whole log without them. `cause` is reported.
    pub fn rebuild(&self, cause: &IndexError, before: Option<&Totals>) -> Result<RecoveredIndex, Error> {
        let until = before.map(|totals| totals.position);
        (self.events)(StoreEvent::Message(format!("rebuilding the index from the log: {cause}")));
        let failed = |error| Error::io(format!("cannot rebuild the index in {}", self.dir.display()), error);
        let damaged = self.dir.with_extension("damaged");
        remove_dir(&damaged).map_err(failed)?;
        match std::fs::rename(&self.dir, &damaged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        SledGuard::new(&self.dir).retire_checkpoint();
        let opened = self.open_lsm().map_err(ReplayError::Index);
        let rebuilt = opened.and_then(|lsm| match replay(&lsm, until, false, &self.log, &self.events) {
            Ok(outcome) => Ok((outcome, lsm)),
            Err(error) => {
                lsm.leak();
                Err(error)
            }
        });
        match rebuilt {
            Ok((ReplayOutcome { deferred, log_end }, lsm)) => {
                remove_dir(&damaged).map_err(failed)?;
                let totals = lsm.totals();
                self.report_losses(before, &totals);
                Ok(RecoveredIndex { lsm, message_count: totals.messages, deferred, log_end })
            }
            Err(ReplayError::Index(IndexError::DiskFull)) => Err(Error::NoSpace(self.dir.clone())),
            Err(ReplayError::Index(error)) => Err(failed(io::Error::other(error))),
            Err(ReplayError::Log(error)) => Err(log_read_error(error)),
        }
    }
}

fn log_read_error(error: io::Error) -> Error {
    Error::io("cannot read the log", error)
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
