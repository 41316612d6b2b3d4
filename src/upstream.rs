//! A near store in front of a far one. What is put is acknowledged by the far one; what is got is kept near, and a message
//! never changes, so what is near is never stale. Only a removal that somebody else asks the far one for is not seen here.

use std::sync::{Arc, PoisonError, RwLock};

use crate::digest::Digest;
use crate::messages::{Cursor, Damage, Entry, Error, Messages, Page, Receipt, Stats, Verified};
use crate::store::{EventSink, StoreEvent};

/// How much is fetched ahead at a time, in bytes.
const AHEAD: usize = 8 << 20;

/// Messages of `far`, kept in `near` as they pass.
pub struct Upstream {
    near: Arc<dyn Messages>,
    far: Arc<dyn Messages>,
    /// Counts the removals: what was under way from `far` while one was carried out is not kept.
    removals: RwLock<u64>,
    notes: EventSink,
}

impl Upstream {
    /// What cannot be kept near is told to `notes`, and served all the same.
    pub fn new(near: Arc<dyn Messages>, far: Arc<dyn Messages>, notes: EventSink) -> Self {
        Self { near, far, removals: RwLock::default(), notes }
    }

    fn removals(&self) -> u64 {
        *self.removals.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what came from `far`, unless something was removed since `then`.
    fn keep(&self, batch: Vec<Vec<u8>>, then: u64) {
        let now = self.removals.read().unwrap_or_else(PoisonError::into_inner);
        if *now != then || batch.is_empty() {
            return;
        }
        if let Err(why) = self.near.put(batch) {
            (self.notes)(StoreEvent::Message(format!("what came from the upstream is not kept: {why}")));
        }
    }

    fn fetch(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        let near = self.near.get_one(digest);
        if let Ok(Some(message)) = near {
            return Ok(Some(message));
        }
        let then = self.removals();
        match (self.far.get_one(digest)?, near) {
            (Some(message), _) => {
                self.keep(vec![message.clone()], then);
                Ok(Some(message))
            }
            // It was here once, so that it is nowhere now is no plain absence.
            (None, Err(corrupt @ Error::Corrupt(_))) => Err(corrupt),
            (None, _) => Ok(None),
        }
    }
}

impl Messages for Upstream {
    fn put(&self, batch: Vec<Vec<u8>>) -> Result<Vec<Receipt>, Error> {
        let then = self.removals();
        let receipts = self.far.put(batch.clone())?;
        self.keep(batch, then);
        Ok(receipts)
    }

    fn get<'a>(&'a self, digests: &'a [Digest]) -> Box<dyn Iterator<Item = Result<Option<Vec<u8>>, Error>> + 'a> {
        Box::new(digests.iter().map(|digest| self.fetch(*digest)))
    }

    fn expect(&self, digests: &[Digest]) {
        let Ok(stored) = self.near.has(digests) else { return };
        let missing: Vec<_> = digests.iter().zip(stored).filter(|(_, has)| !has).map(|(digest, _)| *digest).collect();
        let then = self.removals();
        let (mut batch, mut length) = (Vec::new(), 0);
        for message in self.far.get(&missing) {
            match message {
                Ok(Some(message)) => {
                    length += message.len();
                    batch.push(message);
                }
                Ok(None) | Err(Error::Corrupt(_)) => {}
                // Whoever gets the message is told.
                Err(_) => break,
            }
            if length > AHEAD {
                break;
            }
        }
        self.keep(batch, then);
    }

    fn has(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let mut stored = self.near.has(digests)?;
        let missing: Vec<_> =
            digests.iter().zip(&stored).filter(|(_, has)| !**has).map(|(digest, _)| *digest).collect();
        if !missing.is_empty() {
            let mut far = self.far.has(&missing)?.into_iter();
            for has in stored.iter_mut().filter(|has| !**has) {
                *has = far.next().expect("an answer for each digest");
            }
        }
        Ok(stored)
    }

    fn length(&self, digest: Digest) -> Result<Option<u64>, Error> {
        match self.near.length(digest) {
            Ok(Some(length)) => Ok(Some(length)),
            _ => self.far.length(digest),
        }
    }

    fn list(&self, page: &Page) -> Result<Vec<Entry>, Error> {
        self.far.list(page)
    }

    fn remove(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let removed = self.far.remove(digests)?;
        let mut removals = self.removals.write().unwrap_or_else(PoisonError::into_inner);
        *removals += 1;
        self.near.remove(digests)?;
        Ok(removed)
    }

    fn verify(&self, from: Option<&Cursor>) -> Result<Verified, Error> {
        self.near.verify(from)
    }

    fn repair(&self, damage: &[Damage]) -> Result<(), Error> {
        self.near.repair(damage)
    }

    fn stats(&self) -> Result<Stats, Error> {
        self.near.stats()
    }

    fn health(&self) -> Result<(), Error> {
        self.near.health()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;

    fn upstream(near: Memory, far: Memory) -> (Upstream, Arc<std::sync::Mutex<Vec<StoreEvent>>>) {
        let said = Arc::new(std::sync::Mutex::new(Vec::new()));
        let notes = said.clone();
        let notes: EventSink = Arc::new(move |note| notes.lock().unwrap().push(note));
        (Upstream::new(Arc::new(near), Arc::new(far), notes), said)
    }

    fn full() -> Error {
        Error::Full("/near".into())
    }

    #[test]
    fn what_a_removal_crossed_is_not_kept() {
        let (messages, _) = upstream(Memory::default(), Memory::default());
        let foo = Digest::of(b"foo");
        let then = messages.removals();
        messages.remove(&[foo]).unwrap();
        messages.keep(vec![b"foo".to_vec()], then);
        assert_eq!(messages.near.has(&[foo]).unwrap(), [false]);
        messages.keep(vec![b"foo".to_vec()], messages.removals());
        assert_eq!(messages.near.has(&[foo]).unwrap(), [true]);
    }

    #[test]
    fn what_cannot_be_kept_is_said_and_served() {
        let (messages, said) = upstream(Memory::failing(full()), Memory::default());
        let receipt = messages.put(vec![b"foo".to_vec()]).unwrap()[0];
        assert_eq!(messages.get_one(receipt.digest).unwrap().unwrap(), b"foo");
        assert_eq!(said.lock().unwrap().len(), 2);
        assert!(messages.remove(&[receipt.digest]).is_err(), "nobody knows whether it is gone near");
    }

    #[test]
    fn nothing_is_acknowledged_or_kept_that_the_far_one_did_not_take() {
        let (messages, _) = upstream(Memory::default(), Memory::failing(full()));
        assert!(messages.put(vec![b"foo".to_vec()]).is_err());
        assert_eq!(messages.near.has(&[Digest::of(b"foo")]).unwrap(), [false]);
        assert!(messages.get_one(Digest::of(b"foo")).is_err(), "nobody knows whether it is absent");
    }

    #[test]
    fn what_is_corrupt_here_and_nowhere_else_is_said() {
        let near = Memory::default();
        near.spoil(b"foo");
        let (messages, _) = upstream(near, Memory::default());
        assert!(matches!(messages.get_one(Digest::of(b"foo")), Err(Error::Corrupt(_))));
    }
}
