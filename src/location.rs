//! The location of a store: a directory, a database or servers. It is parsed once, and opened as a [`MessageStore`].

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::Global;
use crate::client::{self, Address, Client, TlsOptions};
use crate::config;
use crate::message_store::{Error, MessageStore};
use crate::postgres_url;
use crate::store::caching::CachingProxy;
use crate::store::local::{LocalStore, Options};
use crate::store::{EventSink, HashingStore, StoreEvent};

/// Maximum time to wait for the lock of a store before looking for a server that holds it.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Time between two attempts of a server to connect to a database that is unavailable.
const DATABASE_RETRY: Duration = Duration::from_millis(500);

/// Place of a store. `Debug` hides the password of a database URL.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// A local store, or the server that has locked it.
    Directory(PathBuf),
    /// The URL of a PostgreSQL database.
    Postgres(String),
    /// Servers with the same store.
    Server(Vec<Address>),
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => f.debug_tuple("Directory").field(path).finish(),
            Self::Postgres(url) => f.debug_tuple("Postgres").field(&postgres_url::redacted(url)).finish(),
            Self::Server(addresses) => f.debug_tuple("Server").field(addresses).finish(),
        }
    }
}

impl Location {
    /// Parses an argument: a directory, the URL of a database, or the URL of a server.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        match text.to_str() {
            Some(text) if postgres_url::looks_like(text) => Ok(Self::Postgres(text.to_owned())),
            Some(text) if postgres_url::is_key_value_string(text) => Err(Error::Unusable(
                "cannot use a connection string of keys and values; write it as postgres://USER@HOST:PORT/DATABASE"
                    .to_owned(),
            )),
            Some(text) if Address::looks_like_url(text) => {
                let address = text.parse::<Address>().map_err(|error| Error::Unusable(error.to_string()))?;
                Ok(Self::Server(vec![address]))
            }
            _ => Ok(Self::Directory(text.into())),
        }
    }

    /// Returns the location that `--server` or `--store` names, or the default directory.
    fn selected(global: &Global) -> Result<Self, Error> {
        match global.connection.servers.as_slice() {
            [] => Self::store(global),
            servers => Ok(Self::Server(servers.to_vec())),
        }
    }

    /// Returns the location that `--store` names, or the default directory. It is never a server.
    fn store(global: &Global) -> Result<Self, Error> {
        let Some(store) = &global.store.location else { return default_directory().map(Self::Directory) };
        if let Some(text) = store.0.to_str()
            && !postgres_url::looks_like(text)
            && Address::looks_like_url(text)
        {
            return Err(Error::Unusable(format!(
                "cannot use {text} as --store: not a directory or postgres:// URL; use --server for the URL of a server"
            )));
        }
        Self::parse(&store.0)
    }

    /// Opens the store. `create` permits to create a directory.
    fn open(&self, global: &Global, create: bool, events: &EventSink) -> Result<Arc<dyn MessageStore>, Error> {
        match self {
            Self::Directory(path) => open_dir(path, global, create, events),
            Self::Postgres(url) => open_database(url, global, global.connection.ready_timeout.into(), events),
            Self::Server(addresses) => Ok(Arc::new(Client::new(addresses, &client_options(global))?)),
        }
    }
}

/// Opens the location that `--server` or `--store` names. `create` permits to create a store directory.
pub fn open(global: &Global, create: bool, events: &EventSink) -> Result<Arc<dyn MessageStore>, Error> {
    Location::selected(global)?.open(global, create, events)
}

/// Opens a location that an argument names: a directory, a database or a server.
pub fn open_location(
    global: &Global,
    location: &OsStr,
    create: bool,
    events: &EventSink,
) -> Result<Arc<dyn MessageStore>, Error> {
    Location::parse(location)?.open(global, create, events)
}

/// Opens the store that `--store` names for `serve`. Blocks until a database is available.
///
/// If `upstream` is not empty, the store is a cache in front of these servers.
pub fn open_for_serving(
    global: &Global,
    upstream: &[Address],
    events: &EventSink,
) -> Result<Arc<dyn MessageStore>, Error> {
    let local = match Location::store(global)? {
        Location::Postgres(url) => wait_for_database(&url, global, events),
        Location::Directory(path) => open_local(&path, global, true, global.store.lock_timeout.into(), events),
        servers @ Location::Server(_) => servers.open(global, false, events),
    }?;
    if upstream.is_empty() {
        return Ok(local);
    }
    let remote = Client::new(upstream, &client_options(global))?;
    Ok(Arc::new(CachingProxy::new(local, Arc::new(remote), events.clone())))
}

/// Returns the directory that `--store` names, or the default directory; `None` if `--store` names a database.
pub fn directory(global: &Global) -> Result<Option<PathBuf>, Error> {
    match Location::store(global)? {
        Location::Directory(path) => Ok(Some(path)),
        Location::Postgres(_) | Location::Server(_) => Ok(None),
    }
}

/// Opens a database, which may be started after the server.
fn wait_for_database(url: &str, global: &Global, events: &EventSink) -> Result<Arc<dyn MessageStore>, Error> {
    let mut is_reported = false;
    loop {
        match open_database(url, global, Duration::ZERO, events) {
            Err(error @ Error::Unavailable { .. }) => {
                if !is_reported {
                    events(StoreEvent::Message(format!("{error}; retrying until it is available")));
                    is_reported = true;
                }
                std::thread::sleep(DATABASE_RETRY);
            }
            outcome => return outcome,
        }
    }
}

#[cfg(feature = "postgres")]
fn open_database(
    url: &str,
    global: &Global,
    ready_timeout: Duration,
    events: &EventSink,
) -> Result<Arc<dyn MessageStore>, Error> {
    use crate::store::postgres::{MAX_MESSAGE_BYTES, Options, Postgres};
    let max_message = global.store.max_message.as_u64();
    if max_message > MAX_MESSAGE_BYTES {
        return Err(Error::Unusable(format!(
            "cannot use {}: --max-message is over the limit of {MAX_MESSAGE_BYTES} bytes for a database; lower it",
            postgres_url::redacted(url)
        )));
    }
    let options = Options {
        url: url.to_owned(),
        pool_size: global.database.pool_size,
        connect_timeout: global.database.connect_timeout.into(),
        statement_timeout: global.database.statement_timeout.into(),
        ready_timeout,
        events: events.clone(),
    };
    Ok(Arc::new(HashingStore::new(Postgres::open(&options)?, max_message)))
}

#[cfg(not(feature = "postgres"))]
fn open_database(url: &str, _: &Global, _: Duration, _: &EventSink) -> Result<Arc<dyn MessageStore>, Error> {
    Err(Error::Unusable(format!(
        "cannot use {}: built without PostgreSQL support; enable the Cargo feature `postgres`",
        postgres_url::redacted(url)
    )))
}

fn default_directory() -> Result<PathBuf, Error> {
    let default_path = config::xdg_dir("XDG_DATA_HOME", ".local/share").map(|data| data.join("sha-api"));
    default_path.ok_or_else(|| {
        let message = "no default store directory: neither HOME nor XDG_DATA_HOME is set; use --store";
        Error::Unusable(message.to_owned())
    })
}

/// Connects to the server that holds the store at `path`, or opens the store itself when its lock is free.
fn open_dir(path: &Path, global: &Global, create: bool, events: &EventSink) -> Result<Arc<dyn MessageStore>, Error> {
    let lock_timeout: Duration = global.store.lock_timeout.into();
    let deadline = Instant::now() + lock_timeout;
    loop {
        if let Some(client) = Client::via_local_socket(path, &client_options(global)) {
            return Ok(Arc::new(client));
        }
        let remaining = deadline.saturating_duration_since(Instant::now());
        match open_local(path, global, create, remaining.min(LOCK_POLL), events) {
            Err(Error::Locked { .. }) if remaining > LOCK_POLL => {}
            Err(Error::Locked { path, owner, .. }) => {
                return Err(Error::Locked { path, owner, waited: lock_timeout });
            }
            outcome => return outcome,
        }
    }
}

fn open_local(
    path: &Path,
    global: &Global,
    create: bool,
    lock_timeout: Duration,
    events: &EventSink,
) -> Result<Arc<dyn MessageStore>, Error> {
    let options = Options {
        path: path.to_owned(),
        create,
        lock_timeout,
        owner: format!("sha-api {}", global.command_name),
        index_cache: global.store.index_cache.as_u64(),
        segment_size: global.store.segment_size.as_u64(),
        compression: global.store.compression.level(),
        events: events.clone(),
    };
    Ok(Arc::new(HashingStore::new(LocalStore::open(&options)?, global.store.max_message.as_u64())))
}

fn client_options(global: &Global) -> client::Options {
    let connection = &global.connection;
    client::Options {
        tls: TlsOptions {
            cacert: connection.cacert.clone(),
            cert: connection.cert.clone(),
            key: connection.key.clone(),
        },
        token: connection.token.clone(),
        read_timeout: connection.read_timeout.into(),
        ready_timeout: connection.ready_timeout.into(),
        max_message: global.store.max_message.as_u64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_a_directory_a_database_or_a_server() {
        let parse = |text: &str| Location::parse(text.as_ref());
        for directory in ["store", "/a/b=c", "host", "a=b", "host=a/b", "postgres"] {
            assert_eq!(parse(directory).unwrap(), Location::Directory(directory.into()));
        }
        assert_eq!(parse("postgres://h/d").unwrap(), Location::Postgres("postgres://h/d".to_owned()));
        assert_eq!(parse("unix:/s").unwrap(), Location::Server(vec![Address::Socket("/s".into())]));
        assert!(parse("ftp://a").is_err());
    }

    #[test]
    fn a_key_value_connection_string_is_refused_without_its_password() {
        for text in
            ["host=a dbname=b password=secret", "dbname=b", " user = me host = a", "service=s", "host=/run/x dbname=y"]
        {
            let error = Location::parse(text.as_ref()).unwrap_err().to_string();
            assert!(error.contains("postgres://USER@HOST") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn debug_output_has_no_password() {
        let text = format!("{:?}", Location::parse("postgres://me:secret@h/d".as_ref()).unwrap());
        assert!(text.contains("postgres://me@h/d") && !text.contains("secret"), "{text}");
    }
}
