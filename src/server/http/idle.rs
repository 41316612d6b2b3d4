//! Idle connections, watched by one one-shot epoll instance, so an idle connection occupies no thread. A readable
//! connection is returned to one thread only, and is not watched again before it is parked again.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::io::Errno;

use crate::server::poll::poll_fd;

/// Epoll token of the shutdown descriptor. All other tokens are connection ids.
const SHUTDOWN_TOKEN: u64 = u64::MAX;
/// Delay after an unexpected error of `epoll_wait`.
const EPOLL_BACKOFF: Duration = Duration::from_millis(5);

/// Set of idle connections.
pub(super) struct IdlePoller<T> {
    epoll: OwnedFd,
    /// An eventfd, which becomes readable when the poller is closed.
    shutdown: OwnedFd,
    parked: Mutex<HashMap<u64, (Instant, T)>>,
}

impl<T: AsFd> IdlePoller<T> {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let shutdown = eventfd(0, EventfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &shutdown, EventData::new_u64(SHUTDOWN_TOKEN), EventFlags::IN)?;
        Ok(Self { epoll, shutdown, parked: Mutex::default() })
    }

    /// Watches the connection until it is readable. After `deadline`, it is [expired](IdlePoller::take_expired). On
    /// error, the connection is dropped.
    pub(super) fn park(&self, id: u64, connection: T, deadline: Instant) -> io::Result<()> {
        let mut parked = self.parked.lock();
        let (_, connection) = parked.entry(id).insert_entry((deadline, connection)).into_mut();
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ONESHOT;
        let registered = match epoll::modify(&self.epoll, &*connection, EventData::new_u64(id), flags) {
            Err(Errno::NOENT) => epoll::add(&self.epoll, &*connection, EventData::new_u64(id), flags),
            result => result,
        };
        if registered.is_err() {
            parked.remove(&id);
        }
        Ok(registered?)
    }

    /// Blocks until a connection is readable and returns it. `None`: the poller is closed.
    pub(super) fn wait_readable(&self) -> Option<T> {
        loop {
            let mut event = [Event { flags: EventFlags::empty(), data: EventData::new_u64(SHUTDOWN_TOKEN) }];
            match epoll::wait(&self.epoll, &mut event, None) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) if event[0].data.u64() == SHUTDOWN_TOKEN => return None,
                Ok(_) => {
                    // The connection may have been removed as expired meanwhile.
                    if let Some((_, connection)) = self.parked.lock().remove(&event[0].data.u64()) {
                        return Some(connection);
                    }
                }
                Err(_) => thread::sleep(EPOLL_BACKOFF),
            }
        }
    }

    /// Removes and returns the connections whose deadline is not after `now`, except those that are readable.
    pub(super) fn take_expired(&self, now: Instant) -> Vec<T> {
        let is_idle = |connection: &T| matches!(poll_fd(connection, PollFlags::IN, Some(Duration::ZERO)), Ok(false));
        let is_expired = |(deadline, connection): &mut (Instant, T)| *deadline <= now && is_idle(connection);
        self.parked.lock().extract_if(|_, entry| is_expired(entry)).map(|(_, (_, connection))| connection).collect()
    }

    /// Makes current and future calls of [`IdlePoller::wait_readable`] return `None`.
    pub(super) fn close(&self) {
        rustix::io::write(&self.shutdown, &1_u64.to_ne_bytes()).expect("an eventfd can be written");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

    #[test]
    fn a_readable_connection_is_returned_once_and_again_after_it_was_parked() {
        let poller = IdlePoller::new().unwrap();
        let (server, mut client) = UnixStream::pair().unwrap();
        let (idle, _peer) = UnixStream::pair().unwrap();
        let deadline = Instant::now() + IDLE_TIMEOUT;
        poller.park(0, idle, deadline).unwrap();
        poller.park(1, server, deadline).unwrap();
        client.write_all(b"a").unwrap();
        let connection = poller.wait_readable().unwrap();
        // Unread data makes the connection readable again.
        poller.park(1, connection, deadline).unwrap();
        let connection = poller.wait_readable().unwrap();
        client.write_all(b"b").unwrap();
        poller.close();
        assert!(poller.wait_readable().is_none(), "only parked connections are watched");
        drop(connection);
    }

    #[test]
    fn a_closed_connection_is_returned_as_readable() {
        let poller = IdlePoller::new().unwrap();
        let (server, client) = UnixStream::pair().unwrap();
        poller.park(7, server, Instant::now() + IDLE_TIMEOUT).unwrap();
        drop(client);
        assert!(poller.wait_readable().is_some());
    }

    #[test]
    fn only_expired_connections_without_unread_data_are_taken_out() {
        let poller = IdlePoller::new().unwrap();
        let now = Instant::now();
        let pairs: Vec<_> = (0..4).map(|_| UnixStream::pair().unwrap()).collect();
        let mut client = Vec::new();
        for (id, (server, peer)) in (0..).zip(pairs) {
            poller.park(id, server, now + IDLE_TIMEOUT * u32::try_from(id).unwrap()).unwrap();
            client.push(peer);
        }
        client[1].write_all(b"in time, and not served yet").unwrap();
        assert_eq!(poller.take_expired(now + 2 * IDLE_TIMEOUT).len(), 2);
        client[0].write_all(b"late").unwrap_err();
        client[2].write_all(b"late").unwrap_err();
        assert!(poller.wait_readable().is_some());
        assert!(poller.parked.lock().keys().eq(&[3]));
    }
}
