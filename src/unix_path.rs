//! The Unix socket of a served store: its file name, and socket addresses for paths of any length.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

/// File name of the socket in the directory of the store.
pub const SOCKET_NAME: &str = "sha-api.sock";

/// Calls `work` with the socket address of `path`.
///
/// A socket address has at most 107 bytes. A longer path is addressed through `/proc/self/fd` and an open descriptor of
/// its directory.
pub fn with_address<T>(path: &Path, work: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<T>) -> io::Result<T> {
    match SocketAddrUnix::new(path) {
        Err(Errno::NAMETOOLONG) => {}
        address => return Ok(work(&address?)?),
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short_path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    Ok(work(&SocketAddrUnix::new(&short_path)?)?)
}
