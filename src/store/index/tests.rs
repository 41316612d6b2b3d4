//! Tests of the whole index, with concurrent operations.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::store::log::{RecordTag, SegmentWriter};

/// An index over a log to which the test appends records.
struct IndexFixture {
    dir: TempDir,
    index: Index,
    writer: SegmentWriter,
    reported: Arc<Mutex<Vec<String>>>,
}

impl IndexFixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("log")).unwrap();
        let log = Arc::new(Log::open(&dir.path().join("log"), [7; 16], 1 << 12).unwrap());
        let reported: Arc<Mutex<Vec<_>>> = Arc::default();
        let sink = Arc::clone(&reported);
        let events: EventSink = Arc::new(move |event| {
            if let StoreEvent::Message(text) | StoreEvent::Warning(text) = event {
                sink.lock().push(text);
            }
        });
        let losses = Arc::new(Losses::open(dir.path()).unwrap());
        let index_dir = dir.path().join("index");
        let (index, log_end) = Index::open(&index_dir, 1 << 20, Arc::clone(&log), losses, events).unwrap();
        let writer = SegmentWriter::new(log, &log_end).unwrap();
        Self { dir, index, writer, reported }
    }

    fn append_message(writer: &mut SegmentWriter, message: &[u8]) -> (IndexEntry, LogPosition) {
        let digest = Digest::compute(message);
        ((digest, Some(writer.append_one(RecordTag::Message, digest, message))), writer.end())
    }

    fn append_tombstone(writer: &mut SegmentWriter, digest: Digest) -> (IndexEntry, LogPosition) {
        ((digest, Some(writer.append_one(RecordTag::Tombstone, digest, &[]))), writer.end())
    }

    /// Returns the reported messages, except those of [`Index::rebuild`].
    fn reported_messages(&self) -> Vec<String> {
        let reported = self.reported.lock();
        reported.iter().filter(|text| !text.ends_with("the index does not match the log")).cloned().collect()
    }
}

/// One thread puts messages, while others rebuild, flush and measure the index.
#[test]
fn rebuilding_during_puts_keeps_every_message_and_leaks_no_files() {
    const MESSAGES: u32 = 3000;
    let mut fixture = IndexFixture::new();
    let (index, log, writer) = (&fixture.index, &fixture.index.opener.log, &mut fixture.writer);
    let (done, failures) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let repeat_until_done = |operation: fn(&Index) -> Result<(), String>| {
        while !done.load(Ordering::Relaxed) {
            failures.lock().extend(operation(index).err());
        }
    };
    thread::scope(|scope| {
        let index_thread = scope.spawn(|| index.run());
        scope.spawn(|| repeat_until_done(|index| index.rebuild().map_err(|error| error.to_string())));
        scope.spawn(|| repeat_until_done(|index| index.disk_usage().map(drop).map_err(|error| error.to_string())));
        let flush_thread = scope.spawn(|| {
            repeat_until_done(|index| {
                index.flush();
                Ok(())
            });
        });
        for number in 0..MESSAGES {
            let (entry, end) = IndexFixture::append_message(writer, &number.to_le_bytes());
            index.add([entry].into_iter(), end, 1);
            log.set_durable_end(end);
        }
        done.store(true, Ordering::Relaxed);
        flush_thread.join().unwrap();
        index.write_buffer.wait_drained();
        index.close();
        index_thread.join().unwrap();
    });
    assert_eq!(failures.into_inner(), Vec::<String>::new());
    assert!((0..MESSAGES).all(|number| index.get(&Digest::compute(&number.to_le_bytes())).unwrap().is_some()));
    assert_eq!(index.cached_totals().messages, u64::from(MESSAGES));
    assert_eq!(*index.message_count.lock(), u64::from(MESSAGES));
    assert_eq!(fixture.reported_messages(), Vec::<String>::new());
    assert!(!fixture.reported.lock().is_empty(), "the index was never rebuilt");
    let IndexFixture { dir, index, .. } = fixture;
    drop(index);
    let open_files = std::fs::read_dir("/proc/self/fd").unwrap();
    let open_files = open_files.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let leaked: Vec<_> = open_files.filter(|path| path.starts_with(dir.path())).collect();
    assert!(!leaked.iter().any(|path| path.to_string_lossy().contains("index")), "{leaked:?}");
}

/// Two threads insert records of a few digests, while others look the digests up and let the write buffer be drained
/// and the tree be flushed. The model is the last acknowledged location of each digest.
#[test]
fn a_lookup_during_drains_and_flushes_finds_the_acknowledged_location_or_a_later_one() {
    const DIGESTS: u64 = 100;
    const INSERTS_PER_THREAD: u64 = 2000;
    let version = |slot: Slot| slot.map_or(0, |location| u64::from(location.segment) << 40 | location.offset);
    let digest = |number: u64| Digest::compute(&number.to_le_bytes());
    let IndexFixture { dir: _dir, index, writer, .. } = IndexFixture::new();
    let acknowledged: Vec<_> = (0..DIGESTS).map(|_| AtomicU64::new(0)).collect();
    let (writer, inserters, stored) = (Mutex::new(writer), AtomicU64::new(2), Mutex::new(BTreeSet::new()));
    let insert = |seed: u64| {
        let mut random = seed;
        for _ in 0..INSERTS_PER_THREAD {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (random >> 33) % DIGESTS;
            let mut writer = writer.lock();
            let mut stored = stored.lock();
            let is_removal = random >> 62 == 0;
            let was_stored = if is_removal { stored.remove(&number) } else { !stored.insert(number) };
            let (entry, end) = match is_removal {
                true => IndexFixture::append_tombstone(&mut writer, digest(number)),
                false => IndexFixture::append_message(&mut writer, &number.to_le_bytes()),
            };
            index.opener.log.set_durable_end(end);
            let delta = i64::from(!is_removal) - i64::from(was_stored);
            index.add([entry].into_iter(), end, delta);
            acknowledged[usize::try_from(number).unwrap()].store(version(entry.1), Ordering::Release);
        }
        inserters.fetch_sub(1, Ordering::Release);
    };
    let repeat = |operation: &dyn Fn(u64)| {
        for number in (0..DIGESTS).cycle() {
            operation(number);
            if inserters.load(Ordering::Acquire) == 0 {
                return;
            }
        }
    };
    thread::scope(|scope| {
        let index_thread = scope.spawn(|| index.run());
        let inserters = [1, 2].map(|seed| scope.spawn(move || insert(seed)));
        scope.spawn(|| {
            repeat(&|number| {
                let before = acknowledged[usize::try_from(number).unwrap()].load(Ordering::Acquire);
                let found = version(index.find(&digest(number)).unwrap());
                assert!(found >= before, "{found:x} is older than {before:x}");
            });
        });
        scope.spawn(|| repeat(&|_| drop(index.wait_totals())));
        scope.spawn(|| repeat(&|_| index.flush()));
        for inserter in inserters {
            inserter.join().unwrap();
        }
        index.close();
        index_thread.join().unwrap();
    });
    for (number, acknowledged) in (0..).zip(acknowledged) {
        assert_eq!(version(index.find(&digest(number)).unwrap()), acknowledged.into_inner());
    }
    let stored = stored.into_inner().len() as u64;
    assert_eq!((index.cached_totals().messages, *index.message_count.lock()), (stored, stored));
}

#[test]
fn a_lookup_succeeds_however_often_the_index_is_rebuilt_concurrently() {
    let fixture = IndexFixture::new();
    let calls = Mutex::new(0);
    let result = fixture.index.with_lsm(|_| {
        let mut calls = calls.lock();
        *calls += 1;
        if *calls > 5 {
            return Ok(*calls);
        }
        fixture.index.rebuild().unwrap();
        Err(IndexError::Closed)
    });
    assert_eq!(result.unwrap(), 6);
    assert!(fixture.index.with_lsm(|_| Err::<(), _>(IndexError::corrupt("every call fails"))).is_err());
}

#[test]
fn a_lost_segment_is_reported_missing_but_a_compacted_one_is_not() {
    let mut fixture = IndexFixture::new();
    let (index, log) = (&fixture.index, &fixture.index.opener.log);
    // The first segment also has a tombstone, to which the index points until the rebuild.
    let (tombstone, end) = IndexFixture::append_tombstone(&mut fixture.writer, Digest::compute(b"removed"));
    index.insert(&[tombstone], end);
    for message in [[1; 3000], [2; 3000]] {
        let (entry, end) = IndexFixture::append_message(&mut fixture.writer, &message);
        log.set_durable_end(end);
        index.insert(&[entry], end);
        index.flush();
    }
    let (relocated, end) = IndexFixture::append_message(&mut fixture.writer, &[1; 3000]);
    log.set_durable_end(end);
    index.insert(&[relocated], end);
    log.delete_segment(1).unwrap();
    index.rebuild().unwrap();
    assert_eq!((index.cached_totals().messages, fixture.reported_messages()), (2, Vec::new()));
    log.delete_segment(2).unwrap();
    index.rebuild().unwrap();
    let expected = "missing log segment: 00000002.log; its messages are lost";
    assert_eq!((index.cached_totals().messages, fixture.reported_messages()), (1, vec![expected.to_owned()]));
}

#[test]
fn a_batch_lookup_returns_locations_in_request_order() {
    let mut fixture = IndexFixture::new();
    let index = &fixture.index;
    let mut digests = vec![Digest::compute(b"absent")];
    for number in 0..9_u8 {
        let (entry, end) = IndexFixture::append_message(&mut fixture.writer, &[number]);
        match number % 3 {
            0 => index.add([entry].into_iter(), end, 1),
            _ => index.insert(&[entry], end),
        }
        digests.push(entry.0);
        if number == 4 {
            index.flush();
        }
    }
    let (tombstone, end) = IndexFixture::append_tombstone(&mut fixture.writer, digests[2]);
    index.insert(&[tombstone], end);
    digests.push(digests[1]);
    let one_by_one: Vec<_> = digests.iter().map(|digest| index.get(digest).unwrap()).collect();
    assert_eq!(one_by_one.iter().filter(|location| location.is_none()).count(), 2);
    assert_eq!(index.get_all(&digests).unwrap(), one_by_one);
}

#[test]
fn entries_added_while_a_rebuild_fails_are_found_after_it_succeeds() {
    let mut fixture = IndexFixture::new();
    let (index, log) = (&fixture.index, &fixture.index.opener.log);
    // A file in place of a directory lets the rebuild fail.
    let obstacle = fixture.dir.path().join("index.damaged");
    std::fs::write(&obstacle, "not a directory").unwrap();
    assert!(index.rebuild().is_err());
    let ((digest, slot), end) = IndexFixture::append_message(&mut fixture.writer, b"foo");
    log.set_durable_end(end);
    index.insert(&[(digest, slot)], end);
    let reported = fixture.reported_messages();
    assert!(reported[0].starts_with("cannot update the index"), "{reported:?}");
    // The message is stored, so a lookup must fail instead of reporting it absent.
    assert!(index.get(&digest).is_err() && index.get_all(&[digest]).is_err());
    std::fs::remove_file(&obstacle).unwrap();
    assert_eq!(index.get(&digest).unwrap(), slot);
    assert_eq!(index.cached_totals().messages, 1);
    // The number of messages is too uncertain for a checkpoint without a flush.
    index.flush();
    assert!(!index.can_defer_flush());
}
