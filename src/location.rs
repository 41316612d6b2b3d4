//! Opens a location as a [`MessageStore`]: a directory, the server that has locked it, a database, or a server's URL.

use std::ffi::OsStr;
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

/// Opens the location that `--server` or `--store` names. If `create`, a missing store directory is created.
pub fn open(global: &Global, create: bool, events: &EventSink) -> Result<Arc<dyn MessageStore>, Error> {
    match global.connection.servers.as_slice() {
        [] => match database_url(global) {
            Some(url) => open_database(url, global, global.connection.ready_timeout.into(), events),
            None => open_dir(&store_path(global)?, global, create, events),
        },
        servers => Ok(Arc::new(Client::new(servers, &client_options(global))?)),
    }
}

/// Opens a location that an argument names: a directory, a database or a server.
pub fn open_location(
    global: &Global,
    location: &OsStr,
    create: bool,
    events: &EventSink,
) -> Result<Arc<dyn MessageStore>, Error> {
    if let Some(url) = location.to_str().filter(|text| postgres_url::looks_like(text)) {
        return open_database(url, global, global.connection.ready_timeout.into(), events);
    }
    let Some(text) = location.to_str().filter(|text| Address::looks_like_url(text)) else {
        return open_dir(Path::new(location), global, create, events);
    };
    let address = text.parse::<Address>().map_err(|error| Error::Unusable(error.to_string()))?;
    Ok(Arc::new(Client::new(&[address], &client_options(global))?))
}

/// Opens the store that `--store` names for `serve`. Blocks until a database is available.
///
/// If `upstream` is not empty, the store is a cache in front of these servers.
pub fn open_for_serving(
    global: &Global,
    upstream: &[Address],
    events: &EventSink,
) -> Result<Arc<dyn MessageStore>, Error> {
    let local = open_configured_store(global, events)?;
    if upstream.is_empty() {
        return Ok(local);
    }
    let remote = Client::new(upstream, &client_options(global))?;
    Ok(Arc::new(CachingProxy::new(local, Arc::new(remote), events.clone())))
}

fn open_configured_store(global: &Global, events: &EventSink) -> Result<Arc<dyn MessageStore>, Error> {
    let Some(url) = database_url(global) else {
        return open_local(&store_path(global)?, global, true, global.store.lock_timeout.into(), events);
    };
    let mut is_reported = false;
    loop {
        match open_database(url, global, Duration::ZERO, events) {
            // The server may be started before its database.
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

/// Returns the directory that `--store` names, or the default directory; `None` if `--store` names a database.
pub fn directory(global: &Global) -> Result<Option<PathBuf>, Error> {
    match database_url(global) {
        Some(_) => Ok(None),
        None => store_path(global).map(Some),
    }
}

/// Returns the URL of the database if `--store` names one.
fn database_url(global: &Global) -> Option<&str> {
    global.store.location.as_ref()?.0.to_str().filter(|text| postgres_url::looks_like(text))
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

/// Returns the directory that `--store` names, or the default directory.
fn store_path(global: &Global) -> Result<PathBuf, Error> {
    let Some(path) = global.store.location.as_ref().map(|store| Path::new(&store.0)) else {
        let default_path = config::xdg_dir("XDG_DATA_HOME", ".local/share").map(|data| data.join("sha-api"));
        return default_path.ok_or_else(|| {
            let message = "no default store directory: neither HOME nor XDG_DATA_HOME is set; use --store";
            Error::Unusable(message.to_owned())
        });
    };
    if Address::looks_like_url(&path.to_string_lossy()) {
        return Err(Error::Unusable(format!(
            "cannot use {} as --store: not a directory or postgres:// URL; use --server for the URL of a server",
            path.display()
        )));
    }
    Ok(path.to_owned())
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
