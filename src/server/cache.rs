//! The hot cache: complete responses of immutable messages, bounded by their size in memory. A response that was
//! requested before [`HotCache::invalidate`] is not inserted after it.

use std::sync::{Arc, PoisonError, RwLock};

use quick_cache::{Weighter, sync};

use super::api::{Representation, Response};
use crate::digest::Digest;

/// Everything that an immutable response depends on.
pub(super) type CacheKey = (Digest, Representation);

/// A cache of immutable responses.
pub(super) struct HotCache {
    /// `None`: the cache is disabled.
    entries: Option<sync::Cache<CacheKey, Arc<Response>, ResponseWeighter>>,
    /// Number of invalidations.
    generation: RwLock<u64>,
}

/// Number of invalidations before a response was requested.
#[derive(Debug, Clone, Copy)]
pub(super) struct Generation(u64);

#[derive(Clone)]
struct ResponseWeighter;

impl Weighter<CacheKey, Arc<Response>> for ResponseWeighter {
    fn weight(&self, _: &CacheKey, response: &Arc<Response>) -> u64 {
        // The constant covers the key, the fields of the response and the hash table.
        (response.body.capacity() + response.raw_headers.capacity() + 256) as u64
    }
}

impl HotCache {
    /// Creates a cache of about `bytes` bytes; 0 disables it.
    pub(super) fn new(bytes: u64) -> Self {
        let expected_entries = usize::try_from(bytes / 1024).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let entries = (bytes > 0).then(|| sync::Cache::with_weighter(expected_entries, bytes, ResponseWeighter));
        Self { entries, generation: RwLock::new(0) }
    }

    /// Returns the response for `key`, if it is cached.
    pub(super) fn get(&self, key: &CacheKey) -> Option<Arc<Response>> {
        self.entries.as_ref()?.get(key)
    }

    /// Returns the current generation. Call it before the response is requested, and pass it to
    /// [`HotCache::insert_if_current`].
    pub(super) fn generation(&self) -> Generation {
        Generation(*self.generation.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Inserts `response`, unless an entry was invalidated since it was `requested`.
    pub(super) fn insert_if_current(&self, key: CacheKey, response: &Arc<Response>, requested: Generation) {
        let Some(entries) = &self.entries else { return };
        let generation = self.generation.read().unwrap_or_else(PoisonError::into_inner);
        if *generation == requested.0 {
            entries.insert(key, Arc::clone(response));
        }
    }

    /// Removes all representations of `digest`. Call it after the message was removed from the store, and before the
    /// removal is acknowledged.
    pub(super) fn invalidate(&self, digest: Digest) {
        let mut generation = self.generation.write().unwrap_or_else(PoisonError::into_inner);
        *generation += 1;
        let Some(entries) = &self.entries else { return };
        for representation in [Representation::Json, Representation::Bytes] {
            entries.remove(&(digest, representation));
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
        let (key, response) = entry(b"foo");
        cache.insert_if_current(key, &response, cache.generation());
        assert_eq!(cache.get(&key), Some(response));
        assert_eq!(cache.get(&(key.0, Representation::Json)), None);
        cache.invalidate(key.0);
        assert_eq!(cache.get(&key), None);
    }

    #[test]
    fn a_response_requested_before_an_invalidation_is_not_inserted() {
        let cache = HotCache::new(1 << 20);
        let (key, response) = entry(b"foo");
        let requested = cache.generation();
        cache.invalidate(key.0);
        cache.insert_if_current(key, &response, requested);
        assert_eq!(cache.get(&key), None);
    }

    #[test]
    fn the_total_weight_is_bounded() {
        let cache = HotCache::new(1 << 16);
        for number in 0..1000_u32 {
            let (key, response) = entry(&[&number.to_be_bytes()[..], &[0; 1000]].concat());
            cache.insert_if_current(key, &response, cache.generation());
        }
        assert!(cache.entries.as_ref().unwrap().weight() <= 1 << 16);
        let (key, response) = entry(&vec![0; 1 << 17]);
        cache.insert_if_current(key, &response, cache.generation());
        assert_eq!(cache.get(&key), None);
    }

    #[test]
    fn a_cache_of_size_zero_holds_no_entries() {
        let cache = HotCache::new(0);
        let (key, response) = entry(b"foo");
        cache.insert_if_current(key, &response, cache.generation());
        assert_eq!(cache.get(&key), None);
        cache.invalidate(key.0);
    }
}
