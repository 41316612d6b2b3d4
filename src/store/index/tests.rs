//! The index as a whole, with what goes on in it at the same time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::store::log::{RecordKind, SegmentWriter};

/// An index over a log that is written here.
struct IndexFixture {
    dir: TempDir,
    index: Index,
    writer: SegmentWriter,
    reported: Arc<Mutex<Vec<String>>>,
}

impl IndexFixture {
    fn new() -> Self {
        let (dir, said) = (tempfile::tempdir().unwrap(), Arc::default());
        std::fs::create_dir(dir.path().join("log")).unwrap();
        let log = Arc::new(Log::open(&dir.path().join("log"), [7; 16], 1 << 12).unwrap());
        let heard: Arc<Mutex<Vec<_>>> = Arc::clone(&said);
        let notes: EventSink = Arc::new(move |note| {
            if let StoreEvent::Message(text) = note {
                heard.lock().unwrap().push(text);
            }
        });
        let (index, tail) = Index::open(&dir.path().join("index"), 1 << 20, Arc::clone(&log), notes).unwrap();
        let appender = SegmentWriter::new(log, &tail).unwrap();
        Self { dir, index, writer: appender, reported: said }
    }

    /// Appends a message.
    fn append_message(appender: &mut SegmentWriter, message: &[u8]) -> (IndexEntry, LogPosition) {
        let digest = Digest::compute(message);
        ((digest, Some(appender.append_one(RecordKind::Message, digest, message))), appender.end())
    }

    /// Appends a removal.
    fn append_tombstone(appender: &mut SegmentWriter, digest: Digest) -> (IndexEntry, LogPosition) {
        ((digest, Some(appender.append_one(RecordKind::Tombstone, digest, &[]))), appender.end())
    }

    /// What was said but for the reason that `rebuild` gives.
    fn reported_messages(&self) -> Vec<String> {
        let said = self.reported.lock().unwrap();
        said.iter().filter(|text| !text.ends_with("it does not fit it")).cloned().collect()
    }
}

/// One thread puts messages, while others make the index anew, flush and measure it.
#[test]
fn rebuilding_during_puts_keeps_every_message_and_leaks_no_files() {
    const MESSAGES: u32 = 3000;
    let mut scene = IndexFixture::new();
    let (index, log, appender) = (&scene.index, &scene.index.opener.log, &mut scene.writer);
    let (is_over, failed) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let again_and_again = |act: fn(&Index) -> Result<(), String>| {
        while !is_over.load(Ordering::Relaxed) {
            failed.lock().unwrap().extend(act(index).err());
        }
    };
    thread::scope(|scope| {
        let filled = scope.spawn(|| index.run());
        scope.spawn(|| again_and_again(|index| index.rebuild().map_err(|error| error.to_string())));
        scope.spawn(|| again_and_again(|index| index.disk_usage().map(drop).map_err(|error| error.to_string())));
        let flushed = scope.spawn(|| {
            again_and_again(|index| {
                index.flush();
                Ok(())
            });
        });
        for number in 0..MESSAGES {
            let (entry, end) = IndexFixture::append_message(appender, &number.to_le_bytes());
            index.add([entry].into_iter(), end, 1);
            log.set_durable_end(end);
        }
        is_over.store(true, Ordering::Relaxed);
        flushed.join().unwrap();
        index.write_buffer.wait_drained();
        index.close();
        filled.join().unwrap();
    });
    assert_eq!(failed.into_inner().unwrap(), Vec::<String>::new());
    assert!((0..MESSAGES).all(|number| index.get(&Digest::compute(&number.to_le_bytes())).unwrap().is_some()));
    assert_eq!(index.cached_totals().messages, u64::from(MESSAGES));
    assert_eq!(*index.message_count.lock().unwrap(), u64::from(MESSAGES));
    assert_eq!(scene.reported_messages(), Vec::<String>::new());
    assert!(!scene.reported.lock().unwrap().is_empty(), "it was made anew");
    let IndexFixture { dir, index, .. } = scene;
    drop(index);
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let open = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let left: Vec<_> = open.filter(|path| path.starts_with(dir.path())).collect();
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("index")), "{left:?}");
}

#[test]
fn a_lookup_succeeds_however_often_the_index_is_rebuilt_concurrently() {
    let scene = IndexFixture::new();
    let asked = Mutex::new(0);
    let answer = scene.index.with_lsm(|_| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        if *asked > 5 {
            return Ok(*asked);
        }
        scene.index.rebuild().unwrap();
        Err(IndexError::retired())
    });
    assert_eq!(answer.unwrap(), 6);
    assert!(scene.index.with_lsm(|_| Err::<(), _>(IndexError::new("it fails"))).is_err());
}

#[test]
fn a_lost_segment_is_reported_missing_but_a_compacted_one_is_not() {
    let mut scene = IndexFixture::new();
    let (index, log) = (&scene.index, &scene.index.opener.log);
    // With the segment goes the removal, too, which has nothing left to remove: but the index learns that only later.
    let (removal, end) = IndexFixture::append_tombstone(&mut scene.writer, Digest::compute(b"removed"));
    index.insert(&[removal], end);
    for message in [[1; 3000], [2; 3000]] {
        let (entry, end) = IndexFixture::append_message(&mut scene.writer, &message);
        log.set_durable_end(end);
        index.insert(&[entry], end);
        index.flush();
    }
    let (moved, end) = IndexFixture::append_message(&mut scene.writer, &[1; 3000]);
    log.set_durable_end(end);
    index.insert(&[moved], end);
    log.delete_segment(1).unwrap();
    index.rebuild().unwrap();
    assert_eq!((index.cached_totals().messages, scene.reported_messages()), (2, Vec::new()));
    log.delete_segment(2).unwrap();
    index.rebuild().unwrap();
    let said = "00000002.log is missing in the log, and what stood there with it";
    assert_eq!((index.cached_totals().messages, scene.reported_messages()), (1, vec![said.to_owned()]));
}

#[test]
fn a_batch_lookup_returns_locations_in_request_order() {
    let mut scene = IndexFixture::new();
    let index = &scene.index;
    let mut asked = vec![Digest::compute(b"absent")];
    for number in 0..9_u8 {
        let (entry, end) = IndexFixture::append_message(&mut scene.writer, &[number]);
        match number % 3 {
            0 => index.add([entry].into_iter(), end, 1),
            _ => index.insert(&[entry], end),
        }
        asked.push(entry.0);
        if number == 4 {
            index.flush();
        }
    }
    let (removal, end) = IndexFixture::append_tombstone(&mut scene.writer, asked[2]);
    index.insert(&[removal], end);
    asked.push(asked[1]);
    let one_by_one: Vec<_> = asked.iter().map(|digest| index.get(digest).unwrap()).collect();
    assert_eq!(one_by_one.iter().filter(|found| found.is_none()).count(), 2);
    assert_eq!(index.get_all(&asked).unwrap(), one_by_one);
}

#[test]
fn entries_added_while_a_rebuild_fails_are_found_after_it_succeeds() {
    let mut scene = IndexFixture::new();
    let (index, log) = (&scene.index, &scene.index.opener.log);
    let in_the_way = scene.dir.path().join("index.damaged");
    std::fs::write(&in_the_way, "no directory").unwrap();
    assert!(index.rebuild().is_err());
    let ((digest, position), end) = IndexFixture::append_message(&mut scene.writer, b"foo");
    log.set_durable_end(end);
    index.insert(&[(digest, position)], end);
    assert!(scene.reported_messages()[1].starts_with("the index cannot be kept"), "{:?}", scene.reported_messages());
    // To say that it is absent would be wrong.
    assert!(index.get(&digest).is_err() && index.get_all(&[digest]).is_err());
    std::fs::remove_file(&in_the_way).unwrap();
    assert_eq!(index.get(&digest).unwrap(), position);
    assert_eq!(index.cached_totals().messages, 1);
    // How many messages there are with those to come is not known well enough to be sealed.
    index.flush();
    assert!(!index.can_defer_flush());
}
