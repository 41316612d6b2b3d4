//! A client, whichever thread it is served by: what is kept of it while it rests, and while its put goes together with
//! others.

use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::connection::Connection;
use super::house::{Duty, House};
use super::pace::after;
use super::reply::Writer;
use super::roster::Guest;
use super::stream::Stream;
use crate::digest::Digest;
use crate::server::api::{Method, Request};
use crate::server::budget::Reservation;
#[cfg(test)]
use crate::server::log::Peer;
use crate::server::metrics::Present;
use crate::server::service::{self, Trace};

/// A client at the door: what is kept of it while it rests.
pub(super) struct Client {
    pub(super) stream: Stream,
    /// Requests that it may still make.
    pub(super) left: u64,
    _present: Present,
    pub(super) guest: Guest,
}

/// What a thread has for whichever client it serves.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) inbox: Vec<u8>,
    pub(super) writer: Writer,
}

/// How a thread leaves a client.
pub(super) enum Left {
    Resting(Box<Client>),
    /// Its put goes together with others, as this line.
    Joining(Joint, Vec<u8>),
    Over,
}

/// A client whose put goes together with others.
pub(super) struct Joint {
    pub(super) client: Box<Client>,
    pub(super) put: Box<Put>,
    /// What has come behind the put.
    pub(super) inbox: Vec<u8>,
}

/// A put that was read.
pub(super) struct Put {
    pub(super) request: Request,
    pub(super) asked: Asked,
}

/// What is known of a request beside what it asks.
pub(super) struct Asked {
    pub(super) trace: Trace,
    pub(super) method: Method,
    pub(super) keep_alive: bool,
    pub(super) _held: Option<Reservation>,
}

impl Client {
    /// One that was let in as `guest`.
    pub(super) fn new(stream: Stream, guest: Guest, house: &House) -> Self {
        Self { stream, left: house.limits.requests, _present: house.service.metrics().connection(), guest }
    }

    /// What it is called while it is here.
    pub(super) const fn name(&self) -> u64 {
        self.guest.name()
    }

    /// Shakes hands.
    pub(super) fn welcome(mut self: Box<Self>, house: &House, desk: &mut Desk) -> Left {
        match self.stream.shake_hands(after(Instant::now(), house.limits.handshake)) {
            Ok(()) if self.stream.has_more() => self.serve(None, house, desk).0,
            Ok(()) => Left::Resting(self),
            Err(_) => Left::Over,
        }
    }

    /// Serves what it asks. The duty is back if nothing had to be waited for.
    pub(super) fn serve(
        mut self: Box<Self>,
        duty: Option<Duty>,
        house: &House,
        desk: &mut Desk,
    ) -> (Left, Option<Duty>) {
        self.stream.set_duty(duty);
        desk.take_up(Vec::new());
        let mut connection = Connection { client: self, desk, house };
        let next = connection.requests();
        connection.leave(next)
    }

    /// Ends it, without waiting.
    pub(super) fn leave(&mut self) {
        self.stream.leave();
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Desk {
    /// What has come and is still to be read.
    pub(super) fn put_away(&mut self) -> Vec<u8> {
        if self.inbox.is_empty() { Vec::new() } else { mem::take(&mut self.inbox) }
    }

    /// Goes on with what was put away, or with nothing.
    fn take_up(&mut self, inbox: Vec<u8>) {
        self.inbox.clear();
        if !inbox.is_empty() {
            self.inbox = inbox;
        }
    }
}

impl Joint {
    /// A client whose put is nothing but told.
    #[cfg(test)]
    pub(super) fn of(client: Box<Client>, service: &service::Service) -> Self {
        let asked =
            Asked { trace: Trace::new(service, Peer::Local), method: Method::Post, keep_alive: true, _held: None };
        let request = Request::new(Method::Post, "/messages");
        Self { client, put: Box::new(Put { request, asked }), inbox: Vec::new() }
    }

    /// Answers with what is stored, or asks alone, and goes on.
    pub(super) fn go_on(
        self,
        stored: Option<Digest>,
        duty: Duty,
        house: &House,
        desk: &mut Desk,
    ) -> (Left, Option<Duty>) {
        let Self { mut client, put, inbox } = self;
        let Put { request, asked } = *put;
        client.stream.set_duty(Some(duty));
        desk.take_up(inbox);
        let mut connection = Connection { client, desk, house };
        let answer = stored.map_or_else(|| connection.answer(request), service::stored);
        let next = connection.conclude(&answer, &asked).and_then(|()| connection.more_requests());
        connection.leave(next)
    }
}
