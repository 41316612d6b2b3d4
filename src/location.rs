//! A location becomes a `Messages`: a directory, the server that holds it, a database, or a URL.

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

/// How long to wait for a lock before looking whether a server has it.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Before a server asks again for a database that is not there.
const DATABASE_RETRY: Duration = Duration::from_millis(500);

/// Opens what `--server` or `--store` names; a store is made first if `create` says so.
pub fn open(global: &Global, create: bool, notes: &EventSink) -> Result<Arc<dyn MessageStore>, Error> {
    match global.server.as_slice() {
        [] => match database_url(global) {
            Some(url) => open_database(url, global, global.wait.into(), notes),
            None => open_dir(&store_path(global)?, global, create, notes),
        },
        servers => Ok(Arc::new(Client::new(servers, &client_options(global))?)),
    }
}

/// Opens any location, a directory or a URL.
pub fn open_location(
    global: &Global,
    location: &OsStr,
    create: bool,
    notes: &EventSink,
) -> Result<Arc<dyn MessageStore>, Error> {
    if let Some(url) = location.to_str().filter(|text| postgres_url::looks_like(text)) {
        return open_database(url, global, global.wait.into(), notes);
    }
    let Some(text) = location.to_str().filter(|text| Address::looks_like_url(text)) else {
        return open_dir(Path::new(location), global, create, notes);
    };
    let address = text.parse::<Address>().map_err(|why| Error::Unusable(why.to_string()))?;
    Ok(Arc::new(Client::new(&[address], &client_options(global))?))
}

/// Opens the store that `--store` names and no other, for the process that is to be its server.
///
/// With an `upstream`, it keeps what passes from and to that.
pub fn open_for_serving(
    global: &Global,
    upstream: &[Address],
    notes: &EventSink,
) -> Result<Arc<dyn MessageStore>, Error> {
    let own = open_configured_store(global, notes)?;
    if upstream.is_empty() {
        return Ok(own);
    }
    let far = Client::new(upstream, &client_options(global))?;
    Ok(Arc::new(CachingProxy::new(own, Arc::new(far), notes.clone())))
}

fn open_configured_store(global: &Global, notes: &EventSink) -> Result<Arc<dyn MessageStore>, Error> {
    let Some(url) = database_url(global) else {
        return open_local(&store_path(global)?, global, true, global.wait.into(), notes);
    };
    let mut said = false;
    loop {
        match open_database(url, global, Duration::ZERO, notes) {
            // Whatever comes up first: it is waited for.
            Err(why @ Error::Unavailable { .. }) => {
                if !std::mem::replace(&mut said, true) {
                    notes(StoreEvent::Message(format!("{why} Trying on")));
                }
                std::thread::sleep(DATABASE_RETRY);
            }
            outcome => return outcome,
        }
    }
}

/// The directory that `--store` names, or the usual one; `None`: it names a database.
pub fn directory(global: &Global) -> Result<Option<PathBuf>, Error> {
    match database_url(global) {
        Some(_) => Ok(None),
        None => store_path(global).map(Some),
    }
}

/// The URL of the database, if `--store` names one.
fn database_url(global: &Global) -> Option<&str> {
    global.store.as_ref()?.0.to_str().filter(|text| postgres_url::looks_like(text))
}

#[cfg(feature = "postgres")]
fn open_database(
    url: &str,
    global: &Global,
    patience: Duration,
    notes: &EventSink,
) -> Result<Arc<dyn MessageStore>, Error> {
    use crate::store::postgres::{MAX_MESSAGE_BYTES, Options, Postgres};
    let max_message = global.max_message.as_u64();
    if max_message > MAX_MESSAGE_BYTES {
        let why = format!("a database takes messages of up to {MAX_MESSAGE_BYTES} bytes; lower --max-message to that");
        return Err(Error::Unusable(why));
    }
    let options = Options {
        url: url.to_owned(),
        pool_size: global.db_pool_size,
        connect_timeout: global.db_connect_timeout.into(),
        statement_timeout: global.db_statement_timeout.into(),
        ready_timeout: patience,
        events: notes.clone(),
    };
    Ok(Arc::new(HashingStore::new(Postgres::open(&options)?, max_message)))
}

#[cfg(not(feature = "postgres"))]
fn open_database(url: &str, _: &Global, _: Duration, _: &EventSink) -> Result<Arc<dyn MessageStore>, Error> {
    Err(Error::Unusable(format!(
        "cannot use {}: this program was built without the feature `postgres`",
        postgres_url::redacted(url)
    )))
}

/// The directory that `--store` names, or the usual one.
fn store_path(global: &Global) -> Result<PathBuf, Error> {
    let Some(path) = global.store.as_ref().map(|store| Path::new(&store.0)) else {
        let usual = config::xdg_dir("XDG_DATA_HOME", ".local/share").map(|data| data.join("sha-api"));
        return usual
            .ok_or_else(|| Error::Unusable("neither HOME nor XDG_DATA_HOME is set; name a --store".to_owned()));
    };
    if Address::looks_like_url(&path.to_string_lossy()) {
        let why =
            format!("{} is no directory; --store takes a directory or postgres://…, --server a URL", path.display());
        return Err(Error::Unusable(why));
    }
    Ok(path.to_owned())
}

/// A store by way of the server that holds it, else by itself, as soon as nobody else does.
fn open_dir(path: &Path, global: &Global, create: bool, notes: &EventSink) -> Result<Arc<dyn MessageStore>, Error> {
    let wait: Duration = global.wait.into();
    let deadline = Instant::now() + wait;
    loop {
        if let Some(client) = Client::via_local_socket(path, &client_options(global)) {
            return Ok(Arc::new(client));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match open_local(path, global, create, left.min(LOCK_POLL), notes) {
            Err(Error::Locked { .. }) if left > LOCK_POLL => {}
            Err(Error::Locked { path, owner: holder, .. }) => {
                return Err(Error::Locked { path, owner: holder, waited: wait });
            }
            outcome => return outcome,
        }
    }
}

fn open_local(
    path: &Path,
    global: &Global,
    create: bool,
    wait: Duration,
    notes: &EventSink,
) -> Result<Arc<dyn MessageStore>, Error> {
    let options = Options {
        path: path.to_owned(),
        create,
        lock_timeout: wait,
        owner: format!("sha-api {}", global.command_name),
        index_cache: global.index_cache.as_u64(),
        segment_size: global.segment_size.as_u64(),
        compression: global.compression.level(),
        events: notes.clone(),
    };
    Ok(Arc::new(HashingStore::new(LocalStore::open(&options)?, global.max_message.as_u64())))
}

fn client_options(global: &Global) -> client::Options {
    let (cacert, cert, key) = (global.cacert.clone(), global.cert.clone(), global.key.clone());
    client::Options {
        tls: TlsOptions { cacert, cert, key },
        token: global.token.clone(),
        read_timeout: global.read_timeout.into(),
        ready_timeout: global.wait.into(),
        max_message: global.max_message.as_u64(),
    }
}
