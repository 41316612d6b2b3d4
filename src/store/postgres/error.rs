//! What an error of the database means for who asked: whether it may be tried again, and what is said.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use tokio_postgres::error::{DbError, SqlState};

use crate::message_store::Error;

/// What to say of an error of the database, or of the way to it.
pub(super) fn classify(name: &str, why: &tokio_postgres::Error) -> Error {
    let server = name.to_owned();
    let Some(said) = why.as_db_error() else {
        // What it was is in the error behind it.
        let cause = why.source().map_or_else(|| why.to_string(), |cause| format!("{why}: {cause}"));
        return match is_permanent(why) {
            true => Error::Server { server, cause },
            false => Error::Unavailable { server, cause },
        };
    };
    let code = said.code();
    match code.code() {
        "53100" => Error::NoSpace(PathBuf::from(server)),
        "25006" => Error::ReadOnly(server),
        "28000" => {
            let asked = "its pg_hba.conf says what it asks for, and sslmode, sslcert and sslkey what it gets";
            Error::Server { server, cause: format!("{}; {asked}", error_text(said)) }
        }
        "42501" => Error::NotPermitted { server, cause: error_text(said) },
        // A statement took too long, or waited too long for a lock.
        "57014" | "55P03" => Error::Unavailable {
            server,
            cause: format!("{}; --db-statement-timeout is how long it may take", error_text(said)),
        },
        _ if is_connection_lost(code) || code.code().starts_with("53") => {
            Error::Unavailable { server, cause: error_text(said) }
        }
        _ => Error::Server { server, cause: error_text(said) },
    }
}

/// Only the message: details may show what is stored.
fn error_text(said: &DbError) -> String {
    format!("{} ({})", said.message(), said.code().code())
}

/// Whether waiting mends nothing: both were there, and one did not accept the other.
fn is_permanent(why: &tokio_postgres::Error) -> bool {
    let Some(cause) = why.source() else { return false };
    let Some(failed) = cause.downcast_ref::<io::Error>() else { return true };
    matches!(failed.get_ref(), Some(inner) if inner.is::<rustls::Error>())
}

/// Two transactions were in each other's way, and this one gave in.
pub(super) fn is_serialization_failure(code: &SqlState) -> bool {
    ["40001", "40P01"].contains(&code.code())
}

/// The connection is of no more use: it was ended, or what was prepared on it does not hold any more.
pub(super) fn is_connection_lost(code: &SqlState) -> bool {
    const CONNECTION_LOST_CODES: [&str; 7] = ["57P01", "57P02", "57P03", "57P05", "25P03", "26000", "0A000"];
    code.code().starts_with("08") || CONNECTION_LOST_CODES.contains(&code.code())
}
