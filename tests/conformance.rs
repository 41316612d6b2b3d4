//! A conformance suite that every implementation of [`MessageStore`] passes. In addition, a backend that fails at the
//! n-th call, for every n, and a backend that returns flipped bits are tested.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sha_api::client::{self, Client};
use sha_api::digest::{Digest, Prefix};
use sha_api::message_store::{Cursor, Damage, Entry, Error, ListQuery, MessageStore, Receipt, Stats, VerifyStep};
use sha_api::store::caching::CachingProxy;
use sha_api::store::local::{LocalStore, Options};
use sha_api::store::{Backend, HashingStore};

use crate::common::cluster::Cluster;
use crate::common::server::Server;
use crate::common::store_access::{AccessMode, FULL_ACCESS_TOKEN, StoreAccess, https_url};
use crate::common::{Sandbox, pseudorandom_bytes};

/// Maximum message size in bytes of each tested store.
const MAX_MESSAGE: u64 = 1 << 20;

/// Asserts that a store keeps the contract of [`MessageStore`]. The store must be empty and accept messages of up to
/// [`MAX_MESSAGE`] bytes.
fn assert_conforms(store: &dyn MessageStore) {
    assert_empty_store_answers(store);
    assert_put_round_trips(store);
    assert_receipts_mark_new_messages(store);
    assert_rejects_oversized_messages(store);
    assert_lists_in_order(store);
    assert_stats(store);
    assert_concurrent_puts(store);
    assert_removes(store);
    assert_verifies(store);
    assert_concurrent_removals(store);
}

fn assert_empty_store_answers(store: &dyn MessageStore) {
    assert_eq!(store.put(vec![]).unwrap(), []);
    assert_eq!(store.get(&[]).count(), 0);
    assert_eq!(store.has(&[]).unwrap(), Vec::<bool>::new());
    assert_eq!(store.list(&list_all_query()).unwrap(), []);
    assert_eq!(store.get_one(Digest::compute(b"absent")).unwrap(), None);
    let stats = store.stats().unwrap();
    assert_eq!((stats.messages, stats.bytes, stats.newest), (0, 0, None));
}

/// Returns the messages that [`assert_put_round_trips`] puts.
fn first_batch() -> Vec<Vec<u8>> {
    vec![vec![], b"foo".to_vec(), vec![0], pseudorandom_bytes(1000, 1), pseudorandom_bytes(1 << 20, 2), b"\n".to_vec()]
}

fn assert_put_round_trips(store: &dyn MessageStore) {
    let batch = first_batch();
    let receipts = store.put(batch.clone()).unwrap();
    let digests: Vec<_> = batch.iter().map(|message| Digest::compute(message)).collect();
    let expected: Vec<_> = digests.iter().map(|digest| Receipt { digest: *digest, new: true }).collect();
    assert_eq!(receipts, expected);
    let got: Vec<_> = store.get(&digests).map(|got| got.unwrap().unwrap()).collect();
    assert!(got == batch);
    assert_eq!(store.has(&digests).unwrap(), vec![true; batch.len()]);
    for (digest, message) in digests.iter().zip(&batch) {
        assert_eq!(store.size(*digest).unwrap(), Some(message.len() as u64));
    }
    assert_eq!(store.size(Digest::compute(b"absent")).unwrap(), None);
    let mixed = [Digest::compute(b"absent"), digests[1], Digest::compute(b"absent too"), digests[0]];
    let got: Vec<_> = store.get(&mixed).map(Result::unwrap).collect();
    assert_eq!(got, [None, Some(b"foo".to_vec()), None, Some(vec![])]);
    assert_eq!(store.has(&mixed).unwrap(), [false, true, false, true]);
}

fn assert_receipts_mark_new_messages(store: &dyn MessageStore) {
    let are_new = |batch: &[&[u8]]| -> Vec<bool> {
        let batch = batch.iter().map(|message| message.to_vec()).collect();
        store.put(batch).unwrap().iter().map(|receipt| receipt.new).collect()
    };
    assert_eq!(are_new(&[b"once", b"foo", b"twice", b"twice"]), [true, false, true, false]);
    assert_eq!(are_new(&[b"once", b"twice"]), [false, false]);
}

fn assert_rejects_oversized_messages(store: &dyn MessageStore) {
    let oversized = vec![b'x'; usize::try_from(MAX_MESSAGE).unwrap() + 1];
    let digest = Digest::compute(&oversized);
    let error = store.put(vec![b"in the same batch".to_vec(), oversized]).unwrap_err();
    assert!(
        matches!(error, Error::TooLarge { length, limit } if (length, limit) == (MAX_MESSAGE + 1, MAX_MESSAGE)),
        "{error}"
    );
    assert_eq!(store.has(&[digest, Digest::compute(b"in the same batch")]).unwrap(), [false, false]);
}

fn assert_lists_in_order(store: &dyn MessageStore) {
    let mut stored = first_batch();
    stored.extend([b"once".to_vec(), b"twice".to_vec()]);
    let mut expected: Vec<_> = stored.iter().map(|message| (Digest::compute(message), message.len() as u64)).collect();
    expected.sort();
    let list = |query: &ListQuery| -> Vec<(Digest, u64)> {
        let entries = store.list(query).unwrap();
        let recent = SystemTime::now() - Duration::from_secs(3600)..SystemTime::now() + Duration::from_secs(3600);
        assert!(entries.iter().all(|entry| recent.contains(&entry.stored_at)));
        entries.iter().map(|entry| (entry.digest, entry.length)).collect()
    };
    assert_eq!(list(&list_all_query()), expected);
    let paged = std::iter::successors(Some(list(&ListQuery { limit: 3, ..list_all_query() })), |page| {
        Some(list(&ListQuery { limit: 3, after: Some(page.last()?.0), ..list_all_query() }))
    });
    assert_eq!(paged.take_while(|page| !page.is_empty()).flatten().collect::<Vec<_>>(), expected);
    for (digest, _) in &expected {
        let text = digest.to_string();
        for end in [0, 1, 2, 63, 64] {
            let prefix: Prefix = text[..end].parse().unwrap();
            let within = expected.iter().filter(|(digest, _)| digest.to_string().starts_with(&text[..end]));
            assert_eq!(list(&ListQuery { prefix, ..list_all_query() }), within.copied().collect::<Vec<_>>());
            let after = filter_listing(&expected, &text[..end], *digest);
            assert_eq!(list(&ListQuery { prefix, after: Some(*digest), ..list_all_query() }), after);
        }
    }
    assert_eq!(list(&ListQuery { limit: 0, ..list_all_query() }), []);
}

fn filter_listing(all: &[(Digest, u64)], prefix: &str, after: Digest) -> Vec<(Digest, u64)> {
    all.iter().filter(|(digest, _)| digest.to_string().starts_with(prefix) && *digest > after).copied().collect()
}

fn assert_stats(store: &dyn MessageStore) {
    let stats = store.stats().unwrap();
    assert_eq!((stats.messages, stats.bytes), (8, 3 + 1 + 1000 + (1 << 20) + 1 + 4 + 5));
    assert!(stats.newest.is_some() && store.health().is_ok());
}

fn assert_concurrent_puts(store: &dyn MessageStore) {
    let before = store.stats().unwrap().messages;
    let new: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8_u32)
            .map(|thread| {
                scope.spawn(move || {
                    let mut new = 0;
                    for number in 0..100_u32 {
                        // All threads put the messages with even numbers, at about the same time.
                        let text = if number % 2 == 0 { format!("{number}") } else { format!("{thread} {number}") };
                        let receipt = store.put(vec![text.clone().into_bytes()]).unwrap()[0];
                        assert_eq!(store.get_one(receipt.digest).unwrap(), Some(text.into_bytes()));
                        new += usize::from(receipt.new);
                    }
                    new
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(store.stats().unwrap().messages - before, 50 + 8 * 50);
    assert!(new >= 50 + 8 * 50, "{new}");
}

fn assert_removes(store: &dyn MessageStore) {
    let before = store.stats().unwrap();
    let batch = vec![b"removed".to_vec(), pseudorandom_bytes(70_000, 9), b"present".to_vec()];
    let digests: Vec<_> = store.put(batch.clone()).unwrap().iter().map(|receipt| receipt.digest).collect();
    assert_eq!(store.remove(&[]).unwrap(), Vec::<bool>::new());
    let [removed, long, present] = digests[..] else { panic!("expected three digests") };
    assert_eq!(
        store.remove(&[removed, Digest::compute(b"never there"), long, removed]).unwrap(),
        [true, false, true, false]
    );
    assert_eq!(store.get(&digests).map(Result::unwrap).collect::<Vec<_>>(), [None, None, Some(b"present".to_vec())]);
    assert_eq!(store.has(&digests).unwrap(), [false, false, true]);
    assert_eq!((store.size(removed).unwrap(), store.size(present).unwrap()), (None, Some(7)));
    assert!(store.list(&list_all_query()).unwrap().iter().all(|entry| entry.digest != removed && entry.digest != long));
    let stats = store.stats().unwrap();
    assert_eq!((stats.messages, stats.bytes), (before.messages + 1, before.bytes + 7));
    // A removed message can be put again.
    assert!(store.put(vec![b"removed".to_vec()]).unwrap()[0].new);
    assert_eq!(store.get_one(removed).unwrap(), Some(b"removed".to_vec()));
    assert_eq!(store.remove(&[removed, present]).unwrap(), [true, true]);
    assert_eq!(store.stats().unwrap().messages, before.messages);
}

fn assert_verifies(store: &dyn MessageStore) {
    let (mut cursor, mut count, mut bytes) = (None, 0, 0);
    loop {
        let step = store.verify(cursor.as_ref()).unwrap();
        assert_eq!(step.damage, []);
        assert!(step.done <= step.total);
        count += step.messages;
        bytes += step.bytes;
        let Some(next) = step.next else { break };
        cursor = Some(next);
    }
    let stats = store.stats().unwrap();
    assert_eq!((count, bytes), (stats.messages, stats.bytes));
    store.repair(&[]).unwrap();
}

fn assert_concurrent_removals(store: &dyn MessageStore) {
    let before = store.stats().unwrap().messages;
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            scope.spawn(move || {
                for number in 0..50_u32 {
                    let text = format!("put and removed {thread} {number}").into_bytes();
                    let digest = store.put(vec![text.clone()]).unwrap()[0].digest;
                    assert_eq!(store.get_one(digest).unwrap(), Some(text));
                    assert_eq!(store.remove(&[digest]).unwrap(), [true]);
                    assert_eq!(store.get_one(digest).unwrap(), None);
                }
            });
        }
    });
    assert_eq!(store.stats().unwrap().messages, before);
}

fn list_all_query() -> ListQuery {
    ListQuery { prefix: Prefix::ALL, after: None, limit: usize::MAX }
}

fn open_local(dir: &std::path::Path) -> LocalStore {
    LocalStore::open(&local_options(dir)).unwrap()
}

fn local_options(dir: &std::path::Path) -> Options {
    Options {
        path: dir.to_owned(),
        create: true,
        lock_timeout: Duration::from_secs(10),
        owner: "a test".to_owned(),
        index_cache: 16 << 20,
        segment_size: 1 << 30,
        compression: None,
        events: Arc::new(|event| panic!("unexpected event: {event:?}")),
    }
}

#[test]
fn a_local_store_conforms_and_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    assert_conforms(&HashingStore::new(open_local(dir.path()), MAX_MESSAGE));
    let reopened = HashingStore::new(open_local(dir.path()), MAX_MESSAGE);
    assert_eq!(reopened.stats().unwrap().messages, 8 + 50 + 8 * 50);
    assert_eq!(reopened.get_one(Digest::compute(b"foo")).unwrap(), Some(b"foo".to_vec()));
    assert!(!reopened.put(vec![b"foo".to_vec()]).unwrap()[0].new);
}

#[test]
fn a_compressing_local_store_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { compression: Some(3), ..local_options(dir.path()) };
    assert_conforms(&HashingStore::new(LocalStore::open(&options).unwrap(), MAX_MESSAGE));
}

#[test]
fn a_caching_store_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let local = HashingStore::new(open_local(dir.path()), MAX_MESSAGE);
    let remote = HashingStore::new(MemoryBackend::default(), MAX_MESSAGE);
    let events = Arc::new(|event| panic!("unexpected event: {event:?}"));
    assert_conforms(&CachingProxy::new(Arc::new(local), Arc::new(remote), events));
}

/// Returns a client of `server`, over its local socket or over HTTPS.
fn connect_client(server: &Server, over_socket: bool) -> Client {
    let options = client::Options {
        tls: client::TlsOptions { cacert: Some(server.self_signed_cert_path()), cert: None, key: None },
        token: Some(client::Token(FULL_ACCESS_TOKEN.to_owned())),
        read_timeout: Duration::from_secs(60),
        ready_timeout: Duration::from_secs(10),
        max_message: MAX_MESSAGE,
    };
    match over_socket {
        true => Client::via_local_socket(&server.sandbox.store(), &options).unwrap(),
        false => Client::new(&[https_url(server).parse().unwrap()], &options).unwrap(),
    }
}

#[test]
fn a_client_conforms_over_https() {
    let access = StoreAccess::new(AccessMode::Url, Sandbox::new(), &["--max-body", "4MiB"]);
    assert_conforms(&connect_client(access.server(), false));
}

#[test]
fn a_client_conforms_over_a_socket() {
    let access = StoreAccess::new(AccessMode::Served, Sandbox::new(), &[]);
    assert_conforms(&connect_client(access.server(), true));
}

#[test]
fn a_database_conforms() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let options = sha_api::store::postgres::Options {
        url: cluster.database("one"),
        pool_size: 4,
        connect_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_secs(60),
        ready_timeout: Duration::from_secs(10),
        events: Arc::new(|event| panic!("unexpected event: {event:?}")),
    };
    // Two clients create the tables at the same time.
    let open = || HashingStore::new(sha_api::store::postgres::Postgres::open(&options).unwrap(), MAX_MESSAGE);
    let [first, _second] =
        std::thread::scope(|scope| [scope.spawn(open), scope.spawn(open)].map(|thread| thread.join().unwrap()));
    assert_conforms(&first);
}

#[test]
fn a_store_in_memory_conforms() {
    assert_conforms(&HashingStore::new(MemoryBackend::default(), MAX_MESSAGE));
}

/// A backend in memory. One call can be made to fail, before or after it takes effect.
#[derive(Default)]
struct MemoryBackend {
    messages: Mutex<BTreeMap<Digest, (Vec<u8>, u64)>>,
    calls: AtomicUsize,
    fail_at: Option<(usize, FailurePoint)>,
    flipped_bit: Mutex<Option<usize>>,
}

#[derive(Clone, Copy, PartialEq)]
enum FailurePoint {
    Before,
    After,
}

impl MemoryBackend {
    fn call<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let fails = |point| self.fail_at == Some((call, point));
        let error = || Error::io("an injected failure", std::io::Error::other("this call fails"));
        if fails(FailurePoint::Before) {
            return Err(error());
        }
        let result = work();
        if fails(FailurePoint::After) { Err(error()) } else { Ok(result) }
    }
}

impl Backend for MemoryBackend {
    fn put(&self, batch: Vec<(Digest, Vec<u8>)>) -> Result<Vec<bool>, Error> {
        let mut messages = self.messages.lock().unwrap();
        self.call(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            let put = |(digest, message)| messages.insert(digest, (message, now)).is_none();
            batch.into_iter().map(put).collect()
        })
    }

    fn get(&self, digests: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.call(|| {
            let mut message = self.messages.lock().unwrap().get(&digests[0]).map(|(message, _)| message.clone());
            if let (Some(message), Some(bit)) = (&mut message, *self.flipped_bit.lock().unwrap()) {
                message[bit / 8] ^= 1 << (bit % 8);
            }
            vec![message]
        })
    }

    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        self.call(|| digests.iter().map(|digest| self.messages.lock().unwrap().contains_key(digest)).collect())
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        self.call(|| self.messages.lock().unwrap().get(digest).map(|(message, _)| message.len() as u64))
    }

    fn list(&self, query: &ListQuery) -> Result<Vec<Entry>, Error> {
        self.call(|| {
            let messages = self.messages.lock().unwrap();
            let selected = messages.iter().filter(|(digest, _)| {
                query.prefix.range().contains(digest) && query.after.is_none_or(|after| **digest > after)
            });
            let entry = |(digest, (message, time)): (&Digest, &(Vec<u8>, u64))| Entry {
                digest: *digest,
                length: message.len() as u64,
                stored_at: SystemTime::UNIX_EPOCH + Duration::from_secs(*time),
            };
            selected.take(query.limit).map(entry).collect()
        })
    }

    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let mut messages = self.messages.lock().unwrap();
        self.call(|| digests.iter().map(|digest| messages.remove(digest).is_some()).collect())
    }

    fn verify(&self, _: Option<&Cursor>) -> Result<VerifyStep, Error> {
        let messages = self.messages.lock().unwrap();
        let bytes = messages.values().map(|(message, _)| message.len() as u64).sum();
        let (messages, damage) = (messages.len() as u64, Vec::new());
        self.call(|| VerifyStep { next: None, messages, bytes, done: bytes, total: bytes, damage })
    }

    fn repair(&self, _: &[Damage]) -> Result<(), Error> {
        self.call(|| ())
    }

    fn stats(&self) -> Result<Stats, Error> {
        self.call(|| {
            let messages = self.messages.lock().unwrap();
            let newest = messages.values().map(|(_, time)| SystemTime::UNIX_EPOCH + Duration::from_secs(*time)).max();
            let bytes = messages.values().map(|(message, _)| message.len() as u64).sum();
            let messages = messages.len() as u64;
            Stats { messages, bytes, disk: bytes, dead: 0, newest, verified: None, damaged: 0, lost: 0 }
        })
    }

    fn health(&self) -> Result<(), Error> {
        self.call(|| ())
    }
}

/// Calls `put`, `get`, `has`, `list`, `stats` and `health` several times and continues after errors. Returns the
/// acknowledged messages and the number of errors.
fn run_workload(store: &dyn MessageStore) -> (Vec<Vec<u8>>, usize) {
    let (mut acknowledged, mut errors) = (Vec::new(), 0);
    for number in 0..6_usize {
        let batch: Vec<_> =
            (0..=number % 3).map(|part| pseudorandom_bytes(10 + part, (number * 10 + part) as u64)).collect();
        match store.put(batch.clone()) {
            Ok(receipts) => {
                assert!(receipts.iter().zip(&batch).all(|(receipt, message)| receipt.digest.matches(message)));
                acknowledged.extend(batch.clone());
            }
            Err(_) => errors += 1,
        }
        for message in &batch {
            match store.get_one(Digest::compute(message)) {
                Ok(Some(got)) => assert!(got == *message),
                Ok(None) => assert!(!acknowledged.contains(message)),
                Err(_) => errors += 1,
            }
        }
        let digests: Vec<_> = acknowledged.iter().map(|message| Digest::compute(message)).collect();
        match store.has(&digests) {
            Ok(has) => assert!(has.iter().all(|has| *has)),
            Err(_) => errors += 1,
        }
        match store.list(&list_all_query()) {
            Ok(list) => assert!(digests.iter().all(|digest| list.iter().any(|entry| entry.digest == *digest))),
            Err(_) => errors += 1,
        }
        errors += usize::from(store.stats().is_err()) + usize::from(store.health().is_err());
    }
    (acknowledged, errors)
}

#[test]
fn any_failing_backend_call_loses_no_acknowledged_message_and_reports_one_error() {
    let calls = {
        let store = HashingStore::new(MemoryBackend::default(), MAX_MESSAGE);
        assert_eq!(run_workload(&store).1, 0);
        store.into_backend().calls.into_inner()
    };
    assert!(calls > 30, "{calls}");
    for call in 0..calls {
        for point in [FailurePoint::Before, FailurePoint::After] {
            let store = HashingStore::new(
                MemoryBackend { fail_at: Some((call, point)), ..MemoryBackend::default() },
                MAX_MESSAGE,
            );
            let (acknowledged, errors) = run_workload(&store);
            assert_eq!(errors, 1, "call {call}");
            for message in acknowledged {
                assert_eq!(store.get_one(Digest::compute(&message)).unwrap(), Some(message));
            }
        }
    }
}

#[test]
fn a_flipped_bit_is_never_returned() {
    let message = b"some message".to_vec();
    let digest = Digest::compute(&message);
    for bit in 0..message.len() * 8 {
        let backend = MemoryBackend::default();
        backend.put(vec![(digest, message.clone())]).unwrap();
        *backend.flipped_bit.lock().unwrap() = Some(bit);
        let got = HashingStore::new(backend, MAX_MESSAGE).get_one(digest);
        assert!(matches!(got, Err(Error::Corrupt(corrupt)) if corrupt == digest), "bit {bit}: {got:?}");
    }
}
