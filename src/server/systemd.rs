//! Interface to systemd: inherited listening sockets and notifications of the server's state.

use std::env;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::warn;

/// Returns the listening sockets inherited from systemd (`sd_listen_fds(3)`), if any.
pub(super) fn listen_fds() -> std::io::Result<Vec<TcpListener>> {
    let mut inherited = listenfd::ListenFd::from_env();
    let listeners = (0..inherited.len()).map(|index| inherited.take_tcp_listener(index));
    listeners.filter_map(Result::transpose).collect()
}

/// Sends `state` to the service manager (`sd_notify(3)`) if `NOTIFY_SOCKET` is set.
pub(super) fn notify(state: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::ffi::OsString::from_vec(name.as_bytes().to_vec())),
    };
    let outcome = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = outcome {
        warn!("cannot notify systemd of {state}: {error}");
    }
}
