//! Bytes that nobody can guess, from the operating system.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// As many as the caller takes.
pub fn bytes<const COUNT: usize>() -> io::Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    let mut filled = 0;
    while filled < COUNT {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}
