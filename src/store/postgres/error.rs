//! Classification of database errors: which [`Error`] an error becomes, and whether a retry can succeed.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use tokio_postgres::error::{DbError, SqlState};

use crate::message_store::Error;

/// Error of one execution.
pub(super) enum QueryError {
    /// The database reported an error, or the connection failed.
    Statement(tokio_postgres::Error),
    /// The result was received, but cannot be used.
    Store(Error),
    /// The database committed the transaction without waiting for its synchronous standby. Contains its warning.
    NotReplicated(String),
    /// The database did not answer within the time limit.
    TimedOut,
}

impl From<tokio_postgres::Error> for QueryError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Statement(error)
    }
}

impl QueryError {
    /// Returns the SQLSTATE if the database reported one.
    pub(super) fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Statement(error) => error.code(),
            _ => None,
        }
    }

    /// Converts the error. `name` is the redacted URL.
    pub(super) fn classify(self, name: &str) -> Error {
        match self {
            Self::Statement(error) => classify(name, &error),
            Self::Store(error) => error,
            Self::NotReplicated(warning) => unavailable(
                name,
                format!("the change may not be replicated to the standby: {warning}; check the standby and try again"),
            ),
            Self::TimedOut => unavailable(name, "no response in time; raise --db-statement-timeout"),
        }
    }
}

/// Creates the error of a database that a later attempt may reach.
pub(super) fn unavailable(name: &str, cause: impl Into<String>) -> Error {
    Error::Unavailable { server: name.to_owned(), cause: cause.into() }
}

/// Converts an error of the database or of its connection. `name` is the redacted URL.
pub(super) fn classify(name: &str, error: &tokio_postgres::Error) -> Error {
    let server = name.to_owned();
    let Some(db_error) = error.as_db_error() else {
        // The text of a connection error does not contain its cause.
        let cause = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        return match is_permanent(error) {
            true => Error::Server { server, cause },
            false => Error::Unavailable { server, cause },
        };
    };
    let code = db_error.code();
    let cause = error_text(db_error);
    match *code {
        SqlState::DISK_FULL => Error::NoSpace(PathBuf::from(server)),
        SqlState::READ_ONLY_SQL_TRANSACTION => Error::ReadOnly(server),
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            let remedy = "check pg_hba.conf of the server, and sslmode, sslcert and sslkey in the URL";
            Error::Server { server, cause: format!("{cause}; {remedy}") }
        }
        SqlState::INSUFFICIENT_PRIVILEGE => Error::NotPermitted { server, cause },
        // The tables existed when the store was opened. They are not created again, so that the loss is noticed.
        SqlState::UNDEFINED_TABLE => {
            let remedy = "the table was dropped, or the database was replaced; restore it from a backup";
            Error::Server { server, cause: format!("{cause}; {remedy}") }
        }
        // A statement, or its wait for a lock, took too long.
        SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => {
            let remedy = "raise --db-statement-timeout, or lock_timeout of the database";
            Error::Unavailable { server, cause: format!("{cause}; {remedy}") }
        }
        _ if is_connection_lost(code) || is_class(code, "53") => Error::Unavailable { server, cause },
        _ => Error::Server { server, cause },
    }
}

/// Formats the message and the SQLSTATE, but not the details, which can contain stored data.
fn error_text(db_error: &DbError) -> String {
    format!("{} ({})", db_error.message(), db_error.code().code())
}

/// Returns whether waiting cannot resolve a connection error: the server was reached, but one side rejected the other.
fn is_permanent(error: &tokio_postgres::Error) -> bool {
    let Some(source) = error.source() else { return false };
    let Some(io_error) = source.downcast_ref::<io::Error>() else { return true };
    matches!(io_error.get_ref(), Some(inner) if inner.is::<rustls::Error>())
}

/// Returns whether the transaction was aborted because of a conflict with another one, so that a retry can succeed.
pub(super) fn is_serialization_failure(code: &SqlState) -> bool {
    [&SqlState::T_R_SERIALIZATION_FAILURE, &SqlState::T_R_DEADLOCK_DETECTED].contains(&code)
}

/// Returns whether the connection was closed.
pub(super) fn is_connection_lost(code: &SqlState) -> bool {
    const CONNECTION_LOST_CODES: [SqlState; 5] = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::IDLE_SESSION_TIMEOUT,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    is_class(code, "08") || CONNECTION_LOST_CODES.contains(code)
}

/// Returns whether a SQLSTATE belongs to a class, the first two characters of the code.
fn is_class(code: &SqlState, class: &str) -> bool {
    code.code().starts_with(class)
}
