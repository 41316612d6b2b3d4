//! Options of the PostgreSQL backend, and its limits.

use std::time::Duration;

use crate::store::EventSink;

/// Target size in bytes of the messages in one statement. A single longer message is allowed.
pub(super) const STATEMENT_BYTES: u64 = 8 << 20;
/// Maximum number of messages in one statement.
pub(super) const STATEMENT_ROWS: usize = 1 << 12;
/// Maximum number of attempts to create the tables, or to put a message that other clients keep removing.
pub(super) const MAX_ATTEMPTS: usize = 8;
/// Maximum length of a message in bytes. PostgreSQL limits a row and a protocol message to 1 GiB.
pub const MAX_MESSAGE_BYTES: u64 = 512 << 20;

/// Options of a PostgreSQL backend.
pub struct Options {
    /// URL of the database: `postgres://…`.
    pub url: String,
    /// Maximum number of connections.
    pub pool_size: usize,
    /// Maximum time to establish a connection, or to wait for a free one.
    pub connect_timeout: Duration,
    /// Maximum time for one statement; zero disables the limit.
    pub statement_timeout: Duration,
    /// Time during which an unavailable database is tried again.
    pub ready_timeout: Duration,
    /// Receiver of warnings and repair reports.
    pub events: EventSink,
}
