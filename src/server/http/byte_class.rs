//! The line discipline that heads and trailers share: CR and LF only together, no other control character.
//! httparse takes bare LFs and leading empty lines; nothing gets to it that has not passed here.

/// Bytes that are passed at a time if nothing is to be done about them.
pub(super) const SCAN_WIDTH: usize = 8;

/// Whether all of `bytes` may stand anywhere in a line. It looks at all of them, which is sooner done than to stop early.
pub(super) fn has_no_controls(bytes: [u8; SCAN_WIDTH]) -> bool {
    bytes.iter().filter(|&&byte| byte < b' ' || byte == 0x7f).count() == 0
}

/// Whether `byte` may follow `before` in a head.
pub(super) const fn is_legal_after(previous: u8, byte: u8) -> bool {
    match byte {
        b'\n' => previous == b'\r',
        _ if previous == b'\r' => false,
        b'\r' | b'\t' => true,
        _ => byte >= b' ' && byte != 0x7f,
    }
}
