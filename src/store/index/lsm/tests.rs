//! That the table holds what was set last, whatever is flushed, merged, opened or read beside it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::log::RecordKind;

const MAX_DIGEST: Digest = *Prefix::ALL.range().end();

fn digest(number: u64) -> Digest {
    Digest::compute(&number.to_le_bytes())
}

#[allow(clippy::unnecessary_wraps, reason = "entries have it so")]
fn slot(number: u64, kind: RecordKind) -> Slot {
    let segment = 1 + u32::try_from(number % 3).unwrap();
    Some(RecordLocation { kind, segment, offset: 64 + number * 8, payload_len: 9, message_len: 9, time: 1 })
}

fn log_position(offset: u64) -> LogPosition {
    LogPosition { segment: 1, offset }
}

fn open(dir: &Path) -> LsmTree {
    LsmTree::open(dir, 1 << 22).unwrap()
}

/// What the table must hold.
type Model = BTreeMap<Digest, Slot>;

fn insert(table: &LsmTree, model: &mut Model, entries: impl IntoIterator<Item = IndexEntry>, end: u64) {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_by_key(|(digest, _)| *digest);
    table.insert(&entries, log_position(end)).unwrap();
    model.extend(entries);
}

fn assert_holds(table: &LsmTree, model: &Model) {
    for (digest, position) in model {
        assert_eq!(table.get(digest).unwrap(), *position, "{digest}");
    }
    let digests: Vec<_> = model.keys().copied().collect();
    assert_eq!(table.get_all(&digests).unwrap(), model.values().copied().collect::<Vec<_>>());
    let messages: Vec<_> = model.iter().filter_map(|(digest, position)| Some((*digest, (*position)?))).collect();
    let messages: Vec<_> = messages.into_iter().filter(|(_, position)| position.is_message()).collect();
    assert_eq!(table.range(Bound::Unbounded, MAX_DIGEST, usize::MAX).unwrap(), messages);
    assert_eq!(table.totals().messages, messages.len() as u64);
    if let Some((middle, _)) = messages.get(messages.len() / 2) {
        let behind = table.range(Bound::Excluded(*middle), MAX_DIGEST, 7).unwrap();
        assert_eq!(behind, messages[messages.len() / 2 + 1..].iter().take(7).copied().collect::<Vec<_>>());
    }
    let of = |segment| {
        let all = model.iter().filter_map(|(digest, position)| Some((*digest, (*position)?)));
        all.filter(|(_, position)| position.segment == segment).collect::<Vec<_>>()
    };
    assert_eq!(table.entries_in_segments(&[2]).unwrap(), of(2));
    let live = |segment| of(segment).iter().map(|(_, position)| position.record_len()).sum::<u64>();
    let live: BTreeMap<_, _> =
        [1, 2, 3].map(|segment| (segment, live(segment))).into_iter().filter(|(_, live)| *live > 0).collect();
    assert_eq!(table.totals().live_bytes, live);
}

#[test]
fn the_last_value_of_a_digest_survives_flushes_merges_and_reopens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut model = Model::new();
    let mut table = open(&path);
    let mut next = 0;
    for (round, count) in [50_000, 40_000, 3, 900, 60_000, 1, 30_000, 2, 70_000].into_iter().enumerate() {
        let old = next.min(20_000);
        let new = (0..count).map(|number| (digest(next + number), slot(next + number, RecordKind::Message)));
        let moved = (0..old / 9).map(|number| (digest(number * 7), slot(number + count, RecordKind::Compressed)));
        let removed = (0..old / 8).map(|number| (digest(number * 5), slot(number, RecordKind::Tombstone)));
        let forgotten = (0..old / 7).map(|number| (digest(number * 3), None));
        insert(&table, &mut model, new.chain(moved).chain(removed).chain(forgotten), round as u64);
        next += count;
        assert_holds(&table, &model);
        table.flush().unwrap();
        assert!(table.is_flushed());
        if round % 3 == 2 {
            let mark = table.totals();
            drop(table);
            table = open(&path);
            assert_eq!((table.totals(), table.flushed_totals()), (mark.clone(), mark));
        }
        assert_holds(&table, &model);
    }
    assert!(table.state().runs.list.len() < 6, "{}", table.state().runs.list.len());
    assert_eq!(table.get(&digest(next)).unwrap(), None);
}

#[test]
fn every_merge_step_keeps_all_entries_and_a_merge_resumes_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut model = Model::new();
    let mut table = open(&path);
    // Too many each to be written again with the next.
    let numbers = |part: u64| part * 60_000..part * 60_000 + 70_000;
    for part in 0..5 {
        let entries = numbers(part).map(|number| (digest(number), slot(number + part, RecordKind::Message)));
        insert(&table, &mut model, entries.chain([(digest(part * 60_001), None)]), part);
        assert_eq!(table.state().runs.active_merge, None);
        table.flush().unwrap();
    }
    let mut steps = 1;
    while table.state().runs.active_merge.is_some() {
        assert_eq!(table.state().runs.list.len(), 6);
        if steps % 2 == 0 {
            drop(table);
            table = open(&path);
        }
        assert_holds(&table, &model);
        table.merge_step(&mut table.writer_state()).unwrap();
        steps += 1;
    }
    assert_holds(&table, &model);
    assert_eq!(table.state().runs.list.len(), 1);
    assert!(steps > 2, "{steps}");
    model.retain(|_, position| position.is_some());
    assert_eq!(table.state().runs.list[0].entry_count, model.len());
}

#[test]
fn unflushed_entries_are_absent_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::new();
    let table = open(&dir.path().join("index"));
    insert(&table, &mut model, (0..3000).map(|number| (digest(number), slot(number, RecordKind::Message))), 5);
    table.flush().unwrap();
    let mark = table.totals();
    let more = (2000..9000).map(|number| (digest(number), slot(number + 1, RecordKind::Message)));
    insert(&table, &mut model.clone(), more, 9);
    assert_eq!((table.totals().messages, table.flushed_totals()), (9000, mark.clone()));
    table.leak();
    drop(table);
    // The lock of a tree that was given up goes with its process: so this one is a copy.
    let copy = dir.path().join("copy");
    let copied = std::process::Command::new("cp").arg("-r").args([dir.path().join("index"), copy.clone()]).status();
    assert!(copied.unwrap().success());
    let table = open(&copy);
    assert_eq!(table.totals(), mark);
    assert_holds(&table, &model);
}

#[test]
fn digests_with_equal_prefixes_are_distinguished_across_blocks_and_partitions() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::new();
    let table = open(&dir.path().join("index"));
    let alike = |number: u64| {
        let mut bytes = *digest(number).as_bytes();
        bytes[..8].copy_from_slice(&[7; 8]);
        Digest::from_bytes(bytes)
    };
    for part in 0..3 {
        let numbers = part * 6000..(part + 1) * 6000;
        insert(&table, &mut model, numbers.map(|number| (alike(number), slot(number, RecordKind::Message))), part);
        insert(&table, &mut model, [(digest(part), slot(part, RecordKind::Message))], part);
        table.flush().unwrap();
        assert_holds(&table, &model);
    }
    assert_eq!(table.get(&alike(18_000)).unwrap(), None);
}

#[test]
fn lookups_find_every_entry_during_concurrent_flushes() {
    let dir = tempfile::tempdir().unwrap();
    // Too small to keep a block, so that all are read from their pages.
    let table = LsmTree::open(&dir.path().join("index"), 1).unwrap();
    let mut model = Model::new();
    insert(&table, &mut model, (0..2000).map(|number| (digest(number), slot(number, RecordKind::Message))), 0);
    let (done, all) = (AtomicBool::new(false), model.clone());
    std::thread::scope(|scope| {
        let read = || {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                number = (number + 7) % 2000;
                assert_eq!(table.get(&digest(number)).unwrap(), slot(number, RecordKind::Message));
            }
        };
        let read_all = || {
            let digests: Vec<_> = all.keys().copied().collect();
            while !done.load(Ordering::Relaxed) {
                assert!(table.get_all(&digests).unwrap().iter().eq(all.values()));
            }
        };
        let readers = [scope.spawn(read), scope.spawn(read_all)];
        for part in 1..40 {
            let numbers = part * 4000..(part + 1) * 4000;
            let entries = numbers.map(|number| (digest(number), slot(number, RecordKind::Message)));
            insert(&table, &mut model, entries, part);
            table.flush().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert_holds(&table, &model);
}

#[test]
fn a_lookup_whose_pages_were_replaced_retries_with_the_current_runs() {
    let dir = tempfile::tempdir().unwrap();
    let table = LsmTree::open(&dir.path().join("index"), 1).unwrap();
    let mut model = Model::new();
    let mut put = |part: u64| {
        let numbers = part * 2000..(part + 1) * 2000;
        insert(&table, &mut model, numbers.map(|number| (digest(number), slot(number, RecordKind::Message))), part);
        table.flush().unwrap();
    };
    put(0);
    let old = table.state().runs.clone();
    // The first is written again with the second, and then its pages are used for the third.
    put(1);
    put(2);
    assert!(old.list[0].find(&digest(7), &table.pages).is_err_and(|why| why.is_page_replaced));
    assert_eq!(table.find_all(&old, &[digest(7)], vec![None]).unwrap(), [slot(7, RecordKind::Message)]);
}

#[test]
fn deleted_entries_release_their_disk_space() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let table = open(&path);
    let numbers = 0..60_000;
    let mut model = Model::new();
    insert(&table, &mut model, numbers.clone().map(|number| (digest(number), slot(number, RecordKind::Message))), 0);
    table.flush().unwrap();
    let full = super::super::dir_disk_usage(&path).unwrap();
    insert(&table, &mut model, numbers.map(|number| (digest(number), None)), 1);
    table.flush().unwrap();
    // sled gives space back a few flushes later.
    for end in 2..8 {
        insert(&table, &mut model, [(digest(end), slot(end, RecordKind::Message))], end);
        table.flush().unwrap();
    }
    assert_holds(&table, &model);
    let left = super::super::dir_disk_usage(&path).unwrap();
    assert!(left < full / 4, "{left} of {full} bytes are left");
}

#[test]
fn a_closed_tree_rejects_inserts_and_releases_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let (table, mut model) = (open(&path), Model::new());
    insert(&table, &mut model, [(digest(1), slot(1, RecordKind::Message))], 9);
    assert_eq!(table.close(), table.totals());
    let before = table.totals();
    assert!(table.insert(&[(digest(2), slot(2, RecordKind::Message))], log_position(10)).is_err());
    assert_eq!(table.totals(), before);
    assert!(table.flush().is_err());
    assert_eq!(open(&path).totals(), Totals::EMPTY);
}
