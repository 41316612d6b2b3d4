//! Leader/follower scheduling of one endpoint. A few leaders poll idle connections and serve the readable ones without
//! blocking. Before a leader blocks, it passes leadership to another worker, so a slow client does not delay the
//! others. See docs/design.md, "Leader/follower threads".

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use super::connection::{Connection, Outcome, PendingPut, WorkerBuffers};
use super::deadline::deadline_after;
use super::idle::IdlePoller;
use super::registry::ConnectionRegistry;
use super::thread_pool::{OnDrained, Role, Task, ThreadPool};
use crate::digest::Digest;
use crate::server::Limits;
use crate::server::app::App;
use crate::server::auth::EndpointKind;
use crate::server::coalescer::Enqueued;

/// Stack size of a worker, in bytes. Request handlers run on workers too; `api::json` bounds their
/// recursion.
pub(super) const WORKER_STACK_SIZE: usize = 512 << 10;
/// Time after which an idle worker ends.
const WORKER_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Minimum number of leaders, even on one CPU.
const MIN_LEADERS: usize = 2;

/// State that all threads of an endpoint share.
pub(super) struct Reactor {
    pub(super) limits: Limits,
    pub(super) app: Arc<App>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) kind: EndpointKind,
    pub(super) connections: Arc<ConnectionRegistry>,
    pub(super) idle: IdlePoller<Box<Connection>>,
    /// Puts whose batch is complete, each with its digest if it was stored.
    completed_puts: Mutex<VecDeque<(PendingPut, Option<Digest>)>>,
    workers: ThreadPool<Box<Connection>>,
}

/// Leadership token. Its holder must not block. Dropping it passes leadership to another worker, starting one if none
/// is idle.
pub(super) struct LeaderToken {
    reactor: Arc<Reactor>,
    role: Role,
}

impl Reactor {
    /// Starts one leader per CPU, and at least [`MIN_LEADERS`].
    pub(super) fn start(
        limits: Limits,
        app: Arc<App>,
        tls: Option<Arc<ServerConfig>>,
        kind: EndpointKind,
    ) -> io::Result<Arc<Self>> {
        let registry = Arc::new(ConnectionRegistry::new(&limits));
        let idle = IdlePoller::new()?;
        let reactor = Arc::new(Self {
            limits,
            app,
            tls,
            kind,
            connections: registry,
            idle,
            completed_puts: Mutex::default(),
            workers: ThreadPool::new(WORKER_KEEP_ALIVE),
        });
        for _ in 0..thread::available_parallelism().map_or(MIN_LEADERS, usize::from).max(MIN_LEADERS) {
            reactor.dispatch(Task::Lead(Role::Poll))?;
        }
        Ok(reactor)
    }

    /// Has a worker perform the handshake of a new connection.
    pub(super) fn spawn_handshake(self: &Arc<Self>, connection: Box<Connection>) -> io::Result<()> {
        self.dispatch(Task::NewConnection(connection))
    }

    /// Closes idle connections at once, and the others after their current request. Calls `on_drained` when all
    /// connections and workers are gone.
    pub(super) fn shutdown(self: Arc<Self>, on_drained: OnDrained) {
        let registry = Arc::clone(&self.connections);
        registry.drain(Box::new(move || {
            let on_drained = self.workers.shutdown(on_drained);
            self.idle.close();
            drop(self);
            if let Some(on_drained) = on_drained {
                on_drained();
            }
        }));
    }

    /// Hands `task` to an idle worker, or starts a worker for it.
    fn dispatch(self: &Arc<Self>, task: Task<Box<Connection>>) -> io::Result<()> {
        let Err(task) = self.workers.try_dispatch(task) else { return Ok(()) };
        self.workers.register_worker();
        let worker = WorkerGuard(Some(Arc::clone(self)));
        let thread = thread::Builder::new().name("http-worker".into()).stack_size(WORKER_STACK_SIZE);
        thread.spawn(move || worker.run_worker(task)).map(drop)
    }

    /// Serves readable connections until leadership is given up.
    fn run_leader(self: &Arc<Self>, buffers: &mut WorkerBuffers) {
        let mut leader = Some(LeaderToken { reactor: Arc::clone(self), role: Role::Poll });
        while let Some(token) = leader.take() {
            let Some(connection) = self.idle.wait_readable() else { return };
            let (outcome, returned) = connection.serve(Some(token), self, buffers);
            leader = self.park_or_close(outcome, returned);
        }
    }

    /// Resumes all connections whose batch is complete.
    fn resume_completed(self: &Arc<Self>, buffers: &mut WorkerBuffers) {
        let mut leader = None;
        while let Some((put, digest)) = self.pop_completed_put() {
            let token = leader.take().unwrap_or_else(|| LeaderToken { reactor: Arc::clone(self), role: Role::Resume });
            let (outcome, returned) = put.resume(digest, token, self, buffers);
            leader = self.park_or_close(outcome, returned);
        }
    }

    /// Parks the connection, drops it, or enqueues its put. Returns the leader token if it was not given up.
    fn park_or_close(self: &Arc<Self>, outcome: Outcome, leader: Option<LeaderToken>) -> Option<LeaderToken> {
        match outcome {
            Outcome::Closed => leader,
            Outcome::Idle(connection) => {
                let deadline = deadline_after(Instant::now(), self.limits.idle_timeout);
                // On error, `park` drops the connection, which closes it.
                let _ = self.idle.park(connection.id(), connection, deadline);
                leader
            }
            Outcome::Coalesce(put, line) => self.enqueue_put(put, &line, leader),
        }
    }

    /// Adds the put to the open batch. The first put makes this thread the batch leader, which blocks until the batch
    /// is complete.
    fn enqueue_put(self: &Arc<Self>, put: PendingPut, line: &[u8], leader: Option<LeaderToken>) -> Option<LeaderToken> {
        let reactor = Arc::clone(self);
        let completion = move |digest| reactor.completed_puts().push_back((put, digest));
        match self.app.enqueue_put(line, Box::new(completion)) {
            Enqueued::Follower => leader,
            Enqueued::Leader(batch) => {
                drop(leader);
                self.app.run_batch(batch);
                None
            }
            Enqueued::Rejected(completion) => {
                completion(None);
                None
            }
        }
    }

    fn pop_completed_put(&self) -> Option<(PendingPut, Option<Digest>)> {
        self.completed_puts().pop_front()
    }

    fn completed_puts(&self) -> MutexGuard<'_, VecDeque<(PendingPut, Option<Digest>)>> {
        self.completed_puts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LeaderToken {
    fn drop(&mut self) {
        let is_over = self.role == Role::Resume && self.reactor.completed_puts().is_empty();
        if !is_over && self.reactor.dispatch(Task::Lead(self.role)).is_err() {
            self.reactor.workers.offer_role(self.role);
        }
    }
}

/// Registration of a worker in the thread pool, until it is dropped.
struct WorkerGuard(Option<Arc<Reactor>>);

impl WorkerGuard {
    fn run_worker(self, task: Task<Box<Connection>>) {
        let Some(reactor) = &self.0 else { return };
        let mut buffers = WorkerBuffers::default();
        let mut next = Some(task);
        while let Some(task) = next {
            match task {
                Task::Lead(Role::Poll) => reactor.run_leader(&mut buffers),
                Task::Lead(Role::Resume) => {}
                Task::NewConnection(connection) => {
                    let outcome = connection.handshake(reactor, &mut buffers);
                    reactor.park_or_close(outcome, None);
                }
            }
            // The task may have completed a batch.
            reactor.resume_completed(&mut buffers);
            next = reactor.workers.next_task();
        }
    }
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        let on_drained = self.0.as_ref().and_then(|reactor| reactor.workers.unregister_worker());
        // Release the store first: after `on_drained`, the endpoint must not hold it.
        self.0 = None;
        if let Some(on_drained) = on_drained {
            on_drained();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixStream;

    use super::super::socket::Socket;
    use super::super::stream::Stream;
    use super::*;
    use crate::server::TrustedProxies;
    use crate::server::auth::Auth;
    use crate::server::budget::Budget;
    use crate::server::observability::Observability;

    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    fn test_reactor() -> Arc<Reactor> {
        let limits = Limits {
            max_body: 1 << 20,
            max_connections: 10,
            max_connections_per_address: 10,
            trusted_proxies: TrustedProxies::default(),
            max_requests: 10,
            handshake_timeout: TEST_TIMEOUT,
            head_timeout: TEST_TIMEOUT,
            body_timeout: TEST_TIMEOUT,
            write_timeout: TEST_TIMEOUT,
            min_rate: 1,
            idle_timeout: TEST_TIMEOUT,
        };
        let app = App::new(0, Budget::new(1 << 20), Auth::for_test(), Observability::new(None));
        Reactor::start(limits, Arc::new(app), None, EndpointKind::Local).unwrap()
    }

    /// Returns a pending put, the client's end of its connection, and another handle to the server's end.
    fn pending_put(reactor: &Arc<Reactor>) -> (PendingPut, UnixStream, UnixStream) {
        let (server, client) = UnixStream::pair().unwrap();
        let server_handle = server.try_clone().unwrap();
        let socket = Arc::new(Socket::Unix(server));
        let permit = reactor.connections.try_acquire(&socket).unwrap();
        let connection = Connection::new(Stream::new(socket, None).unwrap(), permit, reactor);
        client.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        (PendingPut::for_test(Box::new(connection), &reactor.app), client, server_handle)
    }

    fn read_response(stream: &mut UnixStream) -> String {
        let (mut text, mut bytes) = (String::new(), [0; 1 << 12]);
        while !text.ends_with('}') {
            let count = stream.read(&mut bytes).unwrap();
            text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        text
    }

    #[test]
    fn a_client_that_does_not_read_does_not_delay_other_puts_of_its_batch() {
        let reactor = test_reactor();
        let (first, mut slow_client, mut slow_server) = pending_put(&reactor);
        let (second, mut fast_client, _) = pending_put(&reactor);
        slow_server.set_nonblocking(true).unwrap();
        let mut sent = 0;
        let error = loop {
            match slow_server.write(b" ") {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        slow_server.set_nonblocking(false).unwrap();
        let digest = Digest::compute(b"");
        reactor.completed_puts().extend([(first, Some(digest)), (second, Some(digest))]);
        thread::scope(|scope| {
            scope.spawn(|| reactor.resume_completed(&mut WorkerBuffers::default()));
            assert!(read_response(&mut fast_client).ends_with(&format!("{{\"digest\": \"{digest}\"}}")));
            slow_client.read_exact(&mut vec![0; sent]).unwrap();
            assert!(read_response(&mut slow_client).ends_with(&format!("{{\"digest\": \"{digest}\"}}")));
        });
        let (drained_tx, drained_rx) = std::sync::mpsc::channel();
        reactor.shutdown(Box::new(move || drained_tx.send(()).unwrap()));
        drained_rx.recv_timeout(TEST_TIMEOUT).unwrap();
    }
}
