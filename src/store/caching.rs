//! A local store as a cache of a remote store. A put is acknowledged by the remote store, and messages that pass are
//! cached locally. A message never changes, so a cached message is never stale. A message that another client removes
//! from the remote store stays in the cache.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::digest::Digest;
use crate::message_store::{Cursor, Damage, Entry, Error, ListQuery, MessageStore, Receipt, Stats, VerifyStep};
use crate::store::{EventSink, StoreEvent};

/// Bytes of messages after which a prefetch stops.
const PREFETCH_BYTES: usize = 8 << 20;

/// A [`MessageStore`] that serves messages of `remote` and caches them in `local`.
pub struct CachingProxy {
    local: Arc<dyn MessageStore>,
    remote: Arc<dyn MessageStore>,
    /// Number of removals. A message that was requested from `remote` before a removal is not cached after it.
    generation: RwLock<u64>,
    events: EventSink,
}

impl CachingProxy {
    /// Creates a cache. A message that cannot be cached is served all the same, and the error is sent to `events`.
    pub fn new(local: Arc<dyn MessageStore>, remote: Arc<dyn MessageStore>, events: EventSink) -> Self {
        Self { local, remote, generation: RwLock::default(), events }
    }

    fn generation(&self) -> u64 {
        *self.generation.read()
    }

    /// Caches messages of the remote store, unless something was removed since `generation`.
    fn cache_locally(&self, batch: Vec<Vec<u8>>, generation: u64) {
        let current = self.generation.read();
        if *current != generation || batch.is_empty() {
            return;
        }
        if let Err(error) = self.local.put(batch) {
            (self.events)(StoreEvent::Warning(format!(
                "cannot cache messages locally: {error}; the upstream server still has them"
            )));
        }
    }

    fn fetch(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        let cached = self.local.get_one(digest);
        if let Ok(Some(message)) = cached {
            return Ok(Some(message));
        }
        let generation = self.generation();
        match (self.remote.get_one(digest)?, cached) {
            (Some(message), _) => {
                self.cache_locally(vec![message.clone()], generation);
                Ok(Some(message))
            }
            // The message was stored once, so its loss is reported as damage and not as absence.
            (None, Err(error @ (Error::Corrupt(_) | Error::Lost(_)))) => Err(error),
            (None, _) => Ok(None),
        }
    }
}

impl MessageStore for CachingProxy {
    fn put(&self, batch: Vec<Vec<u8>>) -> Result<Vec<Receipt>, Error> {
        let generation = self.generation();
        let receipts = self.remote.put(batch.clone())?;
        self.cache_locally(batch, generation);
        Ok(receipts)
    }

    fn get<'a>(&'a self, digests: &'a [Digest]) -> Box<dyn Iterator<Item = Result<Option<Vec<u8>>, Error>> + 'a> {
        Box::new(digests.iter().map(|digest| self.fetch(*digest)))
    }

    fn prefetch(&self, digests: &[Digest]) {
        let Ok(cached) = self.local.has(digests) else { return };
        let missing: Vec<_> = digests.iter().zip(cached).filter(|(_, has)| !has).map(|(digest, _)| *digest).collect();
        let generation = self.generation();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for message in self.remote.get(&missing) {
            match message {
                Ok(Some(message)) => {
                    bytes += message.len();
                    batch.push(message);
                }
                Ok(None) | Err(Error::Corrupt(_) | Error::Lost(_)) => {}
                // The `get` that follows meets the error again and reports it.
                Err(_) => break,
            }
            if bytes > PREFETCH_BYTES {
                break;
            }
        }
        self.cache_locally(batch, generation);
    }

    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let mut stored = self.local.has(digests)?;
        let missing: Vec<_> =
            digests.iter().zip(&stored).filter(|(_, has)| !**has).map(|(digest, _)| *digest).collect();
        if !missing.is_empty() {
            let mut stored_remotely = self.remote.has(&missing)?.into_iter();
            for has in stored.iter_mut().filter(|has| !**has) {
                *has = stored_remotely.next().expect("one result for each digest");
            }
        }
        Ok(stored)
    }

    fn size(&self, digest: Digest) -> Result<Option<u64>, Error> {
        match self.local.size(digest) {
            Ok(Some(length)) => Ok(Some(length)),
            _ => self.remote.size(digest),
        }
    }

    fn list(&self, query: &ListQuery) -> Result<Vec<Entry>, Error> {
        self.remote.list(query)
    }

    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let removed = self.remote.remove(digests)?;
        let mut generation = self.generation.write();
        *generation += 1;
        self.local.remove(digests)?;
        Ok(removed)
    }

    fn verify(&self, from: Option<&Cursor>) -> Result<VerifyStep, Error> {
        self.local.verify(from)
    }

    fn repair(&self, damage: &[Damage]) -> Result<(), Error> {
        self.local.repair(damage)
    }

    fn accept_loss(&self, losses: &[Damage]) -> Result<(), Error> {
        self.local.accept_loss(losses)
    }

    fn stats(&self) -> Result<Stats, Error> {
        self.local.stats()
    }

    fn health(&self) -> Result<(), Error> {
        self.local.health()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::testing::MemoryStore;

    fn caching_proxy(local: MemoryStore, remote: MemoryStore) -> (CachingProxy, Arc<Mutex<Vec<StoreEvent>>>) {
        let received = Arc::new(Mutex::new(Vec::new()));
        let events = received.clone();
        let events: EventSink = Arc::new(move |event| events.lock().unwrap().push(event));
        (CachingProxy::new(Arc::new(local), Arc::new(remote), events), received)
    }

    fn no_space_error() -> Error {
        Error::NoSpace("/store".into())
    }

    #[test]
    fn a_message_fetched_across_a_removal_is_not_cached() {
        let (proxy, _) = caching_proxy(MemoryStore::default(), MemoryStore::default());
        let foo = Digest::compute(b"foo");
        let generation = proxy.generation();
        proxy.remove(&[foo]).unwrap();
        proxy.cache_locally(vec![b"foo".to_vec()], generation);
        assert_eq!(proxy.local.has(&[foo]).unwrap(), [false]);
        proxy.cache_locally(vec![b"foo".to_vec()], proxy.generation());
        assert_eq!(proxy.local.has(&[foo]).unwrap(), [true]);
    }

    #[test]
    fn a_failed_local_write_is_reported_and_the_message_is_served() {
        let (proxy, events) = caching_proxy(MemoryStore::failing(no_space_error()), MemoryStore::default());
        let receipt = proxy.put(vec![b"foo".to_vec()]).unwrap()[0];
        assert_eq!(proxy.get_one(receipt.digest).unwrap().unwrap(), b"foo");
        assert_eq!(events.lock().unwrap().len(), 2);
        assert!(proxy.remove(&[receipt.digest]).is_err(), "the message may still be cached");
    }

    #[test]
    fn a_put_that_the_remote_rejects_is_neither_acknowledged_nor_cached() {
        let (proxy, _) = caching_proxy(MemoryStore::default(), MemoryStore::failing(no_space_error()));
        assert!(proxy.put(vec![b"foo".to_vec()]).is_err());
        assert_eq!(proxy.local.has(&[Digest::compute(b"foo")]).unwrap(), [false]);
        assert!(proxy.get_one(Digest::compute(b"foo")).is_err(), "the remote store may have the message");
    }

    #[test]
    fn a_corrupt_local_message_absent_from_the_remote_is_reported() {
        let local = MemoryStore::default();
        local.make_corrupt(b"foo");
        let (proxy, _) = caching_proxy(local, MemoryStore::default());
        assert!(matches!(proxy.get_one(Digest::compute(b"foo")), Err(Error::Corrupt(_))));
    }
}
