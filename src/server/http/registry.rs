//! Registry of the open connections of an endpoint: it limits them in total and per client address, and drains them. A
//! connection is registered from before its resources are allocated until after they are released.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::socket::Socket;
use crate::server::limits::Limits;
use crate::server::proxies::TrustedProxies;

/// Open connections and their limits.
pub(super) struct ConnectionRegistry {
    max: usize,
    max_per_address: usize,
    /// Peers without a limit per address.
    trusted_proxies: TrustedProxies,
    draining: AtomicBool,
    next_id: AtomicU64,
    state: Mutex<RegistryState>,
}

#[derive(Default)]
struct RegistryState {
    connections: HashMap<u64, Arc<ConnectionHandle>>,
    addresses: HashMap<IpAddr, usize>,
    /// Callback that runs when the last connection ends during a drain.
    on_drained: Option<Box<dyn FnOnce() + Send>>,
}

/// The part of a connection that other threads may access.
struct ConnectionHandle {
    socket: Arc<Socket>,
    idle: Mutex<bool>,
}

/// Permit of one connection. Dropping it removes the connection from the registry.
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

    /// Acquires a permit for a connection, which is idle at first. `None`: the limit in total or for its address is
    /// reached.
    pub(super) fn try_acquire(self: &Arc<Self>, socket: &Arc<Socket>) -> Option<ConnectionPermit> {
        let address = socket.peer().filter(|&peer| !self.trusted_proxies.contains(peer)).map(limit_key);
        let mut state = self.lock();
        if state.connections.len() >= self.max {
            return None;
        }
        if let Some(address) = address {
            let count = state.addresses.entry(address).or_default();
            if *count >= self.max_per_address {
                return None;
            }
            *count += 1;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let handle = Arc::new(ConnectionHandle { socket: Arc::clone(socket), idle: Mutex::new(true) });
        state.connections.insert(id, Arc::clone(&handle));
        Some(ConnectionPermit { registry: Arc::clone(self), id, address, handle })
    }

    /// Returns whether there are no connections.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().connections.is_empty()
    }

    /// Returns whether connections must be closed after their current request.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Makes idle connections read end of file, and the others close after their current request. Calls `on_drained`
    /// after the last connection has ended.
    pub(super) fn drain(&self, on_drained: Box<dyn FnOnce() + Send>) {
        self.draining.store(true, Ordering::SeqCst);
        let mut state = self.lock();
        for handle in state.connections.values() {
            if *handle.lock() {
                handle.socket.shutdown_read();
            }
        }
        if state.connections.is_empty() {
            drop(state);
            on_drained();
        } else {
            state.on_drained = Some(on_drained);
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
    /// Returns the id of the connection, which is unique in its registry.
    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    /// Returns the client's address, or `None` on the Unix socket.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        self.handle.socket.peer()
    }

    /// Marks the connection idle. Returns `false` if the server is draining and the connection must be closed.
    pub(super) fn mark_idle(&self) -> bool {
        *self.handle.lock() = true;
        // The flag is set before this check: either this call sees the drain, or `drain` sees the flag.
        !self.registry.is_draining()
    }

    /// Marks the connection busy: a request has begun.
    pub(super) fn mark_busy(&self) {
        *self.handle.lock() = false;
    }

    /// Returns whether the connection must be closed after its current request.
    pub(super) fn is_draining(&self) -> bool {
        self.registry.is_draining()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        state.connections.remove(&self.id);
        if let Some(address) = self.address
            && let Some(count) = state.addresses.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                state.addresses.remove(&address);
            }
        }
        let on_drained = if state.connections.is_empty() { state.on_drained.take() } else { None };
        drop(state);
        if let Some(on_drained) = on_drained {
            on_drained();
        }
    }
}

/// Returns the address that is counted: in IPv6 the /64, because one client usually has all of its addresses.
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
        let key = |text: &str| limit_key(text.parse().unwrap()).to_string();
        assert_eq!(key("192.0.2.1"), "192.0.2.1");
        assert_eq!(key("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
