//! Tests of the LSM tree: it returns the last inserted slot of every digest during and after flushes, merges and reopens.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::log::RecordTag;

const MAX_DIGEST: Digest = *Prefix::ALL.range().end();

fn digest(number: u64) -> Digest {
    Digest::compute(&number.to_le_bytes())
}

#[allow(clippy::unnecessary_wraps, reason = "entries have slots")]
fn slot(number: u64, kind: RecordTag) -> Slot {
    let segment = 1 + u32::try_from(number % 3).unwrap();
    Some(RecordLocation { kind, segment, offset: 64 + number * 8, payload_len: 9, message_len: 9, time: 1 })
}

fn log_position(offset: u64) -> LogPosition {
    LogPosition { segment: 1, offset }
}

fn open(dir: &Path) -> LsmTree {
    LsmTree::open(dir, 1 << 22).unwrap()
}

/// The entries that the tree must have.
type Model = BTreeMap<Digest, Slot>;

fn insert(lsm: &LsmTree, model: &mut Model, entries: impl IntoIterator<Item = IndexEntry>, end: u64) {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_by_key(|(digest, _)| *digest);
    lsm.insert(&entries, log_position(end)).unwrap();
    model.extend(entries);
}

fn assert_matches_model(lsm: &LsmTree, model: &Model) {
    for (digest, slot) in model {
        assert_eq!(lsm.get(digest).unwrap(), *slot, "{digest}");
    }
    let digests: Vec<_> = model.keys().copied().collect();
    assert_eq!(lsm.get_all(&digests).unwrap(), model.values().copied().collect::<Vec<_>>());
    let messages: Vec<_> = model.iter().filter_map(|(digest, slot)| Some((*digest, (*slot)?))).collect();
    let messages: Vec<_> = messages.into_iter().filter(|(_, location)| location.is_message()).collect();
    assert_eq!(lsm.range(Bound::Unbounded, MAX_DIGEST, usize::MAX).unwrap(), messages);
    assert_eq!(lsm.totals().messages, messages.len() as u64);
    if let Some((middle, _)) = messages.get(messages.len() / 2) {
        let after = lsm.range(Bound::Excluded(*middle), MAX_DIGEST, 7).unwrap();
        assert_eq!(after, messages[messages.len() / 2 + 1..].iter().take(7).copied().collect::<Vec<_>>());
    }
    let records_in = |segment| {
        let all = model.iter().filter_map(|(digest, slot)| Some((*digest, (*slot)?)));
        all.filter(|(_, location)| location.segment == segment).collect::<Vec<_>>()
    };
    assert_eq!(lsm.entries_in_segments(&[2]).unwrap(), records_in(2));
    let live = |segment| records_in(segment).iter().map(|(_, location)| location.record_len()).sum::<u64>();
    let live: BTreeMap<_, _> =
        [1, 2, 3].map(|segment| (segment, live(segment))).into_iter().filter(|(_, live)| *live > 0).collect();
    assert_eq!(lsm.totals().live_bytes, live);
}

#[test]
fn the_last_value_of_a_digest_survives_flushes_merges_and_reopens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut model = Model::new();
    let mut lsm = open(&path);
    let mut next = 0;
    for (round, count) in [50_000, 40_000, 3, 900, 60_000, 1, 30_000, 2, 70_000].into_iter().enumerate() {
        let oldest = next.min(20_000);
        let new = (0..count).map(|number| (digest(next + number), slot(next + number, RecordTag::Message)));
        let relocated = (0..oldest / 9).map(|number| (digest(number * 7), slot(number + count, RecordTag::Compressed)));
        let removed = (0..oldest / 8).map(|number| (digest(number * 5), slot(number, RecordTag::Tombstone)));
        let dropped = (0..oldest / 7).map(|number| (digest(number * 3), None));
        insert(&lsm, &mut model, new.chain(relocated).chain(removed).chain(dropped), round as u64);
        next += count;
        assert_matches_model(&lsm, &model);
        lsm.flush().unwrap();
        assert!(lsm.is_flushed());
        if round % 3 == 2 {
            let totals = lsm.totals();
            drop(lsm);
            lsm = open(&path);
            assert_eq!((lsm.totals(), lsm.flushed_totals()), (totals.clone(), totals));
        }
        assert_matches_model(&lsm, &model);
    }
    assert!(lsm.state().runs.list.len() < 6, "{}", lsm.state().runs.list.len());
    assert_eq!(lsm.get(&digest(next)).unwrap(), None);
}

#[test]
fn every_merge_step_keeps_all_entries_and_a_merge_resumes_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut model = Model::new();
    let mut lsm = open(&path);
    // Each run is too large to be rewritten by the next flush.
    let numbers = |part: u64| part * 60_000..part * 60_000 + 70_000;
    for part in 0..5 {
        let entries = numbers(part).map(|number| (digest(number), slot(number + part, RecordTag::Message)));
        insert(&lsm, &mut model, entries.chain([(digest(part * 60_001), None)]), part);
        assert_eq!(lsm.state().runs.active_merge, None);
        lsm.flush().unwrap();
    }
    let mut steps = 1;
    while lsm.state().runs.active_merge.is_some() {
        assert_eq!(lsm.state().runs.list.len(), 6);
        if steps % 2 == 0 {
            drop(lsm);
            lsm = open(&path);
        }
        assert_matches_model(&lsm, &model);
        lsm.merge_step(&mut lsm.writer_state()).unwrap();
        steps += 1;
    }
    assert_matches_model(&lsm, &model);
    assert_eq!(lsm.state().runs.list.len(), 1);
    assert!(steps > 2, "{steps}");
    model.retain(|_, slot| slot.is_some());
    assert_eq!(lsm.state().runs.list[0].entry_count, model.len());
}

#[test]
fn unflushed_entries_are_absent_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::new();
    let lsm = open(&dir.path().join("index"));
    insert(&lsm, &mut model, (0..3000).map(|number| (digest(number), slot(number, RecordTag::Message))), 5);
    lsm.flush().unwrap();
    let totals = lsm.totals();
    let more = (2000..9000).map(|number| (digest(number), slot(number + 1, RecordTag::Message)));
    insert(&lsm, &mut model.clone(), more, 9);
    assert_eq!((lsm.totals().messages, lsm.flushed_totals()), (9000, totals.clone()));
    lsm.leak();
    drop(lsm);
    // sled's lock on a leaked database is held until the process ends, so a copy is opened.
    let copy = dir.path().join("copy");
    let copied = std::process::Command::new("cp").arg("-r").args([dir.path().join("index"), copy.clone()]).status();
    assert!(copied.unwrap().success());
    let lsm = open(&copy);
    assert_eq!(lsm.totals(), totals);
    assert_matches_model(&lsm, &model);
}

#[test]
fn digests_with_equal_prefixes_are_distinguished_across_blocks_and_partitions() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::new();
    let lsm = open(&dir.path().join("index"));
    let with_equal_prefix = |number: u64| {
        let mut bytes = *digest(number).as_bytes();
        bytes[..8].copy_from_slice(&[7; 8]);
        Digest::from_bytes(bytes)
    };
    for part in 0..3 {
        let numbers = part * 6000..(part + 1) * 6000;
        insert(
            &lsm,
            &mut model,
            numbers.map(|number| (with_equal_prefix(number), slot(number, RecordTag::Message))),
            part,
        );
        insert(&lsm, &mut model, [(digest(part), slot(part, RecordTag::Message))], part);
        lsm.flush().unwrap();
        assert_matches_model(&lsm, &model);
    }
    assert_eq!(lsm.get(&with_equal_prefix(18_000)).unwrap(), None);
}

#[test]
fn lookups_find_every_entry_during_concurrent_flushes() {
    let dir = tempfile::tempdir().unwrap();
    // The cache is too small for a block, so every block is read from its page.
    let lsm = LsmTree::open(&dir.path().join("index"), 1).unwrap();
    let mut model = Model::new();
    insert(&lsm, &mut model, (0..2000).map(|number| (digest(number), slot(number, RecordTag::Message))), 0);
    let (done, expected) = (AtomicBool::new(false), model.clone());
    std::thread::scope(|scope| {
        let read = || {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                number = (number + 7) % 2000;
                assert_eq!(lsm.get(&digest(number)).unwrap(), slot(number, RecordTag::Message));
            }
        };
        let read_all = || {
            let digests: Vec<_> = expected.keys().copied().collect();
            while !done.load(Ordering::Relaxed) {
                assert!(lsm.get_all(&digests).unwrap().iter().eq(expected.values()));
            }
        };
        let readers = [scope.spawn(read), scope.spawn(read_all)];
        for part in 1..40 {
            let numbers = part * 4000..(part + 1) * 4000;
            let entries = numbers.map(|number| (digest(number), slot(number, RecordTag::Message)));
            insert(&lsm, &mut model, entries, part);
            lsm.flush().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert_matches_model(&lsm, &model);
}

#[test]
fn a_lookup_whose_pages_were_replaced_retries_with_the_current_runs() {
    let dir = tempfile::tempdir().unwrap();
    let lsm = LsmTree::open(&dir.path().join("index"), 1).unwrap();
    let mut model = Model::new();
    let mut put = |part: u64| {
        let numbers = part * 2000..(part + 1) * 2000;
        insert(&lsm, &mut model, numbers.map(|number| (digest(number), slot(number, RecordTag::Message))), part);
        lsm.flush().unwrap();
    };
    put(0);
    let old_runs = lsm.state().runs.clone();
    // The second flush rewrites the first run, and the third flush reuses its pages.
    put(1);
    put(2);
    assert!(
        old_runs.list[0].find(&digest(7), &lsm.pages).is_err_and(|error| matches!(error, IndexError::PageReplaced))
    );
    assert_eq!(lsm.find_all(&old_runs, &[digest(7)], vec![None]).unwrap(), [slot(7, RecordTag::Message)]);
}

#[test]
fn deleted_entries_release_their_disk_space() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let lsm = open(&path);
    let numbers = 0..60_000;
    let mut model = Model::new();
    insert(&lsm, &mut model, numbers.clone().map(|number| (digest(number), slot(number, RecordTag::Message))), 0);
    lsm.flush().unwrap();
    let before = super::super::dir_disk_usage(&path).unwrap();
    insert(&lsm, &mut model, numbers.map(|number| (digest(number), None)), 1);
    lsm.flush().unwrap();
    // sled releases disk space a few flushes later.
    for end in 2..8 {
        insert(&lsm, &mut model, [(digest(end), slot(end, RecordTag::Message))], end);
        lsm.flush().unwrap();
    }
    assert_matches_model(&lsm, &model);
    let after = super::super::dir_disk_usage(&path).unwrap();
    assert!(after < before / 4, "{after} of {before} bytes are still used");
}

#[test]
fn a_closed_tree_rejects_inserts_and_releases_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let (lsm, mut model) = (open(&path), Model::new());
    insert(&lsm, &mut model, [(digest(1), slot(1, RecordTag::Message))], 9);
    assert_eq!(lsm.close(&IndexError::Closed), lsm.totals());
    let before = lsm.totals();
    assert!(lsm.insert(&[(digest(2), slot(2, RecordTag::Message))], log_position(10)).is_err());
    assert_eq!(lsm.totals(), before);
    assert!(lsm.flush().is_err());
    assert_eq!(open(&path).totals(), Totals::EMPTY);
}
