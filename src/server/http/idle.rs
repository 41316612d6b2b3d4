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

use crate::server::poll::poll_fd;

/// What stands for the end, where others have their names.
const SHUTDOWN_TOKEN: u64 = u64::MAX;
/// After an error of `epoll_wait`, which has none when it is used as here.
const EPOLL_BACKOFF: Duration = Duration::from_millis(5);

/// Clients at rest.
pub(super) struct IdlePoller<T> {
    epoll: OwnedFd,
    /// Closing this end sends away all who wait for a client.
    shutdown_tx: Mutex<Option<UnixStream>>,
    _shutdown_rx: UnixStream,
    parked: Mutex<HashMap<u64, (Instant, T)>>,
}

impl<T: AsFd> IdlePoller<T> {
    /// Nobody rests yet.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let (open, end) = UnixStream::pair()?;
        epoll::add(&epoll, &end, EventData::new_u64(SHUTDOWN_TOKEN), EventFlags::IN)?;
        Ok(Self { epoll, shutdown_tx: Mutex::new(Some(open)), _shutdown_rx: end, parked: Mutex::default() })
    }

    /// From now on the client of this name rests, at the longest until `until` or a little longer.
    pub(super) fn park(&self, id: u64, connection: T, deadline: Instant) -> io::Result<()> {
        let mut resting = self.lock();
        let (_, connection) = resting.entry(id).insert_entry((deadline, connection)).into_mut();
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ONESHOT;
        let watched = match epoll::modify(&self.epoll, &*connection, EventData::new_u64(id), flags) {
            Err(Errno::NOENT) => epoll::add(&self.epoll, &*connection, EventData::new_u64(id), flags),
            other => other,
        };
        if watched.is_err() {
            resting.remove(&id);
        }
        Ok(watched?)
    }

    /// Waits for a client to wake up. `None`: there will be no more.
    pub(super) fn wait_readable(&self) -> Option<T> {
        loop {
            let mut event = [Event { flags: EventFlags::empty(), data: EventData::new_u64(SHUTDOWN_TOKEN) }];
            match epoll::wait(&self.epoll, &mut event, None) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) if event[0].data.u64() == SHUTDOWN_TOKEN => return None,
                Ok(_) => {
                    // It is gone if its time was up at the same moment.
                    if let Some((_, client)) = self.lock().remove(&event[0].data.u64()) {
                        return Some(client);
                    }
                }
                Err(_) => thread::sleep(EPOLL_BACKOFF),
            }
        }
    }

    /// Takes out who has rested for too long at `now`. Who has woken up and is not served yet does not rest.
    pub(super) fn take_expired(&self, now: Instant) -> Vec<T> {
        let rests = |client: &T| matches!(poll_fd(client, PollFlags::IN, Some(Duration::ZERO)), Ok(false));
        let overdue = |(until, client): &mut (Instant, T)| *until <= now && rests(client);
        self.lock().extract_if(|_, entry| overdue(entry)).map(|(_, (_, client))| client).collect()
    }

    /// Sends away who waits for clients, now and later.
    pub(super) fn close(&self) {
        drop(self.shutdown_tx.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Instant, T)>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

    #[test]
    fn a_readable_connection_is_returned_once_and_again_after_it_was_parked() {
        let lounge = IdlePoller::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (quiet, _other) = UnixStream::pair().unwrap();
        let later = Instant::now() + IDLE_TIMEOUT;
        lounge.park(0, quiet, later).unwrap();
        lounge.park(1, ours, later).unwrap();
        theirs.write_all(b"a").unwrap();
        let woken = lounge.wait_readable().unwrap();
        // What it has not read wakes it up again.
        lounge.park(1, woken, later).unwrap();
        let woken = lounge.wait_readable().unwrap();
        theirs.write_all(b"b").unwrap();
        lounge.close();
        assert!(lounge.wait_readable().is_none(), "who does not rest is not watched");
        drop(woken);
    }

    #[test]
    fn a_closed_connection_is_returned_as_readable() {
        let lounge = IdlePoller::new().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        lounge.park(7, ours, Instant::now() + IDLE_TIMEOUT).unwrap();
        drop(theirs);
        assert!(lounge.wait_readable().is_some());
    }

    #[test]
    fn only_expired_connections_without_unread_data_are_taken_out() {
        let lounge = IdlePoller::new().unwrap();
        let now = Instant::now();
        let pairs: Vec<_> = (0..4).map(|_| UnixStream::pair().unwrap()).collect();
        let mut theirs = Vec::new();
        for (name, (ours, other)) in (0..).zip(pairs) {
            lounge.park(name, ours, now + IDLE_TIMEOUT * u32::try_from(name).unwrap()).unwrap();
            theirs.push(other);
        }
        theirs[1].write_all(b"in time, and not served yet").unwrap();
        assert_eq!(lounge.take_expired(now + 2 * IDLE_TIMEOUT).len(), 2);
        theirs[0].write_all(b"late").unwrap_err();
        theirs[2].write_all(b"late").unwrap_err();
        assert!(lounge.wait_readable().is_some());
        assert!(lounge.lock().keys().eq(&[3]));
    }
}
