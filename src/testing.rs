//! An in-memory message store and mutated fuzz inputs for unit tests.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::SystemTime;

use crate::digest::Digest;
use crate::message_store::{Cursor, Damage, Entry, Error, ListQuery, MessageStore, Receipt, Stats, VerifyStep};

/// Message store in memory. It can be configured to fail.
#[derive(Default)]
pub(crate) struct MemoryStore {
    messages: Mutex<BTreeMap<Digest, Vec<u8>>>,
    corrupt: Mutex<Vec<Digest>>,
    limit: Option<u64>,
    failing: Option<Error>,
    rejected: Option<&'static [u8]>,
    puts: AtomicUsize,
}

impl MemoryStore {
    /// Creates a store whose operations fail with `error`.
    pub(crate) fn failing(error: Error) -> Self {
        Self { failing: Some(error), ..Self::default() }
    }

    /// Creates a store that rejects messages of more than `limit` bytes.
    pub(crate) fn with_limit(limit: u64) -> Self {
        Self { limit: Some(limit), ..Self::default() }
    }

    /// Creates a store that rejects each batch that contains `message` with [`Error::NoSpace`].
    pub(crate) fn rejecting(message: &'static [u8]) -> Self {
        Self { rejected: Some(message), ..Self::default() }
    }

    /// Returns the number of calls of `put`.
    pub(crate) fn puts(&self) -> usize {
        self.puts.load(SeqCst)
    }

    /// Stores `message`, then reports it as corrupt.
    pub(crate) fn make_corrupt(&self, message: &[u8]) {
        self.put(vec![message.to_vec()]).unwrap();
        self.corrupt.lock().unwrap().push(Digest::compute(message));
    }

    fn lock_messages(&self) -> Result<std::sync::MutexGuard<'_, BTreeMap<Digest, Vec<u8>>>, Error> {
        self.failing.clone().map_or_else(|| Ok(self.messages.lock().unwrap()), Err)
    }
}

impl MessageStore for MemoryStore {
    fn put(&self, batch: Vec<Vec<u8>>) -> Result<Vec<Receipt>, Error> {
        self.puts.fetch_add(1, SeqCst);
        let mut messages = self.lock_messages()?;
        if self.rejected.is_some_and(|rejected| batch.iter().any(|message| message == rejected)) {
            return Err(Error::NoSpace("/memory".into()));
        }
        let lengths = batch.iter().map(|message| message.len() as u64);
        if let Some((limit, length)) = self.limit.zip(lengths.max()).filter(|(limit, length)| length > limit) {
            return Err(Error::TooLarge { length, limit });
        }
        let put_one = |message: Vec<u8>| {
            let digest = Digest::compute(&message);
            Receipt { digest, new: messages.insert(digest, message).is_none() }
        };
        Ok(batch.into_iter().map(put_one).collect())
    }

    fn get<'a>(&'a self, digests: &'a [Digest]) -> Box<dyn Iterator<Item = Result<Option<Vec<u8>>, Error>> + 'a> {
        Box::new(digests.iter().map(|digest| match self.corrupt.lock().unwrap().contains(digest) {
            true => Err(Error::Corrupt(*digest)),
            false => Ok(self.lock_messages()?.get(digest).cloned()),
        }))
    }

    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let messages = self.lock_messages()?;
        Ok(digests.iter().map(|digest| messages.contains_key(digest)).collect())
    }

    fn size(&self, digest: Digest) -> Result<Option<u64>, Error> {
        Ok(self.lock_messages()?.get(&digest).map(|message| message.len() as u64))
    }

    fn list(&self, page: &ListQuery) -> Result<Vec<Entry>, Error> {
        let entry = |(digest, message): (&Digest, &Vec<u8>)| Entry {
            digest: *digest,
            length: message.len() as u64,
            stored_at: SystemTime::UNIX_EPOCH,
        };
        let is_after = |(digest, _): &(&Digest, &Vec<u8>)| page.after.is_none_or(|after| **digest > after);
        Ok(self.lock_messages()?.range(page.prefix.range()).filter(is_after).take(page.limit).map(entry).collect())
    }

    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let mut messages = self.lock_messages()?;
        Ok(digests.iter().map(|digest| messages.remove(digest).is_some()).collect())
    }

    fn verify(&self, _: Option<&Cursor>) -> Result<VerifyStep, Error> {
        let messages = self.lock_messages()?.len() as u64;
        Ok(VerifyStep { next: None, messages, bytes: 0, done: 0, total: 0, damage: Vec::new() })
    }

    fn repair(&self, _: &[Damage]) -> Result<(), Error> {
        self.lock_messages().map(drop)
    }

    fn stats(&self) -> Result<Stats, Error> {
        let messages = self.lock_messages()?.len() as u64;
        Ok(Stats { messages, bytes: 0, disk: 0, dead: 0, newest: None, verified: None, damaged: 0, lost: 0 })
    }

    fn health(&self) -> Result<(), Error> {
        self.lock_messages().map(drop)
    }
}

/// Calls `check` with each seed of the corpus of a fuzz target and with `rounds` mutations of them, which are the same in
/// each run. Does nothing if there is no corpus, as in a published crate.
pub(crate) fn check_mutated_corpus(target: &str, rounds: usize, check: impl Fn(&[u8])) {
    let corpus = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let Ok(dir) = std::fs::read_dir(corpus) else { return };
    let mut paths: Vec<_> = dir.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(seeds.len() > 2);
    for seed in &seeds {
        check(seed);
    }
    // xorshift64.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound.max(1) as u64).unwrap()
    };
    for round in 0..rounds {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..random(4) {
            let position = random(bytes.len());
            if bytes.is_empty() {
                break;
            }
            match random(5) {
                0 => bytes[position] = b"\r\n\0 :;,0aF\xff"[random(11)],
                1 => drop(bytes.remove(position)),
                2 => bytes.insert(position, bytes[position]),
                3 => bytes[position] ^= 1 << random(8),
                _ => bytes.truncate(position.max(1)),
            }
        }
        check(&bytes);
    }
}
