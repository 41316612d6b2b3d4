//! The tables. They are created on first use, unless the database has a table `messages` of another program.

use tokio_postgres::error::SqlState;

use super::error::QueryError;
use super::options::MAX_ATTEMPTS;
use super::pool::{ConnectionPool, Idempotent};
use super::statements::{COLUMN_TYPES, CREATE_TABLES, SCHEMA_VERSION, UNSAFE_SETTINGS};
use crate::message_store::Error;
use crate::store::{EventSink, StoreEvent};

/// Version of the tables in [`CREATE_TABLES`].
const CURRENT_VERSION: i32 = 1;

/// State of the table `messages`.
enum SchemaState {
    Missing,
    Compatible,
    /// The table of another program, with the first difference found.
    Foreign(String),
}

/// Creates the tables if they do not exist. Fails if they belong to another program or have another version.
pub(super) fn ensure(pool: &ConnectionPool) -> Result<(), Error> {
    let mut created = Ok(());
    for _ in 0..MAX_ATTEMPTS {
        if let SchemaState::Foreign(difference) = inspect(pool)? {
            return Err(foreign_schema(pool.name(), &difference));
        }
        match version(pool)? {
            Some(CURRENT_VERSION) => return Ok(()),
            Some(other) => {
                let name = pool.name();
                return Err(Error::Unusable(format!(
                    "cannot use {name}: its tables have version {other}, but this program supports version \
                     {CURRENT_VERSION} only; use a newer release"
                )));
            }
            // Two processes may create the tables at the same time. One fails, and finds them in the next round.
            None => created = create(pool),
        }
    }
    created
}

/// Checks the columns of the table `messages`.
fn inspect(pool: &ConnectionPool) -> Result<SchemaState, Error> {
    const COLUMNS: [(&str, &str); 3] =
        [("digest", "bytea"), ("message", "bytea"), ("stored_at", "timestamp with time zone")];
    pool.run(Idempotent::Yes, async |session| {
        let rows = match session.read(&COLUMN_TYPES, []).await {
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => return Ok(SchemaState::Missing),
            Err(QueryError::Statement(error)) if error.code() == Some(&SqlState::UNDEFINED_COLUMN) => {
                let difference = error.as_db_error().map_or_else(String::new, |error| error.message().to_owned());
                return Ok(SchemaState::Foreign(difference));
            }
            outcome => outcome?,
        };
        for (index, (column, expected)) in COLUMNS.into_iter().enumerate() {
            let found: &str = rows[0].try_get(index)?;
            if found != expected {
                return Ok(SchemaState::Foreign(format!("column \"{column}\" is {found}, not {expected}")));
            }
        }
        Ok(SchemaState::Compatible)
    })
}

fn foreign_schema(name: &str, difference: &str) -> Error {
    Error::Unusable(format!(
        "cannot use {name}: its table `messages` was not created by sha-api: {difference}; use another database, or a \
         separate schema with ?options=-csearch_path%3DSCHEMA"
    ))
}

/// Returns the version of the tables, `None` if they do not exist.
fn version(pool: &ConnectionPool) -> Result<Option<i32>, Error> {
    pool.run(Idempotent::Yes, async |session| match session.read(&SCHEMA_VERSION, []).await {
        Ok(rows) => Ok(rows[0].try_get(0)?),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(error),
    })
}

fn create(pool: &ConnectionPool) -> Result<(), Error> {
    pool.run(Idempotent::Yes, async |session| session.simple(CREATE_TABLES).await.map(drop))
}

/// Reports settings of the database with which a power cut can lose acknowledged messages.
pub(super) fn warn_unsafe_settings(pool: &ConnectionPool, events: &EventSink) -> Result<(), Error> {
    let unsafe_settings = pool.run(Idempotent::Yes, async |session| {
        let rows = session.read(&UNSAFE_SETTINGS, []).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?)
    })?;
    for setting in unsafe_settings {
        let name = pool.name();
        let warning = format!("{setting} is off in {name}: a power cut can lose acknowledged messages; turn it on");
        events(StoreEvent::Warning(warning));
    }
    Ok(())
}
