//! Byte rules of heads, chunk extensions and trailers: CR and LF occur only as CRLF, and no other control character
//! than HTAB is legal. httparse accepts bare LFs and leading empty lines, so its input is checked here first.

/// Number of bytes that [`has_no_controls`] checks at once.
pub(super) const SCAN_WIDTH: usize = 8;

/// Returns whether `bytes` has no control character. There is no early exit, because testing all bytes is faster.
pub(super) fn has_no_controls(bytes: [u8; SCAN_WIDTH]) -> bool {
    bytes.iter().filter(|&&byte| byte < b' ' || byte == 0x7f).count() == 0
}

/// Returns whether `byte` may follow `previous` in a head.
pub(super) const fn is_legal_after(previous: u8, byte: u8) -> bool {
    match byte {
        b'\n' => previous == b'\r',
        _ if previous == b'\r' => false,
        b'\r' | b'\t' => true,
        _ => byte >= b' ' && byte != 0x7f,
    }
}
