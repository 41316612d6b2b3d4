//! One endpoint: it accepts connections on its listeners, and keeps accepting after errors. Connection limits are checked
//! before anything is allocated for a connection.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustls::ServerConfig;
use tracing::warn;

use super::connection::Connection;
use super::listener::Listener;
use super::registry::ConnectionPermit;
use super::request_loop::EndpointContext;
use super::scheduler::{Scheduler, WORKER_STACK_SIZE};
use super::socket::Socket;
use super::stream::Stream;
use crate::server::app::App;
use crate::server::auth::EndpointKind;
use crate::server::limits::{Limits, MAX_REJECTED};
use crate::server::poll::{poll_fd, timespec};

/// Minimum delay after an error of `accept`. It doubles with each further error, up to [`ACCEPT_BACKOFF_MAX`].
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(5);
/// Maximum delay after an error of `accept`.
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Time for which a rejected connection is kept open.
const REJECT_LINGER: Duration = Duration::from_secs(1);
const TOO_MANY_CONNECTIONS_RESPONSE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
    Content-Length: 35\r\nConnection: close\r\n\r\n{\"err_msg\": \"Too many connections\"}";

/// Number of idle sweeps per idle timeout. The interval is at least [`IDLE_SWEEP_MIN`] and at most [`IDLE_SWEEP_MAX`].
const IDLE_SWEEPS_PER_TIMEOUT: u32 = 16;
/// Minimum interval between two idle sweeps.
const IDLE_SWEEP_MIN: Duration = Duration::from_millis(10);
/// Maximum interval between two idle sweeps.
const IDLE_SWEEP_MAX: Duration = Duration::from_secs(1);

/// A running endpoint: one acceptor thread, its connections and its workers.
pub(in crate::server) struct Endpoint {
    /// Closing this end stops the acceptor.
    shutdown_tx: UnixStream,
}

impl Endpoint {
    /// Starts accepting connections on `listeners`.
    ///
    /// `on_drained` is called after a shutdown, when the last connection and the last worker are gone. From then on, the
    /// endpoint does not hold the store.
    pub(in crate::server) fn start(
        listeners: Vec<Listener>,
        limits: Limits,
        tls: Option<Arc<ServerConfig>>,
        app: Arc<App>,
        kind: EndpointKind,
        on_drained: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let scheduler = Scheduler::start(EndpointContext { limits, app, kind })?;
        let (shutdown_tx, shutdown_rx) = UnixStream::pair()?;
        let acceptor = Acceptor {
            listeners,
            shutdown_rx,
            scheduler: Arc::clone(&scheduler),
            tls,
            backoff_delay: ACCEPT_BACKOFF_MIN,
            rejected: VecDeque::new(),
            next_sweep: None,
        };
        let work = move || {
            acceptor.run();
            scheduler.drain();
            on_drained();
        };
        thread::Builder::new().name("http-accept".into()).stack_size(WORKER_STACK_SIZE).spawn(work)?;
        Ok(Self { shutdown_tx })
    }

    /// Stops accepting and closes idle connections. Requests in flight finish.
    pub(in crate::server) fn shut_down(self) {
        drop(self.shutdown_tx);
    }
}

struct Acceptor {
    listeners: Vec<Listener>,
    shutdown_rx: UnixStream,
    scheduler: Arc<Scheduler>,
    tls: Option<Arc<ServerConfig>>,
    backoff_delay: Duration,
    rejected: VecDeque<(Instant, Arc<Socket>)>,
    /// Time of the next idle sweep. `None`: there are no connections.
    next_sweep: Option<Instant>,
}

impl Acceptor {
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

    /// Waits for pending connections and returns the indices of their listeners, or none if a timer expired first.
    /// `None`: the endpoint is shutting down.
    fn poll_listeners(&self) -> Option<Vec<usize>> {
        let mut polled = vec![PollFd::new(&self.shutdown_rx, PollFlags::IN)];
        polled.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        let next = self.rejected.front().map(|(deadline, _)| *deadline).into_iter().chain(self.next_sweep).min();
        let timeout = next.map(|next| timespec(next.saturating_duration_since(Instant::now())));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) if !polled[0].revents().is_empty() => None,
            Ok(_) => Some(
                (1..polled.len()).filter(|&index| !polled[index].revents().is_empty()).map(|index| index - 1).collect(),
            ),
            Err(error) => {
                if error != rustix::io::Errno::INTR {
                    thread::sleep(ACCEPT_BACKOFF_MIN);
                }
                Some(Vec::new())
            }
        }
    }

    fn on_accept(&mut self, socket: Arc<Socket>) {
        let Some(permit) = self.acquire_permit(&socket) else {
            self.scheduler.endpoint.app.observability.metrics.connection_rejected();
            self.reject(socket);
            return;
        };
        self.next_sweep = self.next_sweep.or_else(|| Some(self.next_sweep_at()));
        // An unusable TLS configuration was rejected at startup.
        let Ok(stream) = Stream::new(socket, self.tls.as_ref()) else { return };
        let connection = Box::new(Connection::new(stream, permit, &self.scheduler.endpoint));
        if let Err(error) = self.scheduler.spawn_handshake(connection) {
            self.back_off(&error);
        }
    }

    /// Acquires a permit for the connection. `None`: a limit is reached. The local endpoint waits for a permit until it
    /// is shut down.
    fn acquire_permit(&self, socket: &Arc<Socket>) -> Option<ConnectionPermit> {
        loop {
            let permit = self.scheduler.connections.try_acquire(socket);
            if permit.is_some()
                || self.scheduler.endpoint.kind != EndpointKind::Local
                || self.wait_for_shutdown(ACCEPT_BACKOFF_MIN)
            {
                return permit;
            }
        }
    }

    /// Sends the 503 response without blocking. TLS connections are closed without a response.
    fn reject(&mut self, socket: Arc<Socket>) {
        if self.tls.is_some() || socket.send_and_close(TOO_MANY_CONNECTIONS_RESPONSE).is_err() {
            return;
        }
        if self.rejected.len() == MAX_REJECTED {
            self.rejected.pop_front();
        }
        self.rejected.push_back((Instant::now() + REJECT_LINGER, socket));
    }

    fn reap_rejected(&mut self) {
        let now = Instant::now();
        while self.rejected.front().is_some_and(|(deadline, _)| *deadline <= now) {
            self.rejected.pop_front();
        }
    }

    fn close_expired_idle(&mut self) {
        let now = Instant::now();
        if self.next_sweep.is_some_and(|sweep| sweep <= now) {
            self.scheduler.close_expired(now);
            self.next_sweep = (!self.scheduler.connections.is_empty()).then(|| self.next_sweep_at());
        }
    }

    fn next_sweep_at(&self) -> Instant {
        Instant::now()
            + (self.scheduler.endpoint.limits.idle_timeout / IDLE_SWEEPS_PER_TIMEOUT)
                .clamp(IDLE_SWEEP_MIN, IDLE_SWEEP_MAX)
    }

    /// Waits before the next attempt. Descriptors, memory or threads may be available again by then.
    fn back_off(&mut self, error: &io::Error) {
        if self.backoff_delay == ACCEPT_BACKOFF_MIN {
            warn!("cannot accept connections: {error}; retrying");
        }
        self.wait_for_shutdown(self.backoff_delay);
        self.backoff_delay = (self.backoff_delay * 2).min(ACCEPT_BACKOFF_MAX);
    }

    /// Waits up to `timeout`. Returns whether the endpoint is shutting down.
    fn wait_for_shutdown(&self, timeout: Duration) -> bool {
        poll_fd(&self.shutdown_rx, PollFlags::IN, Some(timeout)).unwrap_or(false)
    }
}

/// Returns whether the error concerns one connection only, so that accepting continues without delay.
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
