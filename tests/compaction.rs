//! Compaction of the log loses no message and restores no removed message.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha_api::digest::{Digest, Prefix};
use sha_api::message_store::{ListQuery, MessageStore};
use sha_api::store::HashingStore;
use sha_api::store::local::{LocalStore, Options};

use crate::common::{Random, pseudorandom_bytes};

const THREADS: u64 = 4;
const STEPS_PER_THREAD: u64 = 400;
const MESSAGES_PER_THREAD: u64 = 100;

fn open_store(dir: &Path) -> HashingStore<LocalStore> {
    let options = Options {
        path: dir.to_owned(),
        create: true,
        lock_timeout: Duration::from_secs(10),
        owner: "a test".to_owned(),
        index_cache: 16 << 20,
        segment_size: 1 << 18,
        compression: None,
        events: Arc::new(|_| ()),
    };
    HashingStore::new(LocalStore::open(&options).unwrap(), 1 << 20)
}

/// Returns a message that no other thread uses.
fn message(thread: u64, number: u64) -> Vec<u8> {
    pseudorandom_bytes(usize::try_from(10_000 + number * 300).unwrap(), thread * MESSAGES_PER_THREAD + number + 1)
}

/// Puts, removes and gets random messages and checks each result. Returns the digests that are stored at the end.
fn put_get_and_remove_at_random(store: &HashingStore<LocalStore>, thread: u64) -> BTreeSet<Digest> {
    let mut random = Random(thread + 1);
    let mut stored = BTreeSet::new();
    for _ in 0..STEPS_PER_THREAD {
        let message = message(thread, random.below(MESSAGES_PER_THREAD));
        let digest = Digest::compute(&message);
        match random.below(3) {
            0 => assert_eq!(store.remove(&[digest]).unwrap(), [stored.remove(&digest)]),
            1 => {
                assert_eq!(store.put(vec![message]).unwrap()[0].new, stored.insert(digest));
            }
            _ => assert_eq!(store.get_one(digest).unwrap(), stored.contains(&digest).then_some(message)),
        }
    }
    stored
}

fn list_digests(store: &HashingStore<LocalStore>) -> BTreeSet<Digest> {
    let query = ListQuery { prefix: Prefix::ALL, after: None, limit: usize::MAX };
    store.list(&query).unwrap().iter().map(|entry| entry.digest).collect()
}

#[test]
fn concurrent_changes_and_compactions_keep_exactly_the_stored_messages() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let store = open_store(&dir);
    let stored: BTreeSet<_> = std::thread::scope(|scope| {
        let store = &store;
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || put_get_and_remove_at_random(store, thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(list_digests(&store) == stored);
    drop(store);
    assert!(!dir.join("log/00000001.log").exists(), "no segment was compacted");
    for removed in ["nothing", "index"] {
        let _ = std::fs::remove_dir_all(dir.join(removed));
        let store = open_store(&dir);
        assert!(list_digests(&store) == stored, "without {removed}");
        for thread in 0..THREADS {
            for number in 0..MESSAGES_PER_THREAD {
                let message = message(thread, number);
                let digest = Digest::compute(&message);
                assert_eq!(store.get_one(digest).unwrap(), stored.contains(&digest).then_some(message));
            }
        }
        let mut cursor = None;
        loop {
            let step = store.verify(cursor.as_ref()).unwrap();
            assert_eq!(step.damage, []);
            cursor = step.next;
            if cursor.is_none() {
                break;
            }
        }
    }
}

#[test]
fn a_message_stays_readable_while_compaction_moves_it() {
    const READERS: usize = 16;
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(&dir.path().join("store"));
    let messages: Vec<_> = (0..20).map(|seed| pseudorandom_bytes(500, seed + 1)).collect();
    store.put(messages.clone()).unwrap();
    let (store, messages, done) = (&store, &messages, &AtomicBool::new(false));
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let message = &messages[reader % messages.len()];
                    assert!(store.get_one(Digest::compute(message)).unwrap().as_ref() == Some(message));
                }
            });
        }
        // Temporary messages fill segments with garbage, so that compaction moves the other messages.
        let mut random = Random(1);
        for _ in 0..200 {
            let temporary: Vec<_> = (0..10).map(|_| pseudorandom_bytes(8000, random.next())).collect();
            let receipts = store.put(temporary).unwrap();
            let digests: Vec<_> = receipts.iter().map(|receipt| receipt.digest).collect();
            assert_eq!(store.remove(&digests).unwrap(), [true; 10]);
        }
        done.store(true, Ordering::Relaxed);
    });
}
