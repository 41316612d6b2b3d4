//! The door owns every socket that a stranger can reach, and lets only well-formed requests through.
//! Whatever comes, it goes on accepting: connections are counted before they cost anything, and errors pass.

mod body;
mod client;
mod connection;
mod crew;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod house;
mod line;
mod lounge;
mod pace;
mod reply;
mod request;
mod roster;
mod socket;
mod stream;
pub(super) mod tls;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustls::ServerConfig;

use super::ready::{is_ready, timespec};
use super::service::{Service, Side};
use super::{Limits, note};
use client::Client;
#[cfg(fuzzing)]
pub use fuzz::check_parser;
use house::House;
use roster::Guest;
pub(super) use socket::Listener;
use socket::Socket;
use stream::Stream;

/// After an error of `accept`, doubled up to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// Connections that were turned away and are kept open a moment, so that they see why.
pub(super) const TURNED_AWAY: usize = 64;
const TURNED_AWAY_FOR: Duration = Duration::from_secs(1);
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
    Content-Length: 35\r\nConnection: close\r\n\r\n{\"err_msg\": \"Too many connections\"}";

/// How often at the most it is looked who has rested for too long, as a part of the time that is allowed, and in all.
const LOOKS: u32 = 16;
const LOOK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// An open door.
pub(super) struct Door {
    house: Option<Arc<House>>,
    /// Closing this end stops the accepting.
    waker: Option<UnixStream>,
    acceptor: Option<thread::JoinHandle<()>>,
}

impl Door {
    /// Lets in who comes to `listeners`.
    pub(super) fn open(
        listeners: Vec<Listener>,
        limits: Limits,
        tls: Option<Arc<ServerConfig>>,
        service: Arc<Service>,
        side: Side,
    ) -> io::Result<Self> {
        let house = House::open(limits, service, tls, side)?;
        let (waker, wakened) = UnixStream::pair()?;
        let acceptor = Acceptor::new(listeners, wakened, Arc::clone(&house));
        let thread = thread::Builder::new().name("door".into()).stack_size(house::STACK);
        let acceptor = thread.spawn(move || acceptor.run())?;
        Ok(Self { house: Some(house), waker: Some(waker), acceptor: Some(acceptor) })
    }

    /// Lets nobody in any more, ends idle connections, and calls `when_empty` when all others have ended: nothing here
    /// holds the store any more then.
    pub(super) fn close(&mut self, when_empty: impl FnOnce() + Send + 'static) {
        self.stop_accepting();
        if let Some(house) = self.house.take() {
            house.close(Box::new(when_empty));
        }
    }

    fn stop_accepting(&mut self) {
        drop(self.waker.take());
        if let Some(acceptor) = self.acceptor.take() {
            // It does not panic; if it did, it has stopped as well.
            let _ = acceptor.join();
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop_accepting();
    }
}

struct Acceptor {
    listeners: Vec<Listener>,
    wakened: UnixStream,
    house: Arc<House>,
    back_off: Duration,
    leaving: VecDeque<(Instant, Arc<Socket>)>,
    /// When to look next who has rested for too long. `None`: nobody is there.
    look: Option<Instant>,
}

impl Acceptor {
    const fn new(listeners: Vec<Listener>, wakened: UnixStream, house: Arc<House>) -> Self {
        Self { listeners, wakened, house, back_off: BACK_OFF.0, leaving: VecDeque::new(), look: None }
    }

    fn run(mut self) {
        while let Some(ready) = self.ready() {
            self.forget_the_gone();
            self.end_the_idle();
            for index in ready {
                match self.listeners[index].accept() {
                    Ok(socket) => {
                        self.back_off = BACK_OFF.0;
                        self.receive(Arc::new(socket));
                    }
                    Err(error) if is_passing(&error) => {}
                    Err(error) => self.pause(&error),
                }
            }
        }
    }

    /// Which listeners someone waits at; `None` when it is time to stop.
    fn ready(&self) -> Option<Vec<usize>> {
        let mut polled = vec![PollFd::new(&self.wakened, PollFlags::IN)];
        polled.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        let next = self.leaving.front().map(|(until, _)| *until).into_iter().chain(self.look).min();
        let timeout = next.map(|next| timespec(next.saturating_duration_since(Instant::now())));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) if !polled[0].revents().is_empty() => None,
            Ok(_) => Some((1..polled.len()).filter(|&at| !polled[at].revents().is_empty()).map(|at| at - 1).collect()),
            Err(error) => {
                if error != rustix::io::Errno::INTR {
                    thread::sleep(BACK_OFF.0);
                }
                Some(Vec::new())
            }
        }
    }

    fn receive(&mut self, socket: Arc<Socket>) {
        let Some(guest) = self.admit(&socket) else {
            self.house.service.metrics().refusal();
            self.turn_away(socket);
            return;
        };
        self.look = self.look.or_else(|| Some(self.next_look()));
        // A configuration of TLS that cannot be used was refused at the start.
        let Ok(stream) = Stream::new(socket, self.house.tls.as_ref()) else { return };
        if let Err(error) = self.house.welcome(Box::new(Client::new(stream, guest, &self.house))) {
            self.pause(&error);
        }
    }

    /// A place for a connection, if there is one; at the local door it is waited for.
    fn admit(&self, socket: &Arc<Socket>) -> Option<Guest> {
        loop {
            let guest = self.house.roster.admit(socket);
            if guest.is_some() || self.house.side != Side::Local || self.is_woken_within(BACK_OFF.0) {
                return guest;
            }
        }
    }

    /// Tells a client that there is no room, without waiting for it. A client of TLS just sees the end.
    fn turn_away(&mut self, socket: Arc<Socket>) {
        if self.house.tls.is_some() || socket.dismiss(FULL).is_err() {
            return;
        }
        if self.leaving.len() == TURNED_AWAY {
            self.leaving.pop_front();
        }
        self.leaving.push_back((Instant::now() + TURNED_AWAY_FOR, socket));
    }

    fn forget_the_gone(&mut self) {
        let now = Instant::now();
        while self.leaving.front().is_some_and(|(until, _)| *until <= now) {
            self.leaving.pop_front();
        }
    }

    fn end_the_idle(&mut self) {
        let now = Instant::now();
        if self.look.is_some_and(|look| look <= now) {
            self.house.lounge.overdue(now).iter_mut().for_each(|client| client.leave());
            self.look = (!self.house.roster.is_empty()).then(|| self.next_look());
        }
    }

    /// In time enough for nobody to rest much longer than allowed.
    fn next_look(&self) -> Instant {
        Instant::now() + (self.house.limits.idle / LOOKS).clamp(LOOK.0, LOOK.1)
    }

    /// Waits for what is short (descriptors, memory, threads) to come back.
    fn pause(&mut self, error: &io::Error) {
        if self.back_off == BACK_OFF.0 {
            note(format_args!("cannot take a connection, trying on: {error}"));
        }
        self.is_woken_within(self.back_off);
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
    }

    /// Waits for so long, or until it is time to stop, and tells whether it is.
    fn is_woken_within(&self, time: Duration) -> bool {
        is_ready(&self.wakened, PollFlags::IN, Some(time)).unwrap_or(false)
    }
}

/// Whether `accept` failed only for one connection that is gone again.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use super::FULL;

    #[test]
    fn the_words_for_a_full_house_are_as_long_as_they_say() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
