//! The door owns every socket that a stranger can reach, and lets only well-formed requests through.
//! Whatever comes, it goes on accepting: connections are counted before they cost anything, and errors pass.

mod body;
mod byte_class;
mod connection;
mod deadline;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod idle;
mod reactor;
mod registry;
mod request;
mod request_loop;
mod response;
mod socket;
mod stream;
mod thread_pool;
pub(super) mod tls;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustls::ServerConfig;

use super::app::{App, EndpointKind};
use super::poll::{poll_fd, timespec};
use super::{Limits, warn};
use connection::Connection;
#[cfg(fuzzing)]
pub use fuzz::check_parser;
use reactor::Reactor;
use registry::ConnectionPermit;
pub(super) use socket::Listener;
use socket::Socket;
use stream::Stream;

/// After an error of `accept`, doubled up to the second.
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(5);
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Connections that were turned away and are kept open a moment, so that they see why.
pub(super) const MAX_REJECTED: usize = 64;
const REJECT_LINGER: Duration = Duration::from_secs(1);
const TOO_MANY_CONNECTIONS_RESPONSE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
    Content-Length: 35\r\nConnection: close\r\n\r\n{\"err_msg\": \"Too many connections\"}";

/// How often at the most it is looked who has rested for too long, as a part of the time that is allowed, and in all.
const IDLE_SWEEPS_PER_TIMEOUT: u32 = 16;
const IDLE_SWEEP_MIN: Duration = Duration::from_millis(10);
const IDLE_SWEEP_MAX: Duration = Duration::from_secs(1);

/// An open door.
pub(super) struct Endpoint {
    reactor: Option<Arc<Reactor>>,
    /// Closing this end stops the accepting.
    shutdown_tx: Option<UnixStream>,
    acceptor: Option<thread::JoinHandle<()>>,
}

impl Endpoint {
    /// Lets in who comes to `listeners`.
    pub(super) fn start(
        listeners: Vec<Listener>,
        limits: Limits,
        tls: Option<Arc<ServerConfig>>,
        service: Arc<App>,
        side: EndpointKind,
    ) -> io::Result<Self> {
        let house = Reactor::start(limits, service, tls, side)?;
        let (waker, wakened) = UnixStream::pair()?;
        let acceptor = Acceptor::new(listeners, wakened, Arc::clone(&house));
        let thread = thread::Builder::new().name("http-accept".into()).stack_size(reactor::WORKER_STACK_SIZE);
        let acceptor = thread.spawn(move || acceptor.run())?;
        Ok(Self { reactor: Some(house), shutdown_tx: Some(waker), acceptor: Some(acceptor) })
    }

    /// Lets nobody in any more, ends idle connections, and calls `when_empty` when all others have ended: nothing here
    /// holds the store any more then.
    pub(super) fn shutdown(&mut self, on_drained: impl FnOnce() + Send + 'static) {
        self.stop_accepting();
        if let Some(house) = self.reactor.take() {
            house.shutdown(Box::new(on_drained));
        }
    }

    fn stop_accepting(&mut self) {
        drop(self.shutdown_tx.take());
        if let Some(acceptor) = self.acceptor.take() {
            // It does not panic; if it did, it has stopped as well.
            let _ = acceptor.join();
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop_accepting();
    }
}

struct Acceptor {
    listeners: Vec<Listener>,
    shutdown_rx: UnixStream,
    reactor: Arc<Reactor>,
    backoff_delay: Duration,
    rejected: VecDeque<(Instant, Arc<Socket>)>,
    /// When to look next who has rested for too long. `None`: nobody is there.
    next_sweep: Option<Instant>,
}

impl Acceptor {
    const fn new(listeners: Vec<Listener>, wakened: UnixStream, house: Arc<Reactor>) -> Self {
        Self {
            listeners,
            shutdown_rx: wakened,
            reactor: house,
            backoff_delay: ACCEPT_BACKOFF_MIN,
            rejected: VecDeque::new(),
            next_sweep: None,
        }
    }

    fn run(mut self) {
        while let Some(ready) = self.poll_listeners() {
            self.reap_rejected();
            self.close_expired_idle();
            for index in ready {
                match self.listeners[index].accept() {
                    Ok(socket) => {
                        self.backoff_delay = ACCEPT_BACKOFF_MIN;
                        self.on_accept(Arc::new(socket));
                    }
                    Err(error) if is_transient(&error) => {}
                    Err(error) => self.back_off(&error),
                }
            }
        }
    }

    /// Which listeners someone waits at; `None` when it is time to stop.
    fn poll_listeners(&self) -> Option<Vec<usize>> {
        let mut polled = vec![PollFd::new(&self.shutdown_rx, PollFlags::IN)];
        polled.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        let next = self.rejected.front().map(|(until, _)| *until).into_iter().chain(self.next_sweep).min();
        let timeout = next.map(|next| timespec(next.saturating_duration_since(Instant::now())));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) if !polled[0].revents().is_empty() => None,
            Ok(_) => Some((1..polled.len()).filter(|&at| !polled[at].revents().is_empty()).map(|at| at - 1).collect()),
            Err(error) => {
                if error != rustix::io::Errno::INTR {
                    thread::sleep(ACCEPT_BACKOFF_MIN);
                }
                Some(Vec::new())
            }
        }
    }

    fn on_accept(&mut self, socket: Arc<Socket>) {
        let Some(guest) = self.acquire_permit(&socket) else {
            self.reactor.service.metrics().connection_rejected();
            self.reject(socket);
            return;
        };
        self.next_sweep = self.next_sweep.or_else(|| Some(self.next_sweep_at()));
        // A configuration of TLS that cannot be used was refused at the start.
        let Ok(stream) = Stream::new(socket, self.reactor.tls.as_ref()) else { return };
        if let Err(error) = self.reactor.spawn_handshake(Box::new(Connection::new(stream, guest, &self.reactor))) {
            self.back_off(&error);
        }
    }

    /// A place for a connection, if there is one; at the local door it is waited for.
    fn acquire_permit(&self, socket: &Arc<Socket>) -> Option<ConnectionPermit> {
        loop {
            let guest = self.reactor.connections.try_acquire(socket);
            if guest.is_some() || self.reactor.side != EndpointKind::Local || self.wait_for_shutdown(ACCEPT_BACKOFF_MIN)
            {
                return guest;
            }
        }
    }

    /// Tells a client that there is no room, without waiting for it. A client of TLS just sees the end.
    fn reject(&mut self, socket: Arc<Socket>) {
        if self.reactor.tls.is_some() || socket.send_and_close(TOO_MANY_CONNECTIONS_RESPONSE).is_err() {
            return;
        }
        if self.rejected.len() == MAX_REJECTED {
            self.rejected.pop_front();
        }
        self.rejected.push_back((Instant::now() + REJECT_LINGER, socket));
    }

    fn reap_rejected(&mut self) {
        let now = Instant::now();
        while self.rejected.front().is_some_and(|(until, _)| *until <= now) {
            self.rejected.pop_front();
        }
    }

    fn close_expired_idle(&mut self) {
        let now = Instant::now();
        if self.next_sweep.is_some_and(|look| look <= now) {
            self.reactor.idle.take_expired(now).iter_mut().for_each(|client| client.close_now());
            self.next_sweep = (!self.reactor.connections.is_empty()).then(|| self.next_sweep_at());
        }
    }

    /// In time enough for nobody to rest much longer than allowed.
    fn next_sweep_at(&self) -> Instant {
        Instant::now()
            + (self.reactor.limits.idle_timeout / IDLE_SWEEPS_PER_TIMEOUT).clamp(IDLE_SWEEP_MIN, IDLE_SWEEP_MAX)
    }

    /// Waits for what is short (descriptors, memory, threads) to come back.
    fn back_off(&mut self, error: &io::Error) {
        if self.backoff_delay == ACCEPT_BACKOFF_MIN {
            warn(format_args!("cannot take a connection, trying on: {error}"));
        }
        self.wait_for_shutdown(self.backoff_delay);
        self.backoff_delay = (self.backoff_delay * 2).min(ACCEPT_BACKOFF_MAX);
    }

    /// Waits for so long, or until it is time to stop, and tells whether it is.
    fn wait_for_shutdown(&self, time: Duration) -> bool {
        poll_fd(&self.shutdown_rx, PollFlags::IN, Some(time)).unwrap_or(false)
    }
}

/// Whether `accept` failed only for one connection that is gone again.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use super::TOO_MANY_CONNECTIONS_RESPONSE;

    #[test]
    fn the_too_many_connections_response_has_the_right_content_length() {
        let text = std::str::from_utf8(TOO_MANY_CONNECTIONS_RESPONSE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
