//! How the tree keeps where a record stands.

use crate::store::log::{Kind, Position};

/// A message has 16 bytes, a compressed one its own length behind them, a removal only the first 12.
pub fn encode(position: &Position) -> Vec<u8> {
    let offset = u32::try_from(position.offset / 8).expect("a segment is shorter than 32 GiB");
    let Position { segment, stored, length, time, .. } = *position;
    let numbers: &[u32] = match position.kind {
        Kind::Message => &[segment, offset, time, length],
        Kind::Compressed => &[segment, offset, time, stored, length],
        Kind::Removal => &[segment, offset, time],
    };
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> std::io::Result<Position> {
    let (kind, stored, length) = match bytes.len() {
        12 => (Kind::Removal, 0, 0),
        16 => (Kind::Message, number(bytes, 12), number(bytes, 12)),
        20 => (Kind::Compressed, number(bytes, 12), number(bytes, 16)),
        _ => return Err(foreign("position")),
    };
    let [segment, offset, time] = [0, 4, 8].map(|at| number(bytes, at));
    Ok(Position { kind, segment, offset: u64::from(offset) * 8, stored, length, time })
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// For what the tree holds and nobody here wrote.
pub fn foreign(what: &str) -> std::io::Error {
    std::io::Error::other(format!("it holds a {what} of another form"))
}
