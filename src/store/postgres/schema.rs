//! The tables. They are created on first use, but only if an existing table `messages` belongs to sha-api.

use tokio_postgres::types::Type;

use super::pool::Idempotent;
use super::{MAX_ATTEMPTS, Postgres};
use crate::message_store::Error;
use crate::store::StoreEvent;

/// Version of the tables in [`SCHEMA_SQL`].
const SCHEMA_VERSION: i32 = 1;
const SCHEMA_SQL: &str = include_str!("schema.sql");

/// State of the table `messages`.
enum SchemaState {
    Missing,
    Compatible,
    /// The table of another program, with the first difference found.
    Foreign(String),
}

impl Postgres {
    /// Creates the tables if they do not exist. Fails if they belong to another program or have another version.
    pub(super) fn ensure_schema(&self) -> Result<(), Error> {
        let mut created = Ok(());
        for _ in 0..MAX_ATTEMPTS {
            if let SchemaState::Foreign(difference) = self.inspect()? {
                return Err(self.foreign_schema(&difference));
            }
            match self.schema_version()? {
                Some(SCHEMA_VERSION) => return Ok(()),
                Some(other) => {
                    let name = self.pool.name();
                    return Err(Error::Unusable(format!(
                        "cannot use {name}: its tables have version {other}, but this program supports version \
                         {SCHEMA_VERSION} only; use a newer release"
                    )));
                }
                // Two processes may create the tables at the same time. One fails, and finds them in the next round.
                None => created = self.create_schema(),
            }
        }
        created
    }

    /// Checks the columns of the table `messages`.
    fn inspect(&self) -> Result<SchemaState, Error> {
        const SELECT_COLUMNS: &str = "SELECT digest, message, stored_at FROM messages";
        const TYPES: [Type; 3] = [Type::BYTEA, Type::BYTEA, Type::TIMESTAMPTZ];
        self.pool.run(Idempotent::Yes, async |session| {
            let statement = match session.prepare(SELECT_COLUMNS).await {
                Ok(statement) => statement,
                Err(error) => {
                    return match error.as_db_error() {
                        Some(db_error) if db_error.code().code() == "42P01" => Ok(SchemaState::Missing),
                        Some(db_error) if db_error.code().code() == "42703" => {
                            Ok(SchemaState::Foreign(db_error.message().to_owned()))
                        }
                        _ => Err(error.into()),
                    };
                }
            };
            let difference =
                statement.columns().iter().zip(TYPES).find(|(column, expected)| column.type_() != expected);
            Ok(difference.map_or(SchemaState::Compatible, |(column, expected)| {
                SchemaState::Foreign(format!("column \"{}\" is {}, not {expected}", column.name(), column.type_()))
            }))
        })
    }

    fn foreign_schema(&self, difference: &str) -> Error {
        let name = self.pool.name();
        Error::Unusable(format!(
            "cannot use {name}: its table `messages` was not created by sha-api: {difference}; use another database, \
             or a separate schema with ?options=-csearch_path%3DSCHEMA"
        ))
    }

    /// Returns the version of the tables, `None` if they do not exist.
    fn schema_version(&self) -> Result<Option<i32>, Error> {
        self.pool.run(Idempotent::Yes, async |session| {
            match session.query_one("SELECT max(version) FROM messages_version", &[]).await {
                Ok(row) => Ok(row.try_get::<_, Option<i32>>(0)?),
                Err(error) if error.code().is_some_and(|code| code.code() == "42P01") => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn create_schema(&self) -> Result<(), Error> {
        self.pool.run(Idempotent::Yes, async |session| Ok(session.batch_execute(SCHEMA_SQL).await?))
    }

    /// Reports settings of the database with which a power cut can lose acknowledged messages.
    pub(super) fn warn_unsafe_settings(&self) -> Result<(), Error> {
        const SELECT_UNSAFE: &str =
            "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'";
        let unsafe_settings = self.pool.run(Idempotent::Yes, async |session| {
            let rows = session.query(SELECT_UNSAFE, &[]).await?;
            Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?)
        })?;
        for setting in unsafe_settings {
            let name = self.pool.name();
            let warning = format!("{setting} is off in {name}: a power cut can lose acknowledged messages; turn it on");
            (self.events)(StoreEvent::Warning(warning));
        }
        Ok(())
    }
}
