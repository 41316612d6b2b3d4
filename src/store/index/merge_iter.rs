//! Merges sorted sources of entries into one sorted sequence. If several sources have an entry of a digest, only the
//! entry of the newest source is returned.

use std::iter::Peekable;

use super::block::IndexEntry;
use super::error::IndexError;
use crate::digest::Digest;

/// A sorted sequence of entries that may end with an error.
type Source<'a> = Box<dyn Iterator<Item = Result<IndexEntry, IndexError>> + 'a>;

/// The merged entries. Must not be used after an error.
pub struct MergeIter<'a> {
    /// The sources, newest first.
    sources: Vec<Peekable<Source<'a>>>,
}

impl<'a> MergeIter<'a> {
    /// Merges sorted sources, which are passed newest first.
    pub fn new(sources: impl Iterator<Item = Source<'a>>) -> Self {
        Self { sources: sources.map(Iterator::peekable).collect() }
    }
}

impl Iterator for MergeIter<'_> {
    type Item = Result<IndexEntry, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut smallest: Option<Digest> = None;
        for source in &mut self.sources {
            match source.peek() {
                Some(Ok((digest, _))) if smallest.is_none_or(|smallest| *digest < smallest) => smallest = Some(*digest),
                Some(Err(_)) => return source.next(),
                _ => {}
            }
        }
        let smallest = smallest?;
        let is_smallest = |entry: &Self::Item| entry.as_ref().is_ok_and(|(digest, _)| *digest == smallest);
        // The entries of the other sources are older.
        let newest = &mut self.sources.iter_mut().filter_map(|source| source.next_if(is_smallest));
        let entry = newest.next();
        newest.for_each(drop);
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::log::{RecordLocation, RecordTag};

    /// Returns an entry without a location if `offset` is 0.
    fn entry(first: u8, offset: u64) -> IndexEntry {
        let location =
            RecordLocation { kind: RecordTag::Message, segment: 1, offset, payload_len: 0, message_len: 0, time: 0 };
        (Digest::from_bytes([first; 32]), (offset > 0).then_some(location))
    }

    #[test]
    fn newest_source_wins_and_an_error_ends_the_iteration() {
        let newest = [entry(2, 0), entry(4, 32)];
        let older = [entry(1, 8), entry(2, 16), entry(4, 24), entry(5, 40)];
        let sources =
            || [newest.to_vec(), older.to_vec()].map(|entries| -> Source { Box::new(entries.into_iter().map(Ok)) });
        let all: Vec<_> = MergeIter::new(sources().into_iter()).map(Result::unwrap).collect();
        assert_eq!(all, [entry(1, 8), entry(2, 0), entry(4, 32), entry(5, 40)]);
        let [newest, older] = sources();
        let broken: Source = Box::new(older.take(2).chain([Err(IndexError::corrupt("broken"))]));
        let results: Vec<_> = MergeIter::new([newest, broken].into_iter()).take(3).collect();
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
    }
}
