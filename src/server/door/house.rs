//! What is behind one door, and who works there. A few threads are on duty: they serve clients that wake up, as long as
//! nothing has to be waited for. Who would have to wait is relieved first, so a slow client holds up nobody else.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use super::connection::{Client, Desk};
use super::crew::{Crew, Last, Task};
use super::lounge::Lounge;
use super::roster::Roster;
use crate::server::Limits;
use crate::server::service::{Service, Side};

/// Of a thread. Handlers run on it too; what they nest is bounded (see `api::json`).
pub(super) const STACK: usize = 512 << 10;
/// How long a thread with nothing to do stays.
const PATIENCE: Duration = Duration::from_secs(5);
/// On duty at the least, whatever the machine: a second pair of eyes.
const ON_DUTY: usize = 2;

/// What every thread at a door works with.
pub(super) struct House {
    pub(super) limits: Limits,
    pub(super) service: Arc<Service>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) side: Side,
    pub(super) roster: Arc<Roster>,
    pub(super) lounge: Lounge<Box<Client>>,
    crew: Crew<Box<Client>>,
}

/// A thread's duty not to wait. Another takes it over when this goes.
pub(super) struct Duty(Arc<House>);

impl House {
    /// With as many threads on duty as there are processors.
    pub(super) fn open(
        limits: Limits,
        service: Arc<Service>,
        tls: Option<Arc<ServerConfig>>,
        side: Side,
    ) -> io::Result<Arc<Self>> {
        let roster = Arc::new(Roster::new(&limits));
        let (lounge, crew) = (Lounge::new()?, Crew::new(PATIENCE));
        let house = Arc::new(Self { limits, service, tls, side, roster, lounge, crew });
        for _ in 0..thread::available_parallelism().map_or(ON_DUTY, usize::from).max(ON_DUTY) {
            house.hire(Task::Duty)?;
        }
        Ok(house)
    }

    /// Sees to a client that is new, on a thread that may wait.
    pub(super) fn welcome(self: &Arc<Self>, client: Box<Client>) -> io::Result<()> {
        self.hire(Task::Newcomer(client))
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

    /// Be on duty until something has to be waited for.
    fn serve(self: &Arc<Self>, desk: &mut Desk) {
        let mut duty = Some(Duty(Arc::clone(self)));
        while let Some(held) = duty.take() {
            let Some(client) = self.lounge.next() else { return };
            let (client, kept) = client.serve(Some(held), self, desk);
            duty = kept;
            self.rest(client);
        }
    }

    fn rest(&self, client: Option<Box<Client>>) {
        if let Some(client) = client {
            let until = super::pace::after(Instant::now(), self.limits.idle);
            // If it cannot be watched, the connection is over: it goes with the error.
            let _ = self.lounge.rest(client.name(), client, until);
        }
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if self.0.hire(Task::Duty).is_err() {
            self.0.crew.vacate();
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
                Task::Duty => house.serve(&mut desk),
                Task::Newcomer(client) => house.rest(client.welcome(house, &mut desk)),
            }
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
