//! Replies that may be sent again as they are, by what they depend on. Bounded by weight.
//! What was forgotten does not come back: a reply made before [`Cache::forget`] is not kept after it.

use std::sync::{Arc, PoisonError, RwLock};

use quick_cache::{Weighter, sync};

use super::api::{Form, Reply};
use crate::digest::Digest;

/// What an immutable reply depends on.
pub(super) type Key = (Digest, Form);

/// Keeps immutable replies.
pub(super) struct Cache {
    /// `None` keeps nothing.
    kept: Option<sync::Cache<Key, Arc<Reply>, Weight>>,
    /// How often something was forgotten.
    epoch: RwLock<u64>,
}

/// When a reply was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked(u64);

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Arc<Reply>> for Weight {
    fn weight(&self, _: &Key, reply: &Arc<Reply>) -> u64 {
        // The constant stands for the key, the reply's own fields and the table.
        (reply.body.capacity() + reply.fields.capacity() + 256) as u64
    }
}

impl Cache {
    /// Keeps at most about `bytes`; none if that is 0.
    pub(super) fn new(bytes: u64) -> Self {
        let usual = usize::try_from(bytes / 1024).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let kept = (bytes > 0).then(|| sync::Cache::with_weighter(usual, bytes, Weight));
        Self { kept, epoch: RwLock::new(0) }
    }

    /// The reply for `key`, if it is kept.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<Reply>> {
        self.kept.as_ref()?.get(key)
    }

    /// Marks the moment before a reply is asked for, to be handed to [`Cache::keep`].
    pub(super) fn now(&self) -> Asked {
        Asked(*self.epoch.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps `reply`, unless something was forgotten since it was asked for.
    pub(super) fn keep(&self, key: Key, reply: &Arc<Reply>, asked: Asked) {
        let Some(kept) = &self.kept else { return };
        let epoch = self.epoch.read().unwrap_or_else(PoisonError::into_inner);
        if *epoch == asked.0 {
            kept.insert(key, Arc::clone(reply));
        }
    }

    /// Forgets all that was kept of `digest`. To be called after it is gone from the store, before that is said.
    pub(super) fn forget(&self, digest: Digest) {
        let mut epoch = self.epoch.write().unwrap_or_else(PoisonError::into_inner);
        *epoch += 1;
        let Some(kept) = &self.kept else { return };
        for form in [Form::Json, Form::Bytes] {
            kept.remove(&(digest, form));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(message: &[u8]) -> (Key, Arc<Reply>) {
        ((Digest::of(message), Form::Bytes), Arc::new(Reply::new(200, "text/plain", message.to_vec())))
    }

    #[test]
    fn what_was_kept_is_found_until_it_is_forgotten() {
        let cache = Cache::new(1 << 20);
        let (key, reply) = entry(b"foo");
        cache.keep(key, &reply, cache.now());
        assert_eq!(cache.find(&key), Some(reply));
        assert_eq!(cache.find(&(key.0, Form::Json)), None);
        cache.forget(key.0);
        assert_eq!(cache.find(&key), None);
    }

    #[test]
    fn a_reply_made_before_a_forget_is_not_kept_after_it() {
        let cache = Cache::new(1 << 20);
        let (key, reply) = entry(b"foo");
        let asked = cache.now();
        cache.forget(key.0);
        cache.keep(key, &reply, asked);
        assert_eq!(cache.find(&key), None);
    }

    #[test]
    fn the_weight_is_bounded() {
        let cache = Cache::new(1 << 16);
        for number in 0..1000_u32 {
            let (key, reply) = entry(&[&number.to_be_bytes()[..], &[0; 1000]].concat());
            cache.keep(key, &reply, cache.now());
        }
        assert!(cache.kept.as_ref().unwrap().weight() <= 1 << 16);
        let (key, reply) = entry(&vec![0; 1 << 17]);
        cache.keep(key, &reply, cache.now());
        assert_eq!(cache.find(&key), None);
    }

    #[test]
    fn a_cache_of_no_size_keeps_nothing() {
        let cache = Cache::new(0);
        let (key, reply) = entry(b"foo");
        cache.keep(key, &reply, cache.now());
        assert_eq!(cache.find(&key), None);
        cache.forget(key.0);
    }
}
