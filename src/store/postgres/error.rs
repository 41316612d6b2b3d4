//! Classification of database errors: which [`Error`] an error becomes, and whether a retry can succeed.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use tokio_postgres::error::{DbError, SqlState};

use crate::message_store::Error;

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
    match code.code() {
        "53100" => Error::NoSpace(PathBuf::from(server)),
        "25006" => Error::ReadOnly(server),
        "28000" => {
            let remedy = "check pg_hba.conf of the server, and sslmode, sslcert and sslkey in the URL";
            Error::Server { server, cause: format!("{cause}; {remedy}") }
        }
        "42501" => Error::NotPermitted { server, cause },
        // A statement, or its wait for a lock, took too long.
        "57014" | "55P03" => {
            let remedy = "raise --db-statement-timeout, or lock_timeout of the database";
            Error::Unavailable { server, cause: format!("{cause}; {remedy}") }
        }
        _ if is_connection_lost(code) || code.code().starts_with("53") => Error::Unavailable { server, cause },
        _ => Error::Server { server, cause },
    }
}

/// Formats the message and the SQLSTATE, but not the details, which can contain stored data.
fn error_text(db_error: &DbError) -> String {
    format!("{} ({})", db_error.message(), db_error.code().code())
}

/// Returns whether a retry is useless: the cause is a TLS error, or not an I/O error, for example a failed
/// authentication. An error without a cause, such as a closed connection, may be temporary.
fn is_permanent(error: &tokio_postgres::Error) -> bool {
    let Some(source) = error.source() else { return false };
    let Some(io_error) = source.downcast_ref::<io::Error>() else { return true };
    matches!(io_error.get_ref(), Some(inner) if inner.is::<rustls::Error>())
}

/// Returns whether the transaction was aborted because of a conflict with another one, so that a retry can succeed.
pub(super) fn is_serialization_failure(code: &SqlState) -> bool {
    ["40001", "40P01"].contains(&code.code())
}

/// Returns whether the connection is unusable: it was closed, or its prepared statements are no longer valid.
pub(super) fn is_connection_lost(code: &SqlState) -> bool {
    const CONNECTION_LOST_CODES: [&str; 7] = ["57P01", "57P02", "57P03", "57P05", "25P03", "26000", "0A000"];
    code.code().starts_with("08") || CONNECTION_LOST_CODES.contains(&code.code())
}
