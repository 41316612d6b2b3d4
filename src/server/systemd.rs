//! What systemd hands over and wants to hear: sockets that it listens on already, and when the server is ready.

use std::env;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::warn;

/// The sockets that were handed over (`sd_listen_fds(3)`), none if the server was started otherwise.
pub(super) fn listen_fds() -> std::io::Result<Vec<TcpListener>> {
    let mut inherited = listenfd::ListenFd::from_env();
    let taken = (0..inherited.len()).map(|at| inherited.take_tcp_listener(at));
    taken.filter_map(Result::transpose).collect()
}

/// Says how it stands (`sd_notify(3)`), if someone wants to know.
pub(super) fn notify(state: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::ffi::OsString::from_vec(name.as_bytes().to_vec())),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        warn(format_args!("cannot tell systemd {state}: {error}"));
    }
}
