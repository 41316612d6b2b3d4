//! The line discipline that heads and trailers share: CR and LF only together, no other control character.
//! httparse takes bare LFs and leading empty lines; nothing gets to it that has not passed here.

/// Whether `byte` may follow `before` in a head.
pub(super) const fn may_follow(before: u8, byte: u8) -> bool {
    match byte {
        b'\n' => before == b'\r',
        _ if before == b'\r' => false,
        b'\r' | b'\t' => true,
        _ => byte >= b' ' && byte != 0x7f,
    }
}
