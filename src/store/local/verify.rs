//! Verification, step by step: first the log from front to back, each record hashed again on all cores and compared
//! with the index; then the index from first to last, each entry compared with the log.

use std::io;
use std::path::Path;
use std::thread;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Core;
use crate::digest::{Digest, Prefix};
use crate::messages::{Cursor, Damage, Error, Page, Verified};
use crate::store::log::{self, FIRST_RECORD, Header, Point, Position};
use crate::wire::rfc3339;

/// Bytes of the log that a step reads, unless one record alone is longer.
const WINDOW: usize = 32 << 20;
/// Entries of the index that a step looks at.
const ENTRIES: usize = 1 << 14;

const NOTHING: Verified = Verified { next: None, messages: 0, bytes: 0, done: 0, total: 0, damage: Vec::new() };

/// When everything was last verified to the end, and what was found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Last {
    #[serde(with = "rfc3339")]
    pub time: SystemTime,
    pub damaged: u64,
}

/// How far a verification is, and how much damage it found up to there.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Progress {
    at: At,
    damaged: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum At {
    Log(Point),
    Index(Option<Digest>),
}

/// What the last verification found, if there was one.
pub fn last(store: &Path) -> Option<Last> {
    serde_json::from_slice(&std::fs::read(store.join("verified")).ok()?).ok()
}

/// See [`crate::messages::Messages::verify`].
pub fn step(core: &Core, from: Option<&Cursor>) -> Result<Verified, Error> {
    let start = Progress { at: At::Log(Point::START), damaged: 0 };
    let parse = |cursor: &Cursor| serde_json::from_str(&cursor.0);
    let foreign = |_| Error::Unusable("it is not known where to go on with verifying; begin anew".to_owned());
    let Progress { at, damaged } = from.map_or(Ok(start), parse).map_err(foreign)?;
    let (mut verified, next) = match at {
        At::Log(point) => {
            let mut window = Window::new(core, point);
            let next = window.read().map_err(|why| core.unreadable(point.segment, why))?;
            (window.compare()?, Some(next.map_or(At::Index(None), At::Log)))
        }
        At::Index(after) => verify_entries(core, after)?,
    };
    let failed = |why| Error::io(format!("cannot read the log of {}", core.path.display()), why);
    (verified.done, verified.total) = progress(core, next).map_err(failed)?;
    let damaged = damaged + verified.damage.len() as u64;
    match next {
        Some(at) => {
            let progress = Progress { at, damaged };
            verified.next = Some(Cursor(serde_json::to_string(&progress).expect("it is plain data")));
        }
        None => {
            let last = Last { time: SystemTime::now(), damaged };
            // Only what `stats` tells: a disk that is full takes nothing from the verification.
            let _ = std::fs::write(core.path.join("verified"), serde_json::to_vec(&last).expect("it is plain data"));
        }
    }
    Ok(verified)
}

/// How much of the log is read by then, and how much there is.
fn progress(core: &Core, next: Option<At>) -> io::Result<(u64, u64)> {
    let (mut done, mut total) = (0, 0);
    for number in core.log.numbers() {
        let length = core.log.length(number)?.unwrap_or(0);
        total += length;
        done += match next {
            Some(At::Log(point)) if number > point.segment => 0,
            Some(At::Log(point)) if number == point.segment => point.offset.min(length),
            _ => length,
        };
    }
    Ok((done, total))
}

/// Part of a segment, in memory.
struct Window<'a> {
    core: &'a Core,
    start: Point,
    bytes: Vec<u8>,
    /// Whether the segment ends with it.
    is_last: bool,
    /// Each with where it begins in `bytes`.
    records: Vec<(Header, usize)>,
    gaps: Vec<Damage>,
}

impl<'a> Window<'a> {
    fn new(core: &'a Core, start: Point) -> Self {
        Self { core, start, bytes: Vec::new(), is_last: true, records: Vec::new(), gaps: Vec::new() }
    }

    /// Reads the window and finds its records; answers where the next one begins.
    fn read(&mut self) -> io::Result<Option<Point>> {
        let (log, Point { segment, offset }) = (&self.core.log, self.start);
        let end = log.end();
        let limit = if segment == end.segment { Some(end.offset) } else { log.length(segment)? };
        let left = usize::try_from(limit.unwrap_or(0).saturating_sub(offset)).unwrap_or(usize::MAX);
        let first = log.bytes(segment, offset, log::HEADER.min(left))?.unwrap_or_default();
        let first = self.decode(&first, 0).map_or(0, |header| usize::try_from(header.size()).unwrap_or(usize::MAX));
        let length = WINDOW.max(first).min(left);
        self.bytes = log.bytes(segment, offset, length)?.unwrap_or_default();
        self.is_last = length == left;
        let at = self.find_records();
        if !self.is_last {
            return Ok(Some(Point { segment, offset: offset + at as u64 }));
        }
        let next = log.numbers().into_iter().find(|number| *number > segment && *number <= end.segment);
        Ok(next.map(|segment| Point { segment, offset: FIRST_RECORD }))
    }

    /// Finds what is in the window; answers how much of it belongs to nothing that goes on behind it.
    fn find_records(&mut self) -> usize {
        let mut at = 0;
        while at < self.bytes.len() {
            let Some(header) = self.decode(&self.bytes, at) else {
                let next = self.next_header(at);
                if next == self.bytes.len() && !self.is_last && at > 0 {
                    return at;
                }
                // Zeros at the end of a segment are space that was made ahead of time.
                if next < self.bytes.len() || self.bytes[at..].iter().any(|byte| *byte != 0) {
                    let offset = self.start.offset + at as u64;
                    self.gaps.push(Damage::Gap { segment: self.start.segment, offset, length: (next - at) as u64 });
                }
                at = next;
                continue;
            };
            let size = usize::try_from(header.size()).unwrap_or(usize::MAX);
            let is_cut = size > self.bytes.len() - at;
            if is_cut && !self.is_last {
                return at;
            }
            self.records.push((header, at));
            at += if is_cut { log::HEADER } else { size };
        }
        at
    }

    /// Where the next header begins behind `at`, or the end.
    fn next_header(&self, at: usize) -> usize {
        let mut candidates = (at + log::ALIGN..self.bytes.len()).step_by(log::ALIGN);
        candidates.find(|at| self.decode(&self.bytes, *at).is_some()).unwrap_or(self.bytes.len())
    }

    fn decode(&self, bytes: &[u8], at: usize) -> Option<Header> {
        self.core.log.decode(bytes.get(at..)?, self.start.segment, self.start.offset + at as u64)
    }

    /// Hashes what was found and compares it with the index; on all cores.
    fn compare(&self) -> Result<Verified, Error> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // Shares of about as many bytes: whoever hashes has most to do with those.
        let share = self.bytes.len() / cores + 1;
        let mut shares = vec![0];
        for (index, (_, at)) in self.records.iter().enumerate() {
            if *at >= share * shares.len() {
                shares.push(index);
            }
        }
        shares.push(self.records.len());
        let found: Result<Vec<_>, Error> = thread::scope(|scope| {
            let compare = |share: &[usize]| self.compare_share(&self.records[share[0]..share[1]]);
            let threads: Vec<_> = shares.windows(2).map(|share| scope.spawn(move || compare(share))).collect();
            threads.into_iter().map(|thread| thread.join().expect("comparing does not panic")).collect()
        });
        let mut verified = Verified { damage: self.gaps.clone(), ..NOTHING };
        for share in found? {
            verified.messages += share.messages;
            verified.bytes += share.bytes;
            verified.damage.extend(share.damage);
        }
        Ok(verified)
    }

    fn compare_share(&self, records: &[(Header, usize)]) -> Result<Verified, Error> {
        let mut verified = NOTHING;
        for (header, at) in records {
            let (digest, stored) = (header.digest, self.stored(header, *at));
            let position = Position::of(header, self.start.segment, self.start.offset + *at as u64, stored);
            let is_whole = log::is_whole(header, stored);
            match self.core.index.find(&digest)? {
                Some(known) if known == position && !is_whole => verified.damage.push(Damage::Corrupt { digest }),
                Some(known) if known == position && position.is_message() => {
                    verified.messages += 1;
                    verified.bytes += u64::from(position.length);
                }
                // It was removed, stored anew, or moved.
                Some(known) if known.point() >= position.point() => {}
                _ if self.core.log.length(position.segment).is_ok_and(|length| length.is_none()) => {}
                _ if is_whole && position.is_message() => verified.damage.push(Damage::Unindexed { digest }),
                _ => {}
            }
        }
        Ok(verified)
    }

    /// The bytes behind a header, fewer where the segment ends.
    fn stored(&self, header: &Header, at: usize) -> &[u8] {
        let from = at + log::HEADER;
        &self.bytes[from.min(self.bytes.len())..(from + header.stored() as usize).min(self.bytes.len())]
    }
}

/// Compares entries of the index with the log; answers where to go on.
fn verify_entries(core: &Core, after: Option<Digest>) -> Result<(Verified, Option<At>), Error> {
    let mut entries = core.index.page(&Page { prefix: Prefix::ALL, after, limit: ENTRIES })?;
    let next = entries.last().map(|(digest, _)| At::Index(Some(*digest)));
    // In the order of the log, so that they are read from front to back.
    entries.sort_unstable_by_key(|(_, position)| position.point());
    let mut damage = Vec::new();
    for (digest, position) in entries {
        // It may have been moved or removed in the meantime.
        if !core.has_header(&digest, &position)? && core.index.find(&digest)? == Some(position) {
            damage.push(Damage::Lost { digest });
        }
    }
    Ok((Verified { damage, ..NOTHING }, next))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::store::Backend;
    use crate::store::local::commit::Change;
    use crate::store::local::{Local, Options};

    fn open(dir: &Path) -> Local {
        let options = Options {
            path: dir.to_owned(),
            create: true,
            wait: Duration::ZERO,
            me: "a test".to_owned(),
            index_cache: 1 << 20,
            segment_size: 1 << 30,
            compression: None,
            notes: Arc::new(|_| ()),
        };
        Local::open(&options).unwrap()
    }

    #[test]
    fn a_message_that_the_index_does_not_know_is_found_and_made_known() {
        let dir = tempfile::tempdir().unwrap();
        let local = open(dir.path());
        let messages = [b"foo".to_vec(), b"bar".to_vec()];
        local.put(messages.iter().map(|message| (Digest::of(message), message.clone())).collect()).unwrap();
        let digest = Digest::of(b"foo");
        let position = local.core.index.get(&digest).unwrap().unwrap();
        local.core.carry_out(Change::Forget(vec![(digest, position)])).unwrap();
        assert_eq!(local.get(&[digest]).unwrap(), [None]);
        let found = local.verify(None).unwrap();
        assert_eq!((found.messages, found.damage.as_slice()), (1, [Damage::Unindexed { digest }].as_slice()));
        local.repair(&found.damage).unwrap();
        assert_eq!(local.get(&[digest]).unwrap(), [Some(b"foo".to_vec())]);
        assert_eq!(local.verify(None).unwrap().damage, []);
        assert_eq!(local.stats().unwrap().messages, 2);
    }

    #[test]
    fn a_repair_of_any_segment_leaves_the_last_one_to_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let local = open(dir.path());
        let put = |message: &[u8]| local.put(vec![(Digest::of(message), message.to_vec())]).unwrap();
        put(b"foo");
        let gap = |segment| Damage::Gap { segment, offset: 64, length: 8 };
        local.repair(&[gap(1), gap(2), gap(2), gap(3)]).unwrap();
        local.repair(&[gap(2), gap(3), gap(4)]).unwrap();
        put(b"bar");
        drop(local);
        let local = open(dir.path());
        for message in [b"foo", b"bar"] {
            assert_eq!(local.get(&[Digest::of(message)]).unwrap(), [Some(message.to_vec())]);
        }
    }
}
