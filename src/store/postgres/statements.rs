//! All SQL statements. Statements with parameters are sent unnamed: a pooler that assigns a connection per transaction
//! cannot mix up statements without names. No statement depends on state of the session.

use tokio_postgres::types::Type;

/// A statement and the types of its parameters.
pub(super) struct Statement<const N: usize> {
    pub sql: &'static str,
    pub types: [Type; N],
}

const fn statement<const N: usize>(sql: &'static str, types: [Type; N]) -> Statement<N> {
    Statement { sql, types }
}

/// Begins a transaction that writes, or that confirms what it reads.
///
/// With `synchronous_commit = off` for the role or the database, acknowledged messages could be lost. A transaction that
/// writes no WAL does not wait for the standby at its commit, even if the rows that it found are not replicated yet, so
/// it writes a WAL record if a synchronous standby is configured.
pub(super) const BEGIN_WRITE: &str = "BEGIN; \
    SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'; \
    SELECT pg_logical_emit_message(true, 'sha-api', '') \
    WHERE current_setting('synchronous_standby_names', true) <> '' AND current_setting('transaction_read_only') = 'off'";
pub(super) const COMMIT: &str = "COMMIT";

/// No conflict target is named, because partitions may be foreign tables, which do not support one.
pub(super) const INSERT: Statement<2> = statement(
    "INSERT INTO messages (digest, message) SELECT * FROM unnest($1::bytea[], $2::bytea[]) \
     ON CONFLICT DO NOTHING RETURNING digest",
    [Type::BYTEA_ARRAY, Type::BYTEA_ARRAY],
);
pub(super) const UPDATE_CORRUPT: Statement<2> =
    statement("UPDATE messages SET message = $2, stored_at = now() WHERE digest = $1", [Type::BYTEA, Type::BYTEA]);
pub(super) const REMOVE: Statement<1> =
    statement("DELETE FROM messages WHERE digest = ANY($1) RETURNING digest", [Type::BYTEA_ARRAY]);

pub(super) const HAS: Statement<1> =
    statement("SELECT digest FROM messages WHERE digest = ANY($1)", [Type::BYTEA_ARRAY]);
pub(super) const GET: Statement<1> =
    statement("SELECT digest, message FROM messages WHERE digest = ANY($1)", [Type::BYTEA_ARRAY]);
pub(super) const LENGTHS: Statement<1> =
    statement("SELECT digest, octet_length(message)::bigint FROM messages WHERE digest = ANY($1)", [Type::BYTEA_ARRAY]);
/// One statement per kind of lower bound, so that PostgreSQL starts the index scan at the first entry of the page.
pub(super) const LIST_FROM: Statement<3> = statement(
    "SELECT digest, octet_length(message)::bigint, stored_at FROM messages \
     WHERE digest >= $1 AND digest <= $2 ORDER BY digest LIMIT $3",
    [Type::BYTEA, Type::BYTEA, Type::INT8],
);
pub(super) const LIST_AFTER: Statement<3> = statement(
    "SELECT digest, octet_length(message)::bigint, stored_at FROM messages \
     WHERE digest > $1 AND digest <= $2 ORDER BY digest LIMIT $3",
    [Type::BYTEA, Type::BYTEA, Type::INT8],
);

pub(super) const SELECT_FOR_UPDATE: Statement<1> =
    statement("SELECT message FROM messages WHERE digest = $1 FOR UPDATE", [Type::BYTEA]);
pub(super) const QUARANTINE: Statement<1> = statement(
    "INSERT INTO messages_quarantine (digest, message, stored_at) \
     SELECT digest, message, stored_at FROM messages WHERE digest = $1",
    [Type::BYTEA],
);
pub(super) const DELETE: Statement<1> = statement("DELETE FROM messages WHERE digest = $1", [Type::BYTEA]);
pub(super) const RECORD_VERIFICATION: Statement<1> =
    statement("INSERT INTO messages_verified (damaged) VALUES ($1)", [Type::INT8]);
pub(super) const LAST_VERIFICATION: Statement<0> =
    statement("SELECT verified_at, damaged FROM messages_verified ORDER BY verified_at DESC LIMIT 1", []);

/// The count reads the whole table, so it has no statement timeout, but it does not wait for a lock without a limit.
pub(super) fn begin_count(lock_timeout: std::time::Duration) -> String {
    let lock_timeout = lock_timeout.as_millis();
    format!("BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {lock_timeout}; SELECT pg_backend_pid()")
}
pub(super) const COUNT: &str = "SELECT count(*), coalesce(sum(octet_length(message)), 0), \
    floor(extract(epoch FROM max(stored_at))) FROM messages; COMMIT";
/// Returns `true` while a backend executes a statement. The state of a backend of another role is not visible.
pub(super) const IS_ACTIVE: Statement<1> =
    statement("SELECT coalesce(state, 'active') = 'active' FROM pg_stat_activity WHERE pid = $1", [Type::INT4]);
/// The partition tree of a table without partitions may be empty, so the size of the table itself is added.
pub(super) const DISK: Statement<0> = statement(
    "SELECT (pg_total_relation_size('messages') + coalesce(sum(pg_total_relation_size(relid)) \
     FILTER (WHERE relid <> 'messages'::regclass), 0))::bigint FROM pg_partition_tree('messages')",
    [],
);

/// Fails if the table is missing or cannot be read. Reads no row.
pub(super) const HEALTH: Statement<0> = statement(
    "SELECT current_setting('transaction_read_only') = 'on', has_table_privilege('messages', 'INSERT') \
     FROM (SELECT 1) AS one LEFT JOIN (SELECT digest, message FROM messages LIMIT 0) AS readable ON true",
    [],
);

pub(super) const CREATE_TABLES: &str = include_str!("schema.sql");
pub(super) const SCHEMA_VERSION: Statement<0> = statement("SELECT max(version) FROM messages_version", []);
/// The types of the columns by name. The result has one row, even if the table has none.
pub(super) const COLUMN_TYPES: Statement<0> = statement(
    "SELECT pg_typeof(digest)::text, pg_typeof(message)::text, pg_typeof(stored_at)::text \
     FROM (SELECT 1) AS one LEFT JOIN (SELECT digest, message, stored_at FROM messages LIMIT 0) AS columns ON true",
    [],
);
pub(super) const UNSAFE_SETTINGS: Statement<0> =
    statement("SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'", []);
