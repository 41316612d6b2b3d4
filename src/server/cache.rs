//! Replies that may be sent again as they are, by what they depend on. Bounded by weight.
//! What was forgotten does not come back: a reply made before [`HotCache::invalidate`] is not kept after it.

use std::sync::{Arc, PoisonError, RwLock};

use quick_cache::{Weighter, sync};

use super::api::{Representation, Response};
use crate::digest::Digest;

/// What an immutable reply depends on.
pub(super) type CacheKey = (Digest, Representation);

/// Keeps immutable replies.
pub(super) struct HotCache {
    /// `None` keeps nothing.
    entries: Option<sync::Cache<CacheKey, Arc<Response>, ResponseWeighter>>,
    /// How often something was forgotten.
    generation: RwLock<u64>,
}

/// When a reply was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Generation(u64);

#[derive(Clone)]
struct ResponseWeighter;

impl Weighter<CacheKey, Arc<Response>> for ResponseWeighter {
    fn weight(&self, _: &CacheKey, reply: &Arc<Response>) -> u64 {
        // The constant stands for the key, the reply's own fields and the table.
        (reply.body.capacity() + reply.raw_headers.capacity() + 256) as u64
    }
}

impl HotCache {
    /// Keeps at most about `bytes`; none if that is 0.
    pub(super) fn new(bytes: u64) -> Self {
        let usual = usize::try_from(bytes / 1024).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let kept = (bytes > 0).then(|| sync::Cache::with_weighter(usual, bytes, ResponseWeighter));
        Self { entries: kept, generation: RwLock::new(0) }
    }

    /// The reply for `key`, if it is kept.
    pub(super) fn get(&self, key: &CacheKey) -> Option<Arc<Response>> {
        self.entries.as_ref()?.get(key)
    }

    /// Marks the moment before a reply is asked for, to be handed to [`HotCache::insert_if_current`].
    pub(super) fn generation(&self) -> Generation {
        Generation(*self.generation.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps `reply`, unless something was forgotten since it was asked for.
    pub(super) fn insert_if_current(&self, key: CacheKey, reply: &Arc<Response>, asked: Generation) {
        let Some(kept) = &self.entries else { return };
        let epoch = self.generation.read().unwrap_or_else(PoisonError::into_inner);
        if *epoch == asked.0 {
            kept.insert(key, Arc::clone(reply));
        }
    }

    /// Forgets all that was kept of `digest`. To be called after it is gone from the store, before that is said.
    pub(super) fn invalidate(&self, digest: Digest) {
        let mut epoch = self.generation.write().unwrap_or_else(PoisonError::into_inner);
        *epoch += 1;
        let Some(kept) = &self.entries else { return };
        for form in [Representation::Json, Representation::Bytes] {
            kept.remove(&(digest, form));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(message: &[u8]) -> (CacheKey, Arc<Response>) {
        (
            (Digest::compute(message), Representation::Bytes),
            Arc::new(Response::new(200, "text/plain", message.to_vec())),
        )
    }

    #[test]
    fn an_entry_is_found_until_it_is_invalidated() {
        let cache = HotCache::new(1 << 20);
        let (key, reply) = entry(b"foo");
        cache.insert_if_current(key, &reply, cache.generation());
        assert_eq!(cache.get(&key), Some(reply));
        assert_eq!(cache.get(&(key.0, Representation::Json)), None);
        cache.invalidate(key.0);
        assert_eq!(cache.get(&key), None);
    }

    #[test]
    fn a_response_requested_before_an_invalidation_is_not_inserted() {
        let cache = HotCache::new(1 << 20);
        let (key, reply) = entry(b"foo");
        let asked = cache.generation();
        cache.invalidate(key.0);
        cache.insert_if_current(key, &reply, asked);
        assert_eq!(cache.get(&key), None);
    }

    #[test]
    fn the_total_weight_is_bounded() {
        let cache = HotCache::new(1 << 16);
        for number in 0..1000_u32 {
            let (key, reply) = entry(&[&number.to_be_bytes()[..], &[0; 1000]].concat());
            cache.insert_if_current(key, &reply, cache.generation());
        }
        assert!(cache.entries.as_ref().unwrap().weight() <= 1 << 16);
        let (key, reply) = entry(&vec![0; 1 << 17]);
        cache.insert_if_current(key, &reply, cache.generation());
        assert_eq!(cache.get(&key), None);
    }

    #[test]
    fn a_cache_of_size_zero_holds_no_entries() {
        let cache = HotCache::new(0);
        let (key, reply) = entry(b"foo");
        cache.insert_if_current(key, &reply, cache.generation());
        assert_eq!(cache.get(&key), None);
        cache.invalidate(key.0);
    }
}
