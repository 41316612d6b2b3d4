//! Messages in PostgreSQL, for those who outgrow one machine: plain SQL, so that what speaks its protocol will do.
//! The database is not believed: what is known is read back before it is acknowledged, what is got is hashed.

mod put;
mod session;
mod tls;
mod url;
mod verify;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use deadpool_postgres::Object;
use tokio_postgres::{Row, SimpleQueryMessage};

use crate::digest::Digest;
use crate::messages::{Cursor, Damage, Entry, Error, Page, Stats, Verified};
use crate::store::{Backend, Note, Notes};
use session::{Again, Failed, Sessions};

/// The version of the tables that this program makes.
const VERSION: i32 = 1;
/// How the tables are made.
const SCHEMA: &str = include_str!("schema.sql");
/// Bytes that are asked for, or sent, at a time, unless one message alone is longer.
const PART: u64 = 8 << 20;
/// Messages that are asked for, or sent, at a time.
const COUNT: usize = 1 << 12;
/// How often it is tried to make the tables, or to put a message that is neither new nor there.
const TURNS: usize = 8;
/// For how long an answer about the health holds.
const FRESH: Duration = Duration::from_secs(1);
/// A count that takes longer than this is not made anew each time it is asked for.
const QUICK: Duration = Duration::from_secs(1);
/// How much longer than it took to make such a count holds.
const KEEP: u32 = 20;
/// The longest message, in bytes: a row, and what it takes to send it, has to fit in 1 GiB.
pub const LONGEST: u64 = 512 << 20;

/// How to reach a database.
pub struct Options {
    /// `postgres://…`
    pub url: String,
    /// Connections at a time.
    pub pool_size: usize,
    /// For a connection.
    pub connect_timeout: Duration,
    /// For a statement; zero is for ever.
    pub statement_timeout: Duration,
    /// How long to try for a database that is not there.
    pub patience: Duration,
    /// Where to say what is found.
    pub notes: Notes,
}

/// Messages in a database.
pub struct Postgres {
    sessions: Sessions,
    notes: Notes,
    health: Mutex<Option<(Instant, Result<(), Error>)>>,
    /// When it was counted, how long that took, and what came of it.
    counted: Mutex<Option<(Instant, Duration, Stats)>>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("name", &self.sessions.name()).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Connects, and makes the tables if there are none.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let sessions = Sessions::new(options)?;
        let postgres =
            Self { sessions, notes: options.notes.clone(), health: Mutex::default(), counted: Mutex::default() };
        postgres.enter()?;
        postgres.warn()?;
        Ok(postgres)
    }

    fn enter(&self) -> Result<(), Error> {
        let version = || {
            self.sessions.run(Again::Yes, async |session| {
                match session.query_one("SELECT max(version) FROM messages_version", &[]).await {
                    Ok(row) => Ok(row.try_get::<_, Option<i32>>(0)?),
                    Err(why) if why.code().is_some_and(|code| code.code() == "42P01") => Ok(None),
                    Err(why) => Err(why.into()),
                }
            })
        };
        let mut made = Ok(());
        for _ in 0..TURNS {
            match version()? {
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

    fn make(&self) -> Result<(), Error> {
        self.sessions.run(Again::Yes, async |session| Ok(session.batch_execute(SCHEMA).await?))
    }

    /// Says what takes from the promise that an acknowledged message survives a power cut.
    fn warn(&self) -> Result<(), Error> {
        const ASK: &str =
            "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'";
        let off = self.sessions.run(Again::Yes, async |session| {
            let rows = session.query(ASK, &[]).await?;
            Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?)
        })?;
        for name in off {
            let database = self.sessions.name();
            let line = format!("{name} is off in {database}: a power cut there may take what was acknowledged");
            (self.notes)(Note::Said(line));
        }
        Ok(())
    }

    fn count(&self) -> Result<Stats, Error> {
        // As one message, so that what holds for a statement does not hold for this one.
        const COUNT: &str = "BEGIN; SET LOCAL statement_timeout = 0; SELECT count(*), \
             coalesce(sum(octet_length(message)), 0), floor(extract(epoch FROM max(stored_at))) FROM messages; COMMIT";
        const DISK: &str =
            "SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_partition_tree('messages')";
        const LAST: &str = "SELECT verified_at, damaged FROM messages_verified ORDER BY verified_at DESC LIMIT 1";
        self.sessions.run_within(None, Again::Yes, async |session| {
            let said = session.simple_query(COUNT).await?;
            let row = said.iter().find_map(|one| match one {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            let figure = |at| row.and_then(|row| row.get(at)).and_then(|text: &str| text.parse::<u64>().ok());
            let disk = match session.query_one(DISK, &[]).await {
                Ok(row) => row.try_get::<_, i64>(0)?,
                // What is no PostgreSQL may not know.
                Err(why) if why.code().is_some() => 0,
                Err(why) => return Err(why.into()),
            };
            let last = session.query_opt(LAST, &[]).await?;
            let damaged = last.as_ref().map(|row| row.try_get::<_, i64>(1)).transpose()?.unwrap_or(0);
            Ok(Stats {
                messages: figure(0).unwrap_or(0),
                bytes: figure(1).unwrap_or(0),
                disk: unsigned(disk),
                dead: 0,
                newest: figure(2).map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
                verified: last.as_ref().map(|row| row.try_get(0)).transpose()?,
                damaged: unsigned(damaged),
            })
        })
    }

    fn ask_health(&self) -> Result<(), Error> {
        let read_only: String = self.sessions.run(Again::Yes, async |session| {
            Ok(session.query_one("SHOW transaction_read_only", &[]).await?.try_get(0)?)
        })?;
        match read_only == "on" {
            true => Err(Error::ReadOnly(self.sessions.name().to_owned())),
            false => Ok(()),
        }
    }

    /// How long each of the messages is that are there.
    fn lengths(&self, wanted: &[Digest]) -> Result<HashMap<Digest, u64>, Error> {
        const LENGTHS: &str = "SELECT digest, octet_length(message)::bigint FROM messages WHERE digest = ANY($1)";
        let keys = bytes(wanted);
        self.sessions.run(Again::Yes, async |session| {
            let lengths = session.prepare_cached(LENGTHS).await?;
            let rows = session.query(&lengths, &[&keys]).await?;
            rows.iter().map(|row| Ok((digest(row)?, unsigned(row.try_get(1)?)))).collect()
        })
    }

    /// Hands over what is stored under each of the digests, in order.
    fn look_at(
        &self,
        mut wanted: &[Digest],
        mut look: impl FnMut(Digest, Option<Vec<u8>>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        while !wanted.is_empty() {
            let got = self.get(wanted)?;
            let (these, others) = wanted.split_at(got.len());
            wanted = others;
            these.iter().zip(got).try_for_each(|(digest, stored)| look(*digest, stored))?;
        }
        Ok(())
    }

    /// The messages of all these, which fit in memory.
    fn fetch(&self, wanted: &[Digest]) -> Result<HashMap<Digest, Vec<u8>>, Error> {
        const GET: &str = "SELECT digest, message FROM messages WHERE digest = ANY($1)";
        let keys = bytes(wanted);
        self.sessions.run(Again::Yes, async |session| {
            let get = session.prepare_cached(GET).await?;
            let rows = session.query(&get, &[&keys]).await?;
            rows.iter().map(|row| Ok((digest(row)?, row.try_get(1)?))).collect()
        })
    }
}

impl Backend for Postgres {
    fn put(&self, batch: Vec<(Digest, Vec<u8>)>) -> Result<Vec<bool>, Error> {
        let order: Vec<_> = batch.iter().map(|(digest, _)| *digest).collect();
        let mut all: BTreeMap<_, _> = batch.into_iter().collect();
        let mut new = BTreeSet::new();
        while !all.is_empty() {
            let (mut part, mut size) = (BTreeMap::new(), 0);
            while let Some((digest, message)) = all.pop_first() {
                size += message.len() as u64;
                part.insert(digest, message);
                if size >= PART || part.len() == COUNT {
                    break;
                }
            }
            new.extend(self.put_part(&part)?);
        }
        Ok(order.iter().map(|digest| new.remove(digest)).collect())
    }

    fn get(&self, wanted: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut wanted = &wanted[..wanted.len().min(COUNT)];
        if wanted.len() > 1 {
            let lengths = self.lengths(wanted)?;
            let mut size = 0;
            let fits = wanted.iter().take_while(|digest| {
                size += lengths.get(digest).copied().unwrap_or(0);
                size <= PART
            });
            wanted = &wanted[..fits.count().max(1)];
        }
        let mut found = self.fetch(wanted)?;
        // The same digest may be asked for twice; nearly always it is not.
        let twice = wanted.iter().collect::<BTreeSet<_>>().len() < wanted.len();
        Ok(wanted.iter().map(|digest| if twice { found.get(digest).cloned() } else { found.remove(digest) }).collect())
    }

    fn has(&self, wanted: &[Digest]) -> Result<Vec<bool>, Error> {
        const HAS: &str = "SELECT digest FROM messages WHERE digest = ANY($1)";
        let mut has = Vec::with_capacity(wanted.len());
        for part in wanted.chunks(COUNT) {
            let keys = bytes(part);
            let there = self.sessions.run(Again::Yes, async |session| {
                let has = session.prepare_cached(HAS).await?;
                digests(&session.query(&has, &[&keys]).await?)
            })?;
            has.extend(part.iter().map(|digest| there.contains(digest)));
        }
        Ok(has)
    }

    fn length(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.lengths(&[*digest])?.remove(digest))
    }

    fn list(&self, page: &Page) -> Result<Vec<Entry>, Error> {
        // Two, so that the index is entered at the right place.
        const FROM: &str = "SELECT digest, octet_length(message)::bigint, stored_at FROM messages \
             WHERE digest >= $1 AND digest <= $2 ORDER BY digest LIMIT $3";
        const AFTER: &str = "SELECT digest, octet_length(message)::bigint, stored_at FROM messages \
             WHERE digest > $1 AND digest <= $2 ORDER BY digest LIMIT $3";
        let (first, last) = page.prefix.range().into_inner();
        let after = page.after.filter(|after| *after >= first);
        let (text, first) = after.map_or((FROM, first), |after| (AFTER, after));
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        self.sessions.run(Again::Yes, async |session| {
            let statement = session.prepare_cached(text).await?;
            let (first, last) = (first.as_bytes().as_slice(), last.as_bytes().as_slice());
            session.query(&statement, &[&first, &last, &limit]).await?.iter().map(entry).collect()
        })
    }

    fn remove(&self, wanted: &[Digest]) -> Result<Vec<bool>, Error> {
        const REMOVE: &str = "DELETE FROM messages WHERE digest = ANY($1) RETURNING digest";
        let mut removed = Vec::with_capacity(wanted.len());
        let mut gone = BTreeSet::new();
        for part in wanted.chunks(COUNT) {
            let keys = bytes(part);
            gone.extend(self.sessions.run(Again::No, async |session| {
                let remove = session.prepare_cached(REMOVE).await?;
                digests(&session.query(&remove, &[&keys]).await?)
            })?);
            removed.extend(part.iter().map(|digest| gone.remove(digest)));
        }
        Ok(removed)
    }

    fn verify(&self, from: Option<&Cursor>) -> Result<Verified, Error> {
        verify::step(self, from)
    }

    fn repair(&self, damage: &[Damage]) -> Result<(), Error> {
        verify::repair(self, damage)
    }

    fn stats(&self) -> Result<Stats, Error> {
        let mut counted = self.counted.lock().expect("counting does not panic");
        if let Some((when, took, stats)) = &*counted
            && *took > QUICK
            && when.elapsed() < *took * KEEP
        {
            return Ok(stats.clone());
        }
        let began = Instant::now();
        let stats = self.count()?;
        *counted = Some((Instant::now(), began.elapsed(), stats.clone()));
        Ok(stats)
    }

    fn health(&self) -> Result<(), Error> {
        let mut health = self.health.lock().expect("asking does not panic");
        if let Some((when, answer)) = &*health
            && (when.elapsed() < FRESH || self.sessions.is_busy())
        {
            return answer.clone();
        }
        let answer = self.ask_health();
        *health = Some((Instant::now(), answer.clone()));
        answer
    }
}

fn bytes(digests: &[Digest]) -> Vec<&[u8]> {
    digests.iter().map(|digest| digest.as_bytes().as_slice()).collect()
}

fn digests(rows: &[Row]) -> Result<BTreeSet<Digest>, Failed> {
    rows.iter().map(digest).collect()
}

/// The digest in the first column.
fn digest(row: &Row) -> Result<Digest, Failed> {
    let bytes: &[u8] = row.try_get(0)?;
    let whole = bytes.try_into().map(Digest::from_bytes);
    whole.map_err(|_| Failed::Said(Error::Unusable("the table `messages` holds what is no digest".to_owned())))
}

fn entry(row: &Row) -> Result<Entry, Failed> {
    let stored_at: SystemTime = row.try_get(2)?;
    let seconds = stored_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let stored_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Ok(Entry { digest: digest(row)?, length: unsigned(row.try_get(1)?), stored_at })
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Moves what is stored under a digest out of the way if it is corrupt, still; answers whether it was.
async fn take_out(session: &Object, digest: Digest) -> Result<bool, Failed> {
    const LOOK: &str = "SELECT message FROM messages WHERE digest = $1 FOR UPDATE";
    const KEEP: &str = "INSERT INTO messages_quarantine (digest, message, stored_at) \
         SELECT digest, message, stored_at FROM messages WHERE digest = $1";
    const REMOVE: &str = "DELETE FROM messages WHERE digest = $1";
    let key = digest.as_bytes().as_slice();
    session.batch_execute("BEGIN").await?;
    let row = session.query_opt(LOOK, &[&key]).await?;
    let corrupt = row.map(|row| row.try_get::<_, Vec<u8>>(0)).transpose()?.is_some_and(|bytes| !digest.names(&bytes));
    if corrupt {
        session.execute(KEEP, &[&key]).await?;
        session.execute(REMOVE, &[&key]).await?;
    }
    session.batch_execute("COMMIT").await?;
    Ok(corrupt)
}
