//! Who is inside: how many connections there are, in all and from each address, and which of them are idle.
//! A guest is counted from before anything is spent on it until after all that it held is gone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::socket::Socket;
use crate::server::{Limits, TrustedProxies};

/// All connections.
pub(super) struct ConnectionRegistry {
    max: usize,
    max_per_address: usize,
    /// Who is not counted by address.
    trusted_proxies: TrustedProxies,
    draining: AtomicBool,
    next_id: AtomicU64,
    state: Mutex<RegistryState>,
}

#[derive(Default)]
struct RegistryState {
    connections: HashMap<u64, Arc<ConnectionHandle>>,
    addresses: HashMap<IpAddr, usize>,
    /// Called when the last one leaves a roster that drains.
    on_drained: Option<Box<dyn FnOnce() + Send>>,
}

/// What others may do to a connection.
struct ConnectionHandle {
    socket: Arc<Socket>,
    idle: Mutex<bool>,
}

/// One connection's place. It is free again when this goes.
pub(super) struct ConnectionPermit {
    registry: Arc<ConnectionRegistry>,
    id: u64,
    address: Option<IpAddr>,
    handle: Arc<ConnectionHandle>,
}

impl ConnectionRegistry {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            max: limits.max_connections,
            max_per_address: limits.max_connections_per_address,
            trusted_proxies: limits.trusted_proxies.clone(),
            draining: AtomicBool::new(false),
            next_id: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// A place for a connection, idle at first; `None` if there is none left, at all or for its address.
    pub(super) fn try_acquire(self: &Arc<Self>, socket: &Arc<Socket>) -> Option<ConnectionPermit> {
        let address = socket.peer().filter(|&peer| !self.trusted_proxies.contains(peer)).map(limit_key);
        let mut inside = self.lock();
        if inside.connections.len() >= self.max {
            return None;
        }
        if let Some(address) = address {
            let count = inside.addresses.entry(address).or_default();
            if *count >= self.max_per_address {
                return None;
            }
            *count += 1;
        }
        let name = self.next_id.fetch_add(1, Ordering::Relaxed);
        let seat = Arc::new(ConnectionHandle { socket: Arc::clone(socket), idle: Mutex::new(true) });
        inside.connections.insert(name, Arc::clone(&seat));
        Some(ConnectionPermit { registry: Arc::clone(self), id: name, address, handle: seat })
    }

    /// Whether nobody is inside.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().connections.is_empty()
    }

    /// Whether connections are to end with the request in hand.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Ends all connections: the idle at once, the others after their request. Calls `when_empty` after the last.
    pub(super) fn drain(&self, on_drained: Box<dyn FnOnce() + Send>) {
        self.draining.store(true, Ordering::SeqCst);
        let mut inside = self.lock();
        for seat in inside.connections.values() {
            if *seat.lock() {
                seat.socket.shutdown_read();
            }
        }
        if inside.connections.is_empty() {
            drop(inside);
            on_drained();
        } else {
            inside.on_drained = Some(on_drained);
        }
    }

    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionHandle {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// What no other is called.
    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    /// Whose connection it is.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        self.handle.socket.peer()
    }

    /// No request is in hand: the connection may be ended. `false`: it is to end now.
    pub(super) fn mark_idle(&self) -> bool {
        *self.handle.lock() = true;
        // After the mark is set: either this sees the drain, or the drain sees the mark.
        !self.registry.is_draining()
    }

    /// A request has begun.
    pub(super) fn mark_busy(&self) {
        *self.handle.lock() = false;
    }

    /// Whether the connection is to end with the request in hand.
    pub(super) fn is_draining(&self) -> bool {
        self.registry.is_draining()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut inside = self.registry.lock();
        inside.connections.remove(&self.id);
        if let Some(address) = self.address
            && let Some(count) = inside.addresses.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                inside.addresses.remove(&address);
            }
        }
        let last = if inside.connections.is_empty() { inside.on_drained.take() } else { None };
        drop(inside);
        if let Some(when_empty) = last {
            when_empty();
        }
    }
}

/// What counts as one address: of IPv6 the /64, since whoever has one address there has them all.
fn limit_key(address: IpAddr) -> IpAddr {
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
    fn the_limit_key_is_one_ipv4_address_or_one_ipv6_64_bit_prefix() {
        let household = |text: &str| limit_key(text.parse().unwrap()).to_string();
        assert_eq!(household("192.0.2.1"), "192.0.2.1");
        assert_eq!(household("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(household("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
