//! The tables: made on first use, and looked at before, since what is called `messages` may be another program's.

use tokio_postgres::types::Type;

use super::pool::Idempotent;
use super::{MAX_ATTEMPTS, Postgres};
use crate::message_store::Error;
use crate::store::StoreEvent;

/// The version of the tables that this program makes.
const SCHEMA_VERSION: i32 = 1;
/// How the tables are made.
const SCHEMA_SQL: &str = include_str!("schema.sql");

/// What is found under a name.
enum SchemaState {
    Missing,
    Compatible,
    /// With this in it that ours have not, or without it.
    Foreign(String),
}

impl Postgres {
    /// Makes sure that the tables are there, and ours.
    pub(super) fn ensure_schema(&self) -> Result<(), Error> {
        let mut made = Ok(());
        for _ in 0..MAX_ATTEMPTS {
            if let SchemaState::Foreign(why) = self.inspect()? {
                return Err(self.foreign_schema(&why));
            }
            match self.schema_version()? {
                Some(SCHEMA_VERSION) => return Ok(()),
                Some(other) => {
                    let name = self.pool.name();
                    return Err(Error::Unusable(format!(
                        "the tables in {name} are of version {other}, this program knows {SCHEMA_VERSION}; use a newer one"
                    )));
                }
                // Another may be making them: then one of the two fails, and finds them made.
                None => made = self.create_schema(),
            }
        }
        made
    }

    /// What `messages` is.
    fn inspect(&self) -> Result<SchemaState, Error> {
        const SELECT_COLUMNS: &str = "SELECT digest, message, stored_at FROM messages";
        const TYPES: [Type; 3] = [Type::BYTEA, Type::BYTEA, Type::TIMESTAMPTZ];
        self.pool.run(Idempotent::Yes, async |session| {
            let columns = match session.prepare(SELECT_COLUMNS).await {
                Ok(statement) => statement,
                Err(why) => {
                    return match why.as_db_error() {
                        Some(said) if said.code().code() == "42P01" => Ok(SchemaState::Missing),
                        Some(said) if said.code().code() == "42703" => {
                            Ok(SchemaState::Foreign(said.message().to_owned()))
                        }
                        _ => Err(why.into()),
                    };
                }
            };
            let wrong = columns.columns().iter().zip(TYPES).find(|(column, kind)| column.type_() != kind);
            Ok(wrong.map_or(SchemaState::Compatible, |(column, kind)| {
                SchemaState::Foreign(format!("column \"{}\" is {}, not {kind}", column.name(), column.type_()))
            }))
        })
    }

    fn foreign_schema(&self, why: &str) -> Error {
        let name = self.pool.name();
        Error::Unusable(format!(
            "the table `messages` in {name} is not one of ours: {why}; name another database, or a schema of its own \
             with ?options=-csearch_path%3DSCHEMA"
        ))
    }

    /// The version of the tables; `None`: there are none.
    fn schema_version(&self) -> Result<Option<i32>, Error> {
        self.pool.run(Idempotent::Yes, async |session| {
            match session.query_one("SELECT max(version) FROM messages_version", &[]).await {
                Ok(row) => Ok(row.try_get::<_, Option<i32>>(0)?),
                Err(why) if why.code().is_some_and(|code| code.code() == "42P01") => Ok(None),
                Err(why) => Err(why.into()),
            }
        })
    }

    fn create_schema(&self) -> Result<(), Error> {
        self.pool.run(Idempotent::Yes, async |session| Ok(session.batch_execute(SCHEMA_SQL).await?))
    }

    /// Says what takes from the promise that an acknowledged message survives a power cut.
    pub(super) fn warn_unsafe_settings(&self) -> Result<(), Error> {
        const SELECT_UNSAFE: &str =
            "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'";
        let off = self.pool.run(Idempotent::Yes, async |session| {
            let rows = session.query(SELECT_UNSAFE, &[]).await?;
            Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?)
        })?;
        for name in off {
            let database = self.pool.name();
            let line = format!("{name} is off in {database}: a power cut there may take what was acknowledged");
            (self.events)(StoreEvent::Message(line));
        }
        Ok(())
    }
}
