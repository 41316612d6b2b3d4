//! Leader/follower scheduling of one endpoint. A few leaders poll idle connections and serve the readable ones without
//! blocking. Before a leader blocks, it passes leadership to another worker, so a slow client does not delay the
//! others. See docs/design.md, "Leader/follower threads".

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;

use super::connection::Connection;
use super::connection_io::Leadership;
use super::deadline::deadline_after;
use super::idle::IdlePoller;
use super::registry::ConnectionRegistry;
use super::request_loop::{EndpointContext, Outcome, ParsedPut, WorkerBuffers};
use super::thread_pool::{Role, Task, ThreadPool, WORKER_KEEP_ALIVE};
use crate::digest::Digest;
use crate::server::coalescer::Enqueued;

/// Stack size of a worker, in bytes. Request handlers run on workers too; `api::json` bounds their recursion.
pub(super) const WORKER_STACK_SIZE: usize = 512 << 10;
/// Minimum number of leaders, even on one CPU.
const MIN_LEADERS: usize = 2;

/// State that all threads of an endpoint share.
pub(super) struct Scheduler {
    pub(super) endpoint: EndpointContext,
    pub(super) connections: Arc<ConnectionRegistry>,
    idle: IdlePoller<Box<Connection>>,
    completed_puts: Mutex<VecDeque<CompletedPut>>,
    workers: Arc<ThreadPool<Box<Connection>>>,
}

/// A put whose batch is complete, with its digest if the put was stored.
struct CompletedPut {
    connection: Box<Connection>,
    put: Box<ParsedPut>,
    digest: Option<Digest>,
}

/// The leadership of a worker: a role, until it is passed on.
struct LeaderToken<'a> {
    scheduler: &'a Arc<Scheduler>,
    role: Option<Role>,
}

impl Leadership for LeaderToken<'_> {
    fn is_held(&self) -> bool {
        self.role.is_some()
    }

    fn pass_on(&mut self) {
        let Some(role) = self.role.take() else { return };
        if role == Role::Resume && self.scheduler.completed_puts.lock().is_empty() {
            return;
        }
        self.scheduler.workers.pass_on(role, |task| self.scheduler.spawn_worker(task));
    }
}

impl Scheduler {
    /// Starts one leader per CPU, and at least [`MIN_LEADERS`].
    pub(super) fn start(endpoint: EndpointContext) -> io::Result<Arc<Self>> {
        let scheduler = Arc::new(Self {
            connections: Arc::new(ConnectionRegistry::new(&endpoint.limits)),
            endpoint,
            idle: IdlePoller::new()?,
            completed_puts: Mutex::default(),
            workers: Arc::new(ThreadPool::new(WORKER_KEEP_ALIVE)),
        });
        for _ in 0..thread::available_parallelism().map_or(MIN_LEADERS, usize::from).max(MIN_LEADERS) {
            scheduler.dispatch(Task::Lead(Role::Poll))?;
        }
        Ok(scheduler)
    }

    /// Has a worker perform the handshake of a new connection.
    pub(super) fn spawn_handshake(self: &Arc<Self>, connection: Box<Connection>) -> io::Result<()> {
        self.dispatch(Task::NewConnection(connection))
    }

    /// Closes the connections whose idle deadline is not after `now`.
    pub(super) fn close_expired(&self, now: Instant) {
        for mut connection in self.idle.take_expired(now) {
            connection.abort();
        }
    }

    /// Closes idle connections at once, and the others after their current request. Blocks until all connections and
    /// workers are gone.
    pub(super) fn drain(self: Arc<Self>) {
        self.connections.drain();
        let workers = Arc::clone(&self.workers);
        workers.shut_down();
        self.idle.close();
        drop(self);
        workers.wait_until_empty();
    }

    /// Hands `task` to an idle worker, or starts a worker for it.
    fn dispatch(self: &Arc<Self>, task: Task<Box<Connection>>) -> io::Result<()> {
        self.workers.dispatch(task, |task| self.spawn_worker(task))
    }

    fn spawn_worker(self: &Arc<Self>, task: Task<Box<Connection>>) -> io::Result<()> {
        let scheduler = Arc::clone(self);
        let thread = thread::Builder::new().name("http-worker".into()).stack_size(WORKER_STACK_SIZE);
        let work = move || {
            scheduler.run_worker(task);
            let workers = Arc::clone(&scheduler.workers);
            // An endpoint without workers must not hold the store.
            drop(scheduler);
            workers.unregister_worker();
        };
        thread.spawn(work).map(drop)
    }

    fn run_worker(self: &Arc<Self>, task: Task<Box<Connection>>) {
        let mut buffers = WorkerBuffers::default();
        let mut next = Some(task);
        while let Some(task) = next {
            match task {
                Task::Lead(Role::Poll) => self.lead(&mut buffers),
                Task::Lead(Role::Resume) => {}
                Task::NewConnection(connection) => {
                    let mut follower = LeaderToken { scheduler: self, role: None };
                    self.serve(connection, &mut follower, &mut buffers, |connection, follower, buffers| {
                        connection.handshake(&self.endpoint, follower, buffers)
                    });
                }
            }
            // The task may have completed a batch.
            self.resume_completed(&mut buffers);
            next = self.workers.next_task();
        }
    }

    /// Serves readable connections until leadership is passed on.
    fn lead(self: &Arc<Self>, buffers: &mut WorkerBuffers) {
        let mut token = LeaderToken { scheduler: self, role: Some(Role::Poll) };
        while token.is_held() {
            let Some(connection) = self.idle.wait_readable() else { return };
            self.serve(connection, &mut token, buffers, |connection, token, buffers| {
                connection.serve(&self.endpoint, token, buffers)
            });
        }
    }

    /// Resumes all connections whose batch is complete.
    fn resume_completed(self: &Arc<Self>, buffers: &mut WorkerBuffers) {
        while let Some(CompletedPut { connection, put, digest }) = self.pop_completed_put() {
            let mut token = LeaderToken { scheduler: self, role: Some(Role::Resume) };
            self.serve(connection, &mut token, buffers, |connection, token, buffers| {
                connection.resume(*put, digest, &self.endpoint, token, buffers)
            });
        }
    }

    /// Serves a connection by `work`, and does what its outcome says.
    ///
    /// A panic closes the connection. It is caught here, so that the worker keeps its role.
    fn serve(
        self: &Arc<Self>,
        mut connection: Box<Connection>,
        token: &mut LeaderToken<'_>,
        buffers: &mut WorkerBuffers,
        work: impl FnOnce(&mut Connection, &mut dyn Leadership, &mut WorkerBuffers) -> Outcome,
    ) {
        let serve = || match work(&mut connection, token, buffers) {
            Outcome::Idle => self.park(connection),
            Outcome::Coalesce(put, line) => self.enqueue_put(connection, put, &line, token),
            Outcome::Abort => connection.abort(),
            Outcome::Linger => connection.lingering_close(token),
        };
        if catch_unwind(AssertUnwindSafe(serve)).is_err() {
            *buffers = WorkerBuffers::default();
        }
    }

    fn park(&self, connection: Box<Connection>) {
        let deadline = deadline_after(Instant::now(), self.endpoint.limits.idle_timeout);
        // On error, `park` drops the connection, which closes it.
        let _ = self.idle.park(connection.id(), connection, deadline);
    }

    /// Adds the put to the open batch. The first put makes this thread the batch leader, which blocks until the batch
    /// is complete.
    fn enqueue_put(
        self: &Arc<Self>,
        connection: Box<Connection>,
        put: Box<ParsedPut>,
        line: &[u8],
        token: &mut LeaderToken<'_>,
    ) {
        let scheduler = Arc::clone(self);
        let completion = move |digest| {
            scheduler.completed_puts.lock().push_back(CompletedPut { connection, put, digest });
        };
        match self.endpoint.app.enqueue_put(line, Box::new(completion)) {
            Enqueued::Follower => {}
            Enqueued::Leader(batch) => {
                token.pass_on();
                self.endpoint.app.run_batch(batch);
            }
            Enqueued::Rejected(completion) => {
                token.pass_on();
                completion(None);
            }
        }
    }

    fn pop_completed_put(&self) -> Option<CompletedPut> {
        self.completed_puts.lock().pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::super::socket::Socket;
    use super::super::stream::Stream;
    use super::*;
    use crate::server::app::App;
    use crate::server::auth::{Auth, EndpointKind};
    use crate::server::budget::Budget;
    use crate::server::limits::Limits;
    use crate::server::observability::Observability;
    use crate::server::proxies::TrustedProxies;

    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    fn test_scheduler() -> Arc<Scheduler> {
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
        Scheduler::start(EndpointContext { limits, app: Arc::new(app), kind: EndpointKind::Local }).unwrap()
    }

    /// Returns a connection, and the client's end of it.
    fn connect(scheduler: &Scheduler) -> (Box<Connection>, UnixStream) {
        let (server, client) = UnixStream::pair().unwrap();
        client.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        let socket = Arc::new(Socket::Unix(server));
        let permit = scheduler.connections.try_acquire(&socket).unwrap();
        (Box::new(Connection::new(Stream::new(socket, None).unwrap(), permit, &scheduler.endpoint)), client)
    }

    /// Returns a put that is stored, and the client's end of its connection.
    fn completed_put(scheduler: &Scheduler, digest: Digest) -> (CompletedPut, UnixStream) {
        let (connection, client) = connect(scheduler);
        let put = Box::new(ParsedPut::for_test(&scheduler.endpoint.app));
        (CompletedPut { connection, put, digest: Some(digest) }, client)
    }

    fn assert_drains(scheduler: Arc<Scheduler>) {
        let (drained_tx, drained_rx) = std::sync::mpsc::channel();
        thread::spawn(move || {
            scheduler.drain();
            drained_tx.send(()).unwrap();
        });
        drained_rx.recv_timeout(TEST_TIMEOUT).unwrap();
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
        let scheduler = test_scheduler();
        let digest = Digest::compute(b"");
        let (first, mut slow_client) = completed_put(&scheduler, digest);
        let (second, mut fast_client) = completed_put(&scheduler, digest);
        let mut slow_server = UnixStream::from(first.connection.as_fd().try_clone_to_owned().unwrap());
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
        scheduler.completed_puts.lock().extend([first, second]);
        thread::scope(|scope| {
            scope.spawn(|| scheduler.resume_completed(&mut WorkerBuffers::default()));
            assert!(read_response(&mut fast_client).ends_with(&format!("{{\"digest\": \"{digest}\"}}")));
            slow_client.read_exact(&mut vec![0; sent]).unwrap();
            assert!(read_response(&mut slow_client).ends_with(&format!("{{\"digest\": \"{digest}\"}}")));
        });
        assert_drains(scheduler);
    }

    #[test]
    fn a_panic_closes_the_connection_and_the_worker_keeps_its_role() {
        let scheduler = test_scheduler();
        let (connection, mut client) = connect(&scheduler);
        let mut token = LeaderToken { scheduler: &scheduler, role: Some(Role::Poll) };
        scheduler.serve(connection, &mut token, &mut WorkerBuffers::default(), |_, _, _| panic!("a test of panics"));
        assert!(token.is_held());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert_drains(scheduler);
    }
}
