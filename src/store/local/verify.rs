//! Verification, step by step: first the log from front to back, each record hashed again on all cores and compared
//! with the index; then the index from first to last, each entry compared with the log.

mod window;

use std::io;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Core;
use crate::digest::{Digest, Prefix};
use crate::messages::{Cursor, Damage, Error, Page, Verified};
use crate::store::log::Point;
use crate::wire::rfc3339;
use window::Window;

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
