//! A near store in front of a far one. What is put is acknowledged by the far one; what is got is kept near, and a message
//! never changes, so what is near is never stale. Only a removal that somebody else asks the far one for is not seen here.

use std::sync::{Arc, PoisonError, RwLock};

use crate::digest::Digest;
use crate::message_store::{Cursor, Damage, Entry, Error, ListQuery, MessageStore, Receipt, Stats, VerifyStep};
use crate::store::{EventSink, StoreEvent};

/// How much is fetched ahead at a time, in bytes.
const PREFETCH_BYTES: usize = 8 << 20;

/// Messages of `far`, kept in `near` as they pass.
pub struct CachingProxy {
    local: Arc<dyn MessageStore>,
    remote: Arc<dyn MessageStore>,
    /// Counts the removals: what was under way from `far` while one was carried out is not kept.
    generation: RwLock<u64>,
    events: EventSink,
}

impl CachingProxy {
    /// What cannot be kept near is told to `notes`, and served all the same.
    pub fn new(near: Arc<dyn MessageStore>, far: Arc<dyn MessageStore>, notes: EventSink) -> Self {
        Self { local: near, remote: far, generation: RwLock::default(), events: notes }
    }

    fn generation(&self) -> u64 {
        *self.generation.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what came from `far`, unless something was removed since `then`.
    fn cache_locally(&self, batch: Vec<Vec<u8>>, then: u64) {
        let now = self.generation.read().unwrap_or_else(PoisonError::into_inner);
        if *now != then || batch.is_empty() {
            return;
        }
        if let Err(why) = self.local.put(batch) {
            (self.events)(StoreEvent::Message(format!("what came from the upstream is not kept: {why}")));
        }
    }

    fn fetch(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        let near = self.local.get_one(digest);
        if let Ok(Some(message)) = near {
            return Ok(Some(message));
        }
        let then = self.generation();
        match (self.remote.get_one(digest)?, near) {
            (Some(message), _) => {
                self.cache_locally(vec![message.clone()], then);
                Ok(Some(message))
            }
            // It was here once, so that it is nowhere now is no plain absence.
            (None, Err(corrupt @ Error::Corrupt(_))) => Err(corrupt),
            (None, _) => Ok(None),
        }
    }
}

impl MessageStore for CachingProxy {
    fn put(&self, batch: Vec<Vec<u8>>) -> Result<Vec<Receipt>, Error> {
        let then = self.generation();
        let receipts = self.remote.put(batch.clone())?;
        self.cache_locally(batch, then);
        Ok(receipts)
    }

    fn get<'a>(&'a self, digests: &'a [Digest]) -> Box<dyn Iterator<Item = Result<Option<Vec<u8>>, Error>> + 'a> {
        Box::new(digests.iter().map(|digest| self.fetch(*digest)))
    }

    fn prefetch(&self, digests: &[Digest]) {
        let Ok(stored) = self.local.has(digests) else { return };
        let missing: Vec<_> = digests.iter().zip(stored).filter(|(_, has)| !has).map(|(digest, _)| *digest).collect();
        let then = self.generation();
        let (mut batch, mut length) = (Vec::new(), 0);
        for message in self.remote.get(&missing) {
            match message {
                Ok(Some(message)) => {
                    length += message.len();
                    batch.push(message);
                }
                Ok(None) | Err(Error::Corrupt(_)) => {}
                // Whoever gets the message is told.
                Err(_) => break,
            }
            if length > PREFETCH_BYTES {
                break;
            }
        }
        self.cache_locally(batch, then);
    }

    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let mut stored = self.local.has(digests)?;
        let missing: Vec<_> =
            digests.iter().zip(&stored).filter(|(_, has)| !**has).map(|(digest, _)| *digest).collect();
        if !missing.is_empty() {
            let mut far = self.remote.has(&missing)?.into_iter();
            for has in stored.iter_mut().filter(|has| !**has) {
                *has = far.next().expect("an answer for each digest");
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

    fn list(&self, page: &ListQuery) -> Result<Vec<Entry>, Error> {
        self.remote.list(page)
    }

    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let removed = self.remote.remove(digests)?;
        let mut removals = self.generation.write().unwrap_or_else(PoisonError::into_inner);
        *removals += 1;
        self.local.remove(digests)?;
        Ok(removed)
    }

    fn verify(&self, from: Option<&Cursor>) -> Result<VerifyStep, Error> {
        self.local.verify(from)
    }

    fn repair(&self, damage: &[Damage]) -> Result<(), Error> {
        self.local.repair(damage)
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
    use super::*;
    use crate::testing::MemoryStore;

    fn caching_proxy(near: MemoryStore, far: MemoryStore) -> (CachingProxy, Arc<std::sync::Mutex<Vec<StoreEvent>>>) {
        let said = Arc::new(std::sync::Mutex::new(Vec::new()));
        let notes = said.clone();
        let notes: EventSink = Arc::new(move |note| notes.lock().unwrap().push(note));
        (CachingProxy::new(Arc::new(near), Arc::new(far), notes), said)
    }

    fn no_space_error() -> Error {
        Error::NoSpace("/near".into())
    }

    #[test]
    fn a_message_fetched_across_a_removal_is_not_cached() {
        let (messages, _) = caching_proxy(MemoryStore::default(), MemoryStore::default());
        let foo = Digest::compute(b"foo");
        let then = messages.generation();
        messages.remove(&[foo]).unwrap();
        messages.cache_locally(vec![b"foo".to_vec()], then);
        assert_eq!(messages.local.has(&[foo]).unwrap(), [false]);
        messages.cache_locally(vec![b"foo".to_vec()], messages.generation());
        assert_eq!(messages.local.has(&[foo]).unwrap(), [true]);
    }

    #[test]
    fn a_failed_local_write_is_reported_and_the_message_is_served() {
        let (messages, said) = caching_proxy(MemoryStore::failing(no_space_error()), MemoryStore::default());
        let receipt = messages.put(vec![b"foo".to_vec()]).unwrap()[0];
        assert_eq!(messages.get_one(receipt.digest).unwrap().unwrap(), b"foo");
        assert_eq!(said.lock().unwrap().len(), 2);
        assert!(messages.remove(&[receipt.digest]).is_err(), "nobody knows whether it is gone near");
    }

    #[test]
    fn a_put_that_the_remote_rejects_is_neither_acknowledged_nor_cached() {
        let (messages, _) = caching_proxy(MemoryStore::default(), MemoryStore::failing(no_space_error()));
        assert!(messages.put(vec![b"foo".to_vec()]).is_err());
        assert_eq!(messages.local.has(&[Digest::compute(b"foo")]).unwrap(), [false]);
        assert!(messages.get_one(Digest::compute(b"foo")).is_err(), "nobody knows whether it is absent");
    }

    #[test]
    fn a_corrupt_local_message_absent_from_the_remote_is_reported() {
        let near = MemoryStore::default();
        near.make_corrupt(b"foo");
        let (messages, _) = caching_proxy(near, MemoryStore::default());
        assert!(matches!(messages.get_one(Digest::compute(b"foo")), Err(Error::Corrupt(_))));
    }
}
