//! What is behind one door, and who works there. A few threads are on duty: they serve clients that wake up, as long as
//! nothing has to be waited for. Who would have to wait is relieved first, so a slow client holds up nobody else.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use super::client::{Client, Desk, Joint, Left};
use super::crew::{Crew, Last, Task, To};
use super::lounge::Lounge;
use super::pace::after;
use super::roster::Roster;
use crate::digest::Digest;
use crate::server::Limits;
use crate::server::service::{Service, Side};
use crate::server::together::Joined;

/// Of a thread. Handlers run on it too; what they nest is bounded (see `api::json`).
pub(super) const STACK: usize = 512 << 10;
/// How long a thread with nothing to do stays.
const PATIENCE: Duration = Duration::from_secs(5);
/// Who serves at the least, whatever the machine: one cannot be everywhere.
const SERVING: usize = 2;

/// What every thread at a door works with.
pub(super) struct House {
    pub(super) limits: Limits,
    pub(super) service: Arc<Service>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) side: Side,
    pub(super) roster: Arc<Roster>,
    pub(super) lounge: Lounge<Box<Client>>,
    /// Who went together with others, and what is stored of it.
    told: Mutex<VecDeque<(Joint, Option<Digest>)>>,
    crew: Crew<Box<Client>>,
}

/// A thread's duty not to wait while others want the same of it. Another takes it over when this goes.
pub(super) struct Duty {
    house: Arc<House>,
    to: To,
}

impl House {
    /// With as many threads that serve as there are processors.
    pub(super) fn open(
        limits: Limits,
        service: Arc<Service>,
        tls: Option<Arc<ServerConfig>>,
        side: Side,
    ) -> io::Result<Arc<Self>> {
        let roster = Arc::new(Roster::new(&limits));
        let (lounge, told, crew) = (Lounge::new()?, Mutex::default(), Crew::new(PATIENCE));
        let house = Arc::new(Self { limits, service, tls, side, roster, lounge, told, crew });
        for _ in 0..thread::available_parallelism().map_or(SERVING, usize::from).max(SERVING) {
            house.hire(Task::Duty(To::Serve))?;
        }
        Ok(house)
    }

    /// Sees to a client that is new, on a thread that may wait.
    pub(super) fn welcome(self: &Arc<Self>, client: Box<Client>) -> io::Result<()> {
        self.hire(Task::Welcome(client))
    }

    /// Ends all connections, the idle at once, the others after their request; and calls `last` when they are gone, and
    /// all threads with them.
    pub(super) fn close(self: Arc<Self>, last: Last) {
        let roster = Arc::clone(&self.roster);
        roster.drain(Box::new(move || {
            let last = self.crew.dismiss(last);
            self.lounge.close();
            drop(self);
            if let Some(last) = last {
                last();
            }
        }));
    }

    /// Has a thread do `task`: one that is free, or a new one.
    fn hire(self: &Arc<Self>, task: Task<Box<Client>>) -> io::Result<()> {
        let Err(task) = self.crew.call(task) else { return Ok(()) };
        self.crew.joins();
        let employed = Employed(Some(Arc::clone(self)));
        let thread = thread::Builder::new().name("connection".into()).stack_size(STACK);
        thread.spawn(move || employed.work(task)).map(drop)
    }

    /// Serves until something had to be waited for.
    fn serve(self: &Arc<Self>, desk: &mut Desk) {
        let mut duty = Some(Duty { house: Arc::clone(self), to: To::Serve });
        while let Some(held) = duty.take() {
            let Some(client) = self.lounge.next() else { return };
            let (left, kept) = client.serve(Some(held), self, desk);
            duty = self.leave(left, kept);
        }
    }

    /// Goes on with all who are told what is stored.
    fn go_on(self: &Arc<Self>, desk: &mut Desk) {
        let mut duty = None;
        while let Some((joint, stored)) = self.next_told() {
            let held = duty.take().unwrap_or_else(|| Duty { house: Arc::clone(self), to: To::GoOn });
            let (left, kept) = joint.go_on(stored, held, self, desk);
            duty = self.leave(left, kept);
        }
    }

    /// Sees to a client as it was left, and answers with the duty if it is kept.
    fn leave(self: &Arc<Self>, left: Left, duty: Option<Duty>) -> Option<Duty> {
        match left {
            Left::Over => duty,
            Left::Resting(client) => {
                let until = after(Instant::now(), self.limits.idle);
                // If it cannot be watched, the connection is over: it goes with the error.
                let _ = self.lounge.rest(client.name(), client, until);
                duty
            }
            Left::Joining(joint, line) => self.join(joint, &line, duty),
        }
    }

    /// Lets a put go together with others. Who is the first waits until it is time, and asks for all.
    fn join(self: &Arc<Self>, joint: Joint, line: &[u8], duty: Option<Duty>) -> Option<Duty> {
        let house = Arc::clone(self);
        let then = move |stored| house.told().push_back((joint, stored));
        match self.service.join(line, Box::new(then)) {
            Joined::Later => duty,
            Joined::First(lead) => {
                drop(duty);
                self.service.lead(lead);
                None
            }
            Joined::Full(then) => {
                then(None);
                None
            }
        }
    }

    fn next_told(&self) -> Option<(Joint, Option<Digest>)> {
        self.told().pop_front()
    }

    fn told(&self) -> MutexGuard<'_, VecDeque<(Joint, Option<Digest>)>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        let is_over = self.to == To::GoOn && self.house.told().is_empty();
        if !is_over && self.house.hire(Task::Duty(self.to)).is_err() {
            self.house.crew.vacate(self.to);
        }
    }
}

/// A thread's place in the crew, until this goes.
struct Employed(Option<Arc<House>>);

impl Employed {
    fn work(self, task: Task<Box<Client>>) {
        let Some(house) = &self.0 else { return };
        let mut desk = Desk::default();
        let mut next = Some(task);
        while let Some(task) = next {
            match task {
                Task::Duty(To::Serve) => house.serve(&mut desk),
                Task::Duty(To::GoOn) => {}
                Task::Welcome(client) => {
                    let left = client.welcome(house, &mut desk);
                    house.leave(left, None);
                }
            }
            // Others may have gone together with the last one.
            house.go_on(&mut desk);
            next = house.crew.next();
        }
    }
}

impl Drop for Employed {
    fn drop(&mut self) {
        let last = self.0.as_ref().and_then(|house| house.crew.leaves());
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
    use crate::server::Proxies;
    use crate::server::budget::Budget;
    use crate::server::rights::{Rights, Scopes};

    const LONG: Duration = Duration::from_secs(60);

    fn house() -> Arc<House> {
        let limits = Limits {
            body: 1 << 20,
            connections: 10,
            connections_per_address: 10,
            trusted_proxies: Proxies::default(),
            requests: 10,
            handshake: LONG,
            head: LONG,
            body_time: LONG,
            write: LONG,
            min_rate: 1,
            idle: LONG,
        };
        let service = Service::new(0, Budget::new(1 << 20), Rights::new(Scopes::ALL, None), None, false);
        House::open(limits, Arc::new(service), None, Side::Local).unwrap()
    }

    /// Someone who went together with others, its other end, and a third hand at its own.
    fn joint(house: &Arc<House>) -> (Joint, UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let third = ours.try_clone().unwrap();
        let socket = Arc::new(Socket::Unix(ours));
        let guest = house.roster.admit(&socket).unwrap();
        let client = Client::new(Stream::new(socket, None).unwrap(), guest, house);
        theirs.set_read_timeout(Some(LONG)).unwrap();
        (Joint::of(Box::new(client), &house.service), theirs, third)
    }

    fn reply(stream: &mut UnixStream) -> String {
        let (mut text, mut bytes) = (String::new(), [0; 1 << 12]);
        while !text.ends_with('}') {
            let count = stream.read(&mut bytes).unwrap();
            text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        text
    }

    #[test]
    fn who_does_not_read_holds_up_none_of_those_it_went_together_with() {
        let house = house();
        let (first, mut slow, mut full) = joint(&house);
        let (second, mut quick, _) = joint(&house);
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
        let digest = Digest::of(b"");
        house.told().extend([(first, Some(digest)), (second, Some(digest))]);
        thread::scope(|scope| {
            scope.spawn(|| house.go_on(&mut Desk::default()));
            assert!(reply(&mut quick).ends_with(&format!("{{\"digest\": \"{digest}\"}}")));
            slow.read_exact(&mut vec![0; sent]).unwrap();
            assert!(reply(&mut slow).ends_with(&format!("{{\"digest\": \"{digest}\"}}")));
        });
        let (closed, waited) = std::sync::mpsc::channel();
        house.close(Box::new(move || closed.send(()).unwrap()));
        waited.recv_timeout(LONG).unwrap();
    }
}
