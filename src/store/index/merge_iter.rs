//! Merges sorted sources of entries into one sorted sequence. If several sources have an entry of a digest, only the
//! entry of the newest source is returned.

use super::block::IndexEntry;
use super::error::IndexError;

/// A sorted sequence of entries that may end with an error.
type Source<'a> = Box<dyn Iterator<Item = Result<IndexEntry, IndexError>> + 'a>;

/// The merged entries. Ends after the first error.
pub struct MergeIter<'a> {
    /// The sources, newest first, each with its next entry.
    sources: Vec<(Option<IndexEntry>, Source<'a>)>,
    error: Option<IndexError>,
}

impl<'a> MergeIter<'a> {
    /// Merges sorted sources, which are passed newest first.
    pub fn new(sources: impl Iterator<Item = Source<'a>>) -> Self {
        let mut merged = Self { sources: Vec::new(), error: None };
        for mut source in sources {
            let next = merged.advance(&mut source);
            merged.sources.push((next, source));
        }
        merged
    }

    fn advance(&mut self, source: &mut Source<'a>) -> Option<IndexEntry> {
        match source.next()? {
            Ok(entry) => Some(entry),
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}

impl Iterator for MergeIter<'_> {
    type Item = Result<IndexEntry, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.error.take() {
            self.sources.clear();
            return Some(Err(error));
        }
        let next_entries = self.sources.iter().filter_map(|(next, _)| next.as_ref());
        // `min_by_key` returns the first of several equal elements, which is that of the newest source.
        let smallest = *next_entries.min_by_key(|(digest, _)| digest)?;
        let mut sources = std::mem::take(&mut self.sources);
        for (next, source) in &mut sources {
            if next.as_ref().is_some_and(|(digest, _)| *digest == smallest.0) {
                *next = self.advance(source);
            }
        }
        self.sources = sources;
        Some(Ok(smallest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::store::log::{RecordKind, RecordLocation};

    /// Returns an entry without a location if `offset` is 0.
    fn entry(first: u8, offset: u64) -> IndexEntry {
        let location =
            RecordLocation { kind: RecordKind::Message, segment: 1, offset, payload_len: 0, message_len: 0, time: 0 };
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
        let results: Vec<_> = MergeIter::new([newest, broken].into_iter()).collect();
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
    }
}
