//! The socket beside a store that is served: its name, and an address for it however long its path is.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

/// What it is called in the directory of the store.
pub const SOCKET_NAME: &str = "sha-api.sock";

/// Calls `work` with the address of a path.
///
/// An address has room for 107 bytes; below the descriptor of its directory, every path is short.
pub fn with_address<T>(path: &Path, work: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<T>) -> io::Result<T> {
    match SocketAddrUnix::new(path) {
        Err(Errno::NAMETOOLONG) => {}
        address => return Ok(work(&address?)?),
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    Ok(work(&SocketAddrUnix::new(&short)?)?)
}
