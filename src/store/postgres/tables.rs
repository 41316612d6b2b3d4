//! The tables: made on first use, and looked at before, since what is called `messages` may be another program's.

use tokio_postgres::types::Type;

use super::session::Again;
use super::{Postgres, TURNS};
use crate::messages::Error;
use crate::store::StoreEvent;

/// The version of the tables that this program makes.
const VERSION: i32 = 1;
/// How the tables are made.
const SCHEMA: &str = include_str!("schema.sql");

/// What is found under a name.
enum Found {
    Nothing,
    Ours,
    /// With this in it that ours have not, or without it.
    Foreign(String),
}

impl Postgres {
    /// Makes sure that the tables are there, and ours.
    pub(super) fn enter(&self) -> Result<(), Error> {
        let mut made = Ok(());
        for _ in 0..TURNS {
            if let Found::Foreign(why) = self.look()? {
                return Err(self.foreign(&why));
            }
            match self.version()? {
                Some(VERSION) => return Ok(()),
                Some(other) => {
                    let name = self.sessions.name();
                    return Err(Error::Unusable(format!(
                        "the tables in {name} are of version {other}, this program knows {VERSION}; use a newer one"
                    )));
                }
                // Another may be making them: then one of the two fails, and finds them made.
                None => made = self.make(),
            }
        }
        made
    }

    /// What `messages` is.
    fn look(&self) -> Result<Found, Error> {
        const ASK: &str = "SELECT digest, message, stored_at FROM messages";
        const TYPES: [Type; 3] = [Type::BYTEA, Type::BYTEA, Type::TIMESTAMPTZ];
        self.sessions.run(Again::Yes, async |session| {
            let columns = match session.prepare(ASK).await {
                Ok(statement) => statement,
                Err(why) => {
                    return match why.as_db_error() {
                        Some(said) if said.code().code() == "42P01" => Ok(Found::Nothing),
                        Some(said) if said.code().code() == "42703" => Ok(Found::Foreign(said.message().to_owned())),
                        _ => Err(why.into()),
                    };
                }
            };
            let wrong = columns.columns().iter().zip(TYPES).find(|(column, kind)| column.type_() != kind);
            Ok(wrong.map_or(Found::Ours, |(column, kind)| {
                Found::Foreign(format!("column \"{}\" is {}, not {kind}", column.name(), column.type_()))
            }))
        })
    }

    fn foreign(&self, why: &str) -> Error {
        let name = self.sessions.name();
        Error::Unusable(format!(
            "the table `messages` in {name} is not one of ours: {why}; name another database, or a schema of its own \
             with ?options=-csearch_path%3DSCHEMA"
        ))
    }

    /// The version of the tables; `None`: there are none.
    fn version(&self) -> Result<Option<i32>, Error> {
        self.sessions.run(Again::Yes, async |session| {
            match session.query_one("SELECT max(version) FROM messages_version", &[]).await {
                Ok(row) => Ok(row.try_get::<_, Option<i32>>(0)?),
                Err(why) if why.code().is_some_and(|code| code.code() == "42P01") => Ok(None),
                Err(why) => Err(why.into()),
            }
        })
    }

    fn make(&self) -> Result<(), Error> {
        self.sessions.run(Again::Yes, async |session| Ok(session.batch_execute(SCHEMA).await?))
    }

    /// Says what takes from the promise that an acknowledged message survives a power cut.
    pub(super) fn warn(&self) -> Result<(), Error> {
        const ASK: &str =
            "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'";
        let off = self.sessions.run(Again::Yes, async |session| {
            let rows = session.query(ASK, &[]).await?;
            Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?)
        })?;
        for name in off {
            let database = self.sessions.name();
            let line = format!("{name} is off in {database}: a power cut there may take what was acknowledged");
            (self.notes)(StoreEvent::Message(line));
        }
        Ok(())
    }
}
