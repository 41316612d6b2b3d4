//! Compaction: the live records of a segment are appended to the log again, then the segment file is deleted. A file is
//! deleted only after the copies are durable, so an interrupted compaction can start again.
//! See docs/design.md, "Removal and compaction".

mod rewriter;

use std::io;
use std::time::Duration;

use super::shared::Shared;
use crate::message_store::Error;
use crate::store::StoreEvent;
use crate::store::index::{Index, Totals};
use crate::store::log::{Log, LogPosition, SEGMENT_HEADER_LEN};
use rewriter::{CompactionError, GapPolicy, compact};

/// Minimum number of dead bytes in a segment that is compacted, unless half the segment size is less.
const MIN_DEAD_BYTES: u64 = 1 << 20;
/// Interval of checks without a removal. Messages that are stored again leave dead copies, too.
const POLL_INTERVAL: Duration = Duration::from_secs(3600);
/// Delay before a failed compaction is retried.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// Compacts segments until [`Compactor::close`](super::compactor::Compactor::close) is called. Runs on a thread of its
/// own.
pub fn run(shared: &Shared) {
    let mut damaged = Vec::new();
    let mut failure_reported = false;
    loop {
        let pause = match compact_all(shared, &mut damaged) {
            Ok(()) => POLL_INTERVAL,
            Err(error) => {
                if !failure_reported {
                    (shared.events)(StoreEvent::Warning(format!(
                        "compaction failed: {error}; it is retried every {} s",
                        RETRY_INTERVAL.as_secs()
                    )));
                }
                failure_reported = true;
                RETRY_INTERVAL
            }
        };
        if !shared.compactor.wait_for_request(pause) {
            return;
        }
    }
}

fn compact_all(shared: &Shared, damaged: &mut Vec<u32>) -> Result<(), Error> {
    while let Some(number) = pick_segment(shared, damaged)? {
        match compact(shared, number, GapPolicy::Refuse, &|| shared.compactor.must_stop()) {
            Ok(()) => {}
            Err(CompactionError::Stopped) => return Ok(()),
            Err(CompactionError::Failed(error)) => return Err(error),
            Err(CompactionError::Damaged) => {
                damaged.push(number);
                (shared.events)(StoreEvent::Warning(format!(
                    "segment {number} was not compacted: it is damaged; run `sha-api verify --repair`"
                )));
            }
        }
    }
    Ok(())
}

/// Returns the segment to compact next.
fn pick_segment(shared: &Shared, damaged: &[u32]) -> Result<Option<u32>, Error> {
    // Without a removal there is rarely a segment to compact, and the index need not drain its write buffer for that.
    if !shared.compactor.had_removal() && most_garbage(shared, damaged, Index::cached_totals)?.is_none() {
        return Ok(None);
    }
    most_garbage(shared, damaged, Index::wait_totals)
}

/// Compacts a segment regardless of its dead bytes, and copies its damaged bytes to quarantine.
pub fn evacuate(shared: &Shared, number: u32) -> Result<(), Error> {
    match compact(shared, number, GapPolicy::Quarantine, &|| false) {
        Err(CompactionError::Failed(error)) => Err(error),
        Ok(()) | Err(CompactionError::Stopped | CompactionError::Damaged) => Ok(()),
    }
}

/// Returns the totals of the index, and the number of dead bytes in the log: those that the index does not point to.
pub fn garbage(log: &Log, index: &Index) -> io::Result<(Totals, u64)> {
    let (end, totals) = (log.durable_end(), index.wait_totals());
    let garbage = log
        .segment_ids()
        .into_iter()
        .map(|number| Ok(segment_garbage(log, end, &totals, number)?.0))
        .sum::<io::Result<_>>();
    Ok((totals, garbage?))
}

/// Returns the number of dead bytes and of live bytes in a segment.
///
/// `end` is the end of the log before `totals` were read, so that a record that was appended meanwhile is not dead.
fn segment_garbage(log: &Log, end: LogPosition, totals: &Totals, number: u32) -> io::Result<(u64, u64)> {
    let used = if number == end.segment { end.offset } else { log.segment_len(number)?.unwrap_or(0) };
    let live = totals.live_bytes.get(&number).copied().unwrap_or(0);
    Ok((used.saturating_sub(SEGMENT_HEADER_LEN).saturating_sub(live), live))
}

/// Returns the segment with the most dead bytes among those that are worth a compaction.
fn most_garbage(shared: &Shared, damaged: &[u32], read_totals: fn(&Index) -> Totals) -> Result<Option<u32>, Error> {
    let (end, totals) = (shared.log.durable_end(), read_totals(&shared.index));
    let min_garbage = MIN_DEAD_BYTES.min(shared.log.segment_size() / 2);
    let mut best = None;
    // A segment after the end contains a batch that is being written and is not in the index yet.
    let is_candidate = |number: &u32| *number <= end.segment && !damaged.contains(number);
    for number in shared.log.segment_ids().into_iter().filter(is_candidate) {
        let (garbage, live) =
            segment_garbage(&shared.log, end, &totals, number).map_err(|cause| shared.read_error(number, cause))?;
        if garbage >= min_garbage && garbage > live {
            best = best.max(Some((garbage, number)));
        }
    }
    Ok(best.map(|(_, number)| number))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::digest::Digest;
    use crate::store::local::compactor::Compactor;
    use crate::store::local::{CommitQueue, open_log_and_index};
    use crate::store::log::{RecordLocation, RecordTag, SegmentWriter};
    use crate::store::losses::Losses;

    fn append_to_log(writer: &mut SegmentWriter, message: &[u8]) -> (Digest, RecordLocation) {
        let digest = Digest::compute(message);
        (digest, writer.append_one(RecordTag::Message, digest, message))
    }

    #[test]
    fn compaction_skips_a_segment_with_an_unindexed_batch() {
        let dir = tempfile::tempdir().unwrap();
        let (log, index, log_end) = open_log_and_index(dir.path(), 1 << 12);
        let mut writer = SegmentWriter::new(log.clone(), &log_end).unwrap();
        let path = dir.path().to_owned();
        let unused_writer = SegmentWriter::new(log.clone(), &log_end).unwrap();
        let commit_queue = CommitQueue::new(path.clone(), log.clone(), unused_writer);
        let compactor = Compactor::default();
        let losses = Arc::new(Losses::open(&path).unwrap());
        let shared = Arc::new(Shared { path, log, index, losses, commit_queue, compactor, events: Arc::new(|_| ()) });
        let index_shared = shared.clone();
        let index_thread = std::thread::spawn(move || index_shared.index.run());
        let (digest, location) = append_to_log(&mut writer, &[1; 3000]);
        shared.index.add([(digest, Some(location))].into_iter(), writer.end(), 1);
        shared.log.set_durable_end(writer.end());
        let (digest, location) = append_to_log(&mut writer, &[2; 3000]);
        assert_eq!(location.segment, 2);

        // Segment 2 is durable but not in the index yet, so all its bytes look dead.
        assert_eq!(most_garbage(&shared, &[], Index::wait_totals).unwrap(), None);
        assert!(compact(&shared, 2, GapPolicy::Refuse, &|| false).is_ok());
        shared.index.add([(digest, Some(location))].into_iter(), writer.end(), 1);
        shared.log.set_durable_end(writer.end());
        assert_eq!(shared.fetch(&digest).unwrap().unwrap().message.unwrap(), [2; 3000]);
        shared.index.close();
        index_thread.join().unwrap();
    }
}
