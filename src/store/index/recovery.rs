//! Opens the index and brings it up to date with the log. Rebuilds an index that cannot be used, and reports messages
//! that the log has lost since the last checkpoint.

use std::cmp::Ordering;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::IndexEntry;
use super::error::IndexError;
use super::lsm::LsmTree;
use super::replay::{FewMessages, ReplayError, ReplayOutcome, replay};
use super::sled_guard::SledGuard;
use super::totals::{Totals, TotalsDelta};
use crate::digest::Digest;
use crate::message_store::Error;
use crate::store::log::{Log, LogEnd, RecordLocation};
use crate::store::losses::Losses;
use crate::store::{EventSink, StoreEvent};

/// Everything that opening or rebuilding the index needs.
pub struct IndexOpener {
    pub dir: PathBuf,
    /// Size of the block cache in bytes.
    pub cache: u64,
    pub log: Arc<Log>,
    pub losses: Arc<Losses>,
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
        match self.open_with(|lsm| self.catch_up(lsm)) {
            Err(ReplayError::Index(error)) if !error.is_shortage() => self.rebuild(&error, None),
            result => result.map_err(|error| self.describe_replay(error)),
        }
    }

    /// Opens the tree and recovers it with `recover`, which also returns the number of messages. A tree that cannot be
    /// recovered is closed if it is sound, so that it can be opened again.
    fn open_with(
        &self,
        recover: impl FnOnce(&LsmTree) -> Result<(u64, ReplayOutcome), ReplayError>,
    ) -> Result<RecoveredIndex, ReplayError> {
        let lsm = self.open_lsm()?;
        match recover(&lsm) {
            Ok((message_count, ReplayOutcome { deferred, log_end })) => {
                Ok(RecoveredIndex { lsm, message_count, deferred, log_end })
            }
            Err(error) => {
                if !error.is_shortage() {
                    lsm.leak();
                }
                Err(error)
            }
        }
    }

    /// Replays the log into a tree that was just opened. Returns the number of messages, including the deferred entries.
    fn catch_up(&self, lsm: &LsmTree) -> Result<(u64, ReplayOutcome), ReplayError> {
        let (guard, flushed) = (SledGuard::new(&self.dir), lsm.totals());
        let checkpoint = guard.checkpoint()?;
        if !self.log.contains(flushed.position)? {
            if checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.position < flushed.position) {
                // The process may have been killed between the flush and the checkpoint.
                guard.after_flush(&flushed);
            }
            self.record_messages_after_log(lsm)?;
            return Err(IndexError::corrupt("the index is ahead of the log").into());
        }
        let segments = self.log.segment_ids();
        let is_complete =
            guard.previous_checkpoint()?.is_none() && flushed.live_bytes.keys().all(|number| segments.contains(number));
        let few = if is_complete && checkpoint.is_some() { FewMessages::Defer } else { FewMessages::Insert };
        let outcome = replay(lsm, None, few, &self.log, &self.events)?;
        // A flush during the replay may have overwritten the checkpoint.
        let totals = totals_after_replay(lsm, &outcome, checkpoint.as_ref())?;
        self.report_checkpoint_losses(checkpoint.as_ref(), &totals)?;
        self.report_losses(None, &totals, lsm)?;
        Ok((totals.messages, outcome))
    }

    /// Records and reports messages that the checkpoint counts and the log has lost. Then updates the checkpoint.
    fn report_checkpoint_losses(&self, checkpoint: Option<&Totals>, totals: &Totals) -> Result<(), ReplayError> {
        if let Some(checkpoint) = checkpoint.filter(|checkpoint| checkpoint.position > totals.position) {
            self.losses.settle(checkpoint.messages.saturating_sub(totals.messages), |_| false)?;
            self.report_lost_messages(checkpoint, totals);
            SledGuard::new(&self.dir).update_checkpoint(totals.position, totals.messages);
        }
        Ok(())
    }

    /// Records the digests of messages that the index has and that are after the end of the log. The index is replaced
    /// by one that does not have them.
    fn record_messages_after_log(&self, lsm: &LsmTree) -> Result<(), ReplayError> {
        let segments = self.log.segment_ids();
        let newest = segments.last().copied();
        let affected = lsm.totals().live_bytes.into_keys();
        let affected: Vec<_> =
            affected.filter(|number| Some(*number) == newest || !segments.contains(number)).collect();
        let newest_len = newest.map_or(Ok(None), |number| self.log.segment_len(number))?;
        let entries = lsm.entries_in_segments(&affected)?;
        let is_lost = |location: &RecordLocation| {
            location.is_message() && (Some(location.segment) != newest || Some(location.end().offset) > newest_len)
        };
        let lost = entries.into_iter().filter(|(_, location)| is_lost(location));
        Ok(self.losses.record_digests(lost.map(|(digest, location)| (digest, location.segment)))?)
    }

    /// Records and reports what the log has lost since `before`, the final totals of the replaced index, or else since
    /// the previous checkpoint. Then deletes the previous checkpoint, which is kept until here even if a rebuild is
    /// interrupted.
    fn report_losses(&self, before: Option<&Totals>, totals: &Totals, lsm: &LsmTree) -> Result<(), ReplayError> {
        let guard = SledGuard::new(&self.dir);
        let previous = match before {
            Some(before) => Some(before.clone()),
            None => guard.previous_checkpoint()?,
        };
        if let Some(previous) = previous {
            let known = self.losses.counted_in(|segment| previous.live_bytes.contains_key(&segment));
            let is_stored = |digest: &Digest| matches!(lsm.get(digest), Ok(Some(location)) if location.is_message());
            let missing = self.missing_messages(&previous, totals);
            self.losses.settle(missing.saturating_sub(known), is_stored)?;
            self.compare_with_previous(&previous, totals);
            guard.discard_previous();
        }
        Ok(())
    }

    /// Returns the number of messages that were in the log and are not any more.
    fn missing_messages(&self, previous: &Totals, totals: &Totals) -> u64 {
        let segments = self.log.segment_ids();
        let is_segment_missing = previous.live_bytes.keys().any(|number| !segments.contains(number));
        match totals.position.cmp(&previous.position) {
            Ordering::Less => previous.messages.saturating_sub(totals.messages),
            Ordering::Equal if is_segment_missing => previous.messages.saturating_sub(totals.messages),
            // Removals since the previous checkpoint are not losses, so the numbers cannot be compared.
            Ordering::Equal | Ordering::Greater => 0,
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
            self.report_loss(format!("missing log segment: {number:08}.log; its messages are lost"));
        }
    }

    /// Reports the number of lost messages if the log ends earlier than it did.
    fn report_lost_messages(&self, previous: &Totals, totals: &Totals) {
        let lost = previous.messages.saturating_sub(totals.messages);
        if totals.position < previous.position && lost > 0 {
            let stored = previous.messages;
            self.report_loss(format!("data loss: {lost} of {stored} stored messages missing from the log"));
        }
    }

    fn report_loss(&self, text: String) {
        self.losses.mark_reported();
        (self.events)(StoreEvent::Warning(text));
    }

    /// Reports messages in segments that are missing. Drops their tombstones from the index: a tombstone in a missing
    /// segment has nothing left to remove.
    pub fn drop_missing_segments(&self, lsm: &LsmTree) -> Result<(), Error> {
        let (segments, totals) = (self.log.segment_ids(), lsm.totals());
        let missing: Vec<_> = totals.live_bytes.keys().copied().filter(|number| !segments.contains(number)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let failed = |error| self.describe(error);
        let entries = lsm.entries_in_segments(&missing).map_err(failed)?;
        let tombstones = entries.iter().filter(|(_, location)| !location.is_message());
        let tombstones: Vec<_> = tombstones.map(|(digest, _)| (*digest, None)).collect();
        lsm.insert(&tombstones, totals.position).map_err(failed)?;
        let lost = entries.len() - tombstones.len();
        if lost == 0 {
            lsm.clear_segment_totals(&missing);
        } else {
            let names: Vec<_> = missing.iter().map(|number| format!("{number:08}.log")).collect();
            let messages = entries.iter().filter(|(_, location)| location.is_message());
            self.losses.record_digests(messages.map(|(digest, location)| (*digest, location.segment)))?;
            self.report_loss(format!("missing log segment: {}; number of lost messages: {lost}", names.join(", ")));
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

    /// Opens the index again after a shortage, when the last tree has been closed. `before` are the final totals of
    /// that tree.
    pub fn reopen(&self, before: &Totals) -> Result<RecoveredIndex, Error> {
        match self.open_with(|lsm| self.refill(lsm, Some(before))) {
            Err(ReplayError::Index(error)) if !error.is_shortage() => self.rebuild(&error, Some(before)),
            result => result.map_err(|error| self.describe_replay(error)),
        }
    }

    /// Moves the index aside and fills a new one from the log: up to the position in `before`, the final totals of
    /// the replaced index, or from the whole log without them. `cause` is reported.
    pub fn rebuild(&self, cause: &IndexError, before: Option<&Totals>) -> Result<RecoveredIndex, Error> {
        (self.events)(StoreEvent::Message(format!("rebuilding the index from the log: {cause}")));
        let failed = |error| Error::io(format!("cannot rebuild the index in {}", self.dir.display()), error);
        let damaged = self.dir.with_extension("damaged");
        remove_dir(&damaged).map_err(failed)?;
        match std::fs::rename(&self.dir, &damaged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let retired = SledGuard::new(&self.dir).retire_checkpoint().map_err(ReplayError::Index);
        let rebuilt = retired.and_then(|()| self.open_with(|lsm| self.refill(lsm, before)));
        let rebuilt = rebuilt.map_err(|error| self.describe_replay(error))?;
        remove_dir(&damaged).map_err(failed)?;
        Ok(rebuilt)
    }

    /// Replays the log up to the position in `before`, or all of it. Returns the number of messages.
    fn refill(&self, lsm: &LsmTree, before: Option<&Totals>) -> Result<(u64, ReplayOutcome), ReplayError> {
        let until = before.map(|totals| totals.position);
        let outcome = replay(lsm, until, FewMessages::Insert, &self.log, &self.events)?;
        let totals = lsm.totals();
        self.report_losses(before, &totals, lsm)?;
        Ok((totals.messages, outcome))
    }

    /// Returns the error of a replay for the user.
    fn describe_replay(&self, error: ReplayError) -> Error {
        match error {
            ReplayError::Index(error) => self.describe(error),
            ReplayError::Log(error) => Error::io("cannot read the log", error),
            ReplayError::Losses(error) => error,
        }
    }

    /// Returns the error for the user.
    pub fn describe(&self, error: IndexError) -> Error {
        let cause = match error {
            IndexError::DiskFull => return Error::NoSpace(self.dir.clone()),
            IndexError::Exhausted(errno) => errno.into(),
            error => io::Error::other(error),
        };
        Error::io(format!("cannot use the index in {}", self.dir.display()), cause)
    }
}

/// Returns the totals after a replay, including the deferred entries.
fn totals_after_replay(
    lsm: &LsmTree,
    outcome: &ReplayOutcome,
    checkpoint: Option<&Totals>,
) -> Result<Totals, IndexError> {
    let end = outcome.log_end.position();
    let mut totals = Totals { position: end, ..lsm.totals() };
    match checkpoint {
        Some(checkpoint) if checkpoint.position == end => totals.messages = checkpoint.messages,
        _ => {
            let mut delta = TotalsDelta::default();
            for (digest, slot) in &outcome.deferred {
                delta.replace(lsm.get(digest)?, *slot);
            }
            delta.apply(&mut totals);
        }
    }
    Ok(totals)
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
