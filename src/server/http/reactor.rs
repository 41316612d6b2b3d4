//! What is behind one door, and who works there. A few threads are on duty: they serve clients that wake up, as long as
//! nothing has to be waited for. Who would have to wait is relieved first, so a slow client holds up nobody else.

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
use crate::server::app::{App, EndpointKind};
use crate::server::coalescer::Enqueued;

/// Of a thread. Handlers run on it too; what they nest is bounded (see `api::json`).
pub(super) const WORKER_STACK_SIZE: usize = 512 << 10;
/// How long a thread with nothing to do stays.
const WORKER_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Who serves at the least, whatever the machine: one cannot be everywhere.
const MIN_LEADERS: usize = 2;

/// What every thread at a door works with.
pub(super) struct Reactor {
    pub(super) limits: Limits,
    pub(super) service: Arc<App>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) side: EndpointKind,
    pub(super) connections: Arc<ConnectionRegistry>,
    pub(super) idle: IdlePoller<Box<Connection>>,
    /// Who went together with others, and what is stored of it.
    completed_puts: Mutex<VecDeque<(PendingPut, Option<Digest>)>>,
    workers: ThreadPool<Box<Connection>>,
}

/// A thread's duty not to wait while others want the same of it. Another takes it over when this goes.
pub(super) struct LeaderToken {
    reactor: Arc<Reactor>,
    role: Role,
}

impl Reactor {
    /// With as many threads that serve as there are processors.
    pub(super) fn start(
        limits: Limits,
        service: Arc<App>,
        tls: Option<Arc<ServerConfig>>,
        side: EndpointKind,
    ) -> io::Result<Arc<Self>> {
        let roster = Arc::new(ConnectionRegistry::new(&limits));
        let (lounge, told, crew) = (IdlePoller::new()?, Mutex::default(), ThreadPool::new(WORKER_KEEP_ALIVE));
        let house = Arc::new(Self {
            limits,
            service,
            tls,
            side,
            connections: roster,
            idle: lounge,
            completed_puts: told,
            workers: crew,
        });
        for _ in 0..thread::available_parallelism().map_or(MIN_LEADERS, usize::from).max(MIN_LEADERS) {
            house.dispatch(Task::Lead(Role::Poll))?;
        }
        Ok(house)
    }

    /// Sees to a client that is new, on a thread that may wait.
    pub(super) fn spawn_handshake(self: &Arc<Self>, client: Box<Connection>) -> io::Result<()> {
        self.dispatch(Task::NewConnection(client))
    }

    /// Ends all connections, the idle at once, the others after their request; and calls `last` when they are gone, and
    /// all threads with them.
    pub(super) fn shutdown(self: Arc<Self>, last: OnDrained) {
        let roster = Arc::clone(&self.connections);
        roster.drain(Box::new(move || {
            let last = self.workers.shutdown(last);
            self.idle.close();
            drop(self);
            if let Some(last) = last {
                last();
            }
        }));
    }

    /// Has a thread do `task`: one that is free, or a new one.
    fn dispatch(self: &Arc<Self>, task: Task<Box<Connection>>) -> io::Result<()> {
        let Err(task) = self.workers.try_dispatch(task) else { return Ok(()) };
        self.workers.register_worker();
        let employed = WorkerGuard(Some(Arc::clone(self)));
        let thread = thread::Builder::new().name("http-worker".into()).stack_size(WORKER_STACK_SIZE);
        thread.spawn(move || employed.run_worker(task)).map(drop)
    }

    /// Serves until something had to be waited for.
    fn run_leader(self: &Arc<Self>, desk: &mut WorkerBuffers) {
        let mut duty = Some(LeaderToken { reactor: Arc::clone(self), role: Role::Poll });
        while let Some(token) = duty.take() {
            let Some(client) = self.idle.wait_readable() else { return };
            let (outcome, leader) = client.serve(Some(token), self, desk);
            duty = self.park_or_close(outcome, leader);
        }
    }

    /// Goes on with all who are told what is stored.
    fn resume_completed(self: &Arc<Self>, desk: &mut WorkerBuffers) {
        let mut duty = None;
        while let Some((joint, stored)) = self.pop_completed_put() {
            let token = duty.take().unwrap_or_else(|| LeaderToken { reactor: Arc::clone(self), role: Role::Resume });
            let (outcome, leader) = joint.resume(stored, token, self, desk);
            duty = self.park_or_close(outcome, leader);
        }
    }

    /// Sees to a client as it was left, and answers with the duty if it is kept.
    fn park_or_close(self: &Arc<Self>, left: Outcome, duty: Option<LeaderToken>) -> Option<LeaderToken> {
        match left {
            Outcome::Closed => duty,
            Outcome::Idle(client) => {
                let until = deadline_after(Instant::now(), self.limits.idle_timeout);
                // If it cannot be watched, the connection is over: it goes with the error.
                let _ = self.idle.park(client.id(), client, until);
                duty
            }
            Outcome::Coalesce(joint, line) => self.enqueue_put(joint, &line, duty),
        }
    }

    /// Lets a put go together with others. Who is the first waits until it is time, and asks for all.
    fn enqueue_put(self: &Arc<Self>, joint: PendingPut, line: &[u8], duty: Option<LeaderToken>) -> Option<LeaderToken> {
        let house = Arc::clone(self);
        let then = move |stored| house.completed_puts().push_back((joint, stored));
        match self.service.enqueue_put(line, Box::new(then)) {
            Enqueued::Follower => duty,
            Enqueued::Leader(lead) => {
                drop(duty);
                self.service.run_batch(lead);
                None
            }
            Enqueued::Rejected(then) => {
                then(None);
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

/// A thread's place in the crew, until this goes.
struct WorkerGuard(Option<Arc<Reactor>>);

impl WorkerGuard {
    fn run_worker(self, task: Task<Box<Connection>>) {
        let Some(house) = &self.0 else { return };
        let mut desk = WorkerBuffers::default();
        let mut next = Some(task);
        while let Some(task) = next {
            match task {
                Task::Lead(Role::Poll) => house.run_leader(&mut desk),
                Task::Lead(Role::Resume) => {}
                Task::NewConnection(client) => {
                    let left = client.handshake(house, &mut desk);
                    house.park_or_close(left, None);
                }
            }
            // Others may have gone together with the last one.
            house.resume_completed(&mut desk);
            next = house.workers.next_task();
        }
    }
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        let last = self.0.as_ref().and_then(|house| house.workers.unregister_worker());
        // Let go before it is said: after the last word nobody holds the store any more.
        self.0 = None;
        if let Some(last) = last {
            last();
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
    use crate::server::auth::{Authorizer, Scopes};
    use crate::server::budget::Budget;

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
        let service = App::new(0, Budget::new(1 << 20), Authorizer::new(Scopes::ALL, None), None, false);
        Reactor::start(limits, Arc::new(service), None, EndpointKind::Local).unwrap()
    }

    /// Someone who went together with others, its other end, and a third hand at its own.
    fn pending_put(house: &Arc<Reactor>) -> (PendingPut, UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let third = ours.try_clone().unwrap();
        let socket = Arc::new(Socket::Unix(ours));
        let guest = house.connections.try_acquire(&socket).unwrap();
        let client = Connection::new(Stream::new(socket, None).unwrap(), guest, house);
        theirs.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        (PendingPut::for_test(Box::new(client), &house.service), theirs, third)
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
        let house = test_reactor();
        let (first, mut slow, mut full) = pending_put(&house);
        let (second, mut quick, _) = pending_put(&house);
        full.set_nonblocking(true).unwrap();
        let mut sent = 0;
        let error = loop {
            match full.write(b" ") {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        full.set_nonblocking(false).unwrap();
        let digest = Digest::compute(b"");
        house.completed_puts().extend([(first, Some(digest)), (second, Some(digest))]);
        thread::scope(|scope| {
            scope.spawn(|| house.resume_completed(&mut WorkerBuffers::default()));
            assert!(read_response(&mut quick).ends_with(&format!("{{\"digest\": \"{digest}\"}}")));
            slow.read_exact(&mut vec![0; sent]).unwrap();
            assert!(read_response(&mut slow).ends_with(&format!("{{\"digest\": \"{digest}\"}}")));
        });
        let (closed, waited) = std::sync::mpsc::channel();
        house.shutdown(Box::new(move || closed.send(()).unwrap()));
        waited.recv_timeout(TEST_TIMEOUT).unwrap();
    }
}
