//! The line discipline that heads and trailers share: CR and LF only together, no other control character.
//! httparse takes bare LFs and leading empty lines; nothing gets to it that has not passed here.

/// Bytes that are passed at a time if nothing is to be done about them.
pub(super) const STEP: usize = 8;

/// Whether all of `bytes` may stand anywhere in a line. It looks at all of them, which is sooner done than to stop early.
pub(super) fn is_plain(bytes: [u8; STEP]) -> bool {
    bytes.iter().filter(|&&byte| byte < b' ' || byte == 0x7f).count() == 0
}

/// Whether `byte` may follow `before` in a head.
pub(super) const fn may_follow(before: u8, byte: u8) -> bool {
    match byte {
        b'\n' => before == b'\r',
        _ if before == b'\r' => false,
        b'\r' | b'\t' => true,
        _ => byte >= b' ' && byte != 0x7f,
    }
}
