//! Generates distinct, incompressible messages at negligible cost, and pseudo-random numbers.

use std::sync::LazyLock;

/// Random bytes of which messages are slices.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random(1);
    (0..1 << 18).flat_map(|_| random.next().to_le_bytes()).collect()
});

/// A deterministic pseudo-random number generator (`xorshift64*`).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }
}

/// Returns the message for a thread and a number; no two pairs share a message.
pub fn message(length: usize, thread: u64, number: u64) -> Vec<u8> {
    let start = Random(thread << 32 ^ number ^ 0x9E37_79B9_7F4A_7C15).below(BYTES.len() - length);
    let mut message = BYTES[start..start + length].to_vec();
    message[..8].copy_from_slice(&number.to_le_bytes());
    message[8..16].copy_from_slice(&thread.to_le_bytes());
    message
}

/// Returns a distinct message of letters, digits, `-` and `_`, which needs no escaping in a line or in JSON.
pub fn text(length: usize, thread: u64, number: u64) -> String {
    const LETTERS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
    let unique = format!("{thread:x}-{number:x}-");
    let rest = message(length, thread, number).into_iter().skip(unique.len());
    unique.chars().chain(rest.map(|byte| char::from(LETTERS[usize::from(byte % 64)]))).collect()
}
