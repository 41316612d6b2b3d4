//! Where clients rest between two requests. One epoll watches over all of them, so who rests takes no thread.
//! A client that wakes up goes to one thread only, and is watched no more until it rests again.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::server::ready::is_ready;

/// What stands for the end, where others have their names.
const END: u64 = u64::MAX;
/// After an error of `epoll_wait`, which has none when it is used as here.
const BACK_OFF: Duration = Duration::from_millis(5);

/// Clients at rest.
pub(super) struct Lounge<T> {
    epoll: OwnedFd,
    /// Closing this end sends away all who wait for a client.
    open: Mutex<Option<UnixStream>>,
    _end: UnixStream,
    resting: Mutex<HashMap<u64, (Instant, T)>>,
}

impl<T: AsFd> Lounge<T> {
    /// Nobody rests yet.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let (open, end) = UnixStream::pair()?;
        epoll::add(&epoll, &end, EventData::new_u64(END), EventFlags::IN)?;
        Ok(Self { epoll, open: Mutex::new(Some(open)), _end: end, resting: Mutex::default() })
    }

    /// From now on the client of this name rests, at the longest until `until` or a little longer.
    pub(super) fn rest(&self, name: u64, client: T, until: Instant) -> io::Result<()> {
        let mut resting = self.lock();
        let (_, client) = resting.entry(name).insert_entry((until, client)).into_mut();
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ONESHOT;
        let watched = match epoll::modify(&self.epoll, &*client, EventData::new_u64(name), flags) {
            Err(Errno::NOENT) => epoll::add(&self.epoll, &*client, EventData::new_u64(name), flags),
            other => other,
        };
        if watched.is_err() {
            resting.remove(&name);
        }
        Ok(watched?)
    }

    /// Waits for a client to wake up. `None`: there will be no more.
    pub(super) fn next(&self) -> Option<T> {
        loop {
            let mut event = [Event { flags: EventFlags::empty(), data: EventData::new_u64(END) }];
            match epoll::wait(&self.epoll, &mut event, None) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) if event[0].data.u64() == END => return None,
                Ok(_) => {
                    // It is gone if its time was up at the same moment.
                    if let Some((_, client)) = self.lock().remove(&event[0].data.u64()) {
                        return Some(client);
                    }
                }
                Err(_) => thread::sleep(BACK_OFF),
            }
        }
    }

    /// Takes out who has rested for too long at `now`. Who has woken up and is not served yet does not rest.
    pub(super) fn overdue(&self, now: Instant) -> Vec<T> {
        let rests = |client: &T| matches!(is_ready(client, PollFlags::IN, Some(Duration::ZERO)), Ok(false));
        let overdue = |(until, client): &mut (Instant, T)| *until <= now && rests(client);
        self.lock().extract_if(|_, entry| overdue(entry)).map(|(_, (_, client))| client).collect()
    }

    /// Sends away who waits for clients, now and later.
    pub(super) fn close(&self) {
        drop(self.open.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Instant, T)>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn who_wakes_up_is_handed_out_once_and_again_after_it_has_rested() {
        let lounge = Lounge::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (quiet, _other) = UnixStream::pair().unwrap();
        let later = Instant::now() + LONG;
        lounge.rest(0, quiet, later).unwrap();
        lounge.rest(1, ours, later).unwrap();
        theirs.write_all(b"a").unwrap();
        let woken = lounge.next().unwrap();
        // What it has not read wakes it up again.
        lounge.rest(1, woken, later).unwrap();
        let woken = lounge.next().unwrap();
        theirs.write_all(b"b").unwrap();
        lounge.close();
        assert!(lounge.next().is_none(), "who does not rest is not watched");
        drop(woken);
    }

    #[test]
    fn who_goes_away_wakes_up_too() {
        let lounge = Lounge::new().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        lounge.rest(7, ours, Instant::now() + LONG).unwrap();
        drop(theirs);
        assert!(lounge.next().is_some());
    }

    #[test]
    fn only_who_has_rested_too_long_is_taken_out() {
        let lounge = Lounge::new().unwrap();
        let now = Instant::now();
        let pairs: Vec<_> = (0..4).map(|_| UnixStream::pair().unwrap()).collect();
        let mut theirs = Vec::new();
        for (name, (ours, other)) in (0..).zip(pairs) {
            lounge.rest(name, ours, now + LONG * u32::try_from(name).unwrap()).unwrap();
            theirs.push(other);
        }
        theirs[1].write_all(b"in time, and not served yet").unwrap();
        assert_eq!(lounge.overdue(now + 2 * LONG).len(), 2);
        theirs[0].write_all(b"late").unwrap_err();
        theirs[2].write_all(b"late").unwrap_err();
        assert!(lounge.next().is_some());
        assert!(lounge.lock().keys().eq(&[3]));
    }
}
