//! Who is inside: how many connections there are, in all and from each address, and which of them are idle.
//! A guest is counted from before anything is spent on it until after all that it held is gone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::socket::Socket;
use crate::server::{Limits, Proxies};

/// All connections.
pub(super) struct Roster {
    max: usize,
    max_per_address: usize,
    /// Who is not counted by address.
    exempt: Proxies,
    draining: AtomicBool,
    names: AtomicU64,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    guests: HashMap<u64, Arc<Seat>>,
    addresses: HashMap<IpAddr, usize>,
    /// Called when the last one leaves a roster that drains.
    when_empty: Option<Box<dyn FnOnce() + Send>>,
}

/// What others may do to a connection.
struct Seat {
    socket: Arc<Socket>,
    idle: Mutex<bool>,
}

/// One connection's place. It is free again when this goes.
pub(super) struct Guest {
    roster: Arc<Roster>,
    name: u64,
    address: Option<IpAddr>,
    seat: Arc<Seat>,
}

impl Roster {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            max: limits.connections,
            max_per_address: limits.connections_per_address,
            exempt: limits.trusted_proxies.clone(),
            draining: AtomicBool::new(false),
            names: AtomicU64::new(0),
            inside: Mutex::default(),
        }
    }

    /// A place for a connection, idle at first; `None` if there is none left, at all or for its address.
    pub(super) fn admit(self: &Arc<Self>, socket: &Arc<Socket>) -> Option<Guest> {
        let address = socket.peer().filter(|&peer| !self.exempt.trust(peer)).map(household);
        let mut inside = self.lock();
        if inside.guests.len() >= self.max {
            return None;
        }
        if let Some(address) = address {
            let count = inside.addresses.entry(address).or_default();
            if *count >= self.max_per_address {
                return None;
            }
            *count += 1;
        }
        let name = self.names.fetch_add(1, Ordering::Relaxed);
        let seat = Arc::new(Seat { socket: Arc::clone(socket), idle: Mutex::new(true) });
        inside.guests.insert(name, Arc::clone(&seat));
        Some(Guest { roster: Arc::clone(self), name, address, seat })
    }

    /// Whether nobody is inside.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().guests.is_empty()
    }

    /// Whether connections are to end with the request in hand.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Ends all connections: the idle at once, the others after their request. Calls `when_empty` after the last.
    pub(super) fn drain(&self, when_empty: Box<dyn FnOnce() + Send>) {
        self.draining.store(true, Ordering::SeqCst);
        let mut inside = self.lock();
        for seat in inside.guests.values() {
            if *seat.lock() {
                seat.socket.stop_reading();
            }
        }
        if inside.guests.is_empty() {
            drop(inside);
            when_empty();
        } else {
            inside.when_empty = Some(when_empty);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// What no other is called.
    pub(super) const fn name(&self) -> u64 {
        self.name
    }

    /// Whose connection it is.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        self.seat.socket.peer()
    }

    /// No request is in hand: the connection may be ended. `false`: it is to end now.
    pub(super) fn rests(&self) -> bool {
        *self.seat.lock() = true;
        // After the mark is set: either this sees the drain, or the drain sees the mark.
        !self.roster.is_draining()
    }

    /// A request has begun.
    pub(super) fn works(&self) {
        *self.seat.lock() = false;
    }

    /// Whether the connection is to end with the request in hand.
    pub(super) fn is_last_call(&self) -> bool {
        self.roster.is_draining()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut inside = self.roster.lock();
        inside.guests.remove(&self.name);
        if let Some(address) = self.address
            && let Some(count) = inside.addresses.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                inside.addresses.remove(&address);
            }
        }
        let last = if inside.guests.is_empty() { inside.when_empty.take() } else { None };
        drop(inside);
        if let Some(when_empty) = last {
            when_empty();
        }
    }
}

/// What counts as one address: of IPv6 the /64, since whoever has one address there has them all.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_v4_address_or_one_v6_network_of_64_bits() {
        let household = |text: &str| household(text.parse().unwrap()).to_string();
        assert_eq!(household("192.0.2.1"), "192.0.2.1");
        assert_eq!(household("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(household("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
