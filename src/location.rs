//! A location becomes a `Messages`: a directory, the server that holds it, a database, or a URL.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::Global;
use crate::client::{self, Address, Client, Trust};
use crate::config;
use crate::database;
use crate::messages::{Error, Messages};
use crate::store::local::{LocalStore, Options};
use crate::store::{EventSink, HashingStore, StoreEvent};
use crate::upstream::Upstream;

/// How long to wait for a lock before looking whether a server has it.
const TURN: Duration = Duration::from_millis(100);

/// Before a server asks again for a database that is not there.
const AGAIN: Duration = Duration::from_millis(500);

/// Opens what `--server` or `--store` names; a store is made first if `create` says so.
pub fn open(global: &Global, create: bool, notes: &EventSink) -> Result<Arc<dyn Messages>, Error> {
    match global.server.as_slice() {
        [] => match database_of(global) {
            Some(url) => open_database(url, global, global.wait.into(), notes),
            None => open_dir(&path(global)?, global, create, notes),
        },
        servers => Ok(Arc::new(Client::new(servers, &options(global))?)),
    }
}

/// Opens any location, a directory or a URL.
pub fn open_at(global: &Global, location: &OsStr, create: bool, notes: &EventSink) -> Result<Arc<dyn Messages>, Error> {
    if let Some(url) = location.to_str().filter(|text| database::is_meant(text)) {
        return open_database(url, global, global.wait.into(), notes);
    }
    let Some(text) = location.to_str().filter(|text| Address::is_meant(text)) else {
        return open_dir(Path::new(location), global, create, notes);
    };
    let address = text.parse::<Address>().map_err(|why| Error::Unusable(why.to_string()))?;
    Ok(Arc::new(Client::new(&[address], &options(global))?))
}

/// Opens the store that `--store` names and no other, for the process that is to be its server.
///
/// With an `upstream`, it keeps what passes from and to that.
pub fn to_serve(global: &Global, upstream: &[Address], notes: &EventSink) -> Result<Arc<dyn Messages>, Error> {
    let own = own(global, notes)?;
    if upstream.is_empty() {
        return Ok(own);
    }
    let far = Client::new(upstream, &options(global))?;
    Ok(Arc::new(Upstream::new(own, Arc::new(far), notes.clone())))
}

fn own(global: &Global, notes: &EventSink) -> Result<Arc<dyn Messages>, Error> {
    let Some(url) = database_of(global) else {
        return local(&path(global)?, global, true, global.wait.into(), notes);
    };
    let mut said = false;
    loop {
        match open_database(url, global, Duration::ZERO, notes) {
            // Whatever comes up first: it is waited for.
            Err(why @ Error::Unavailable { .. }) => {
                if !std::mem::replace(&mut said, true) {
                    notes(StoreEvent::Message(format!("{why} Trying on")));
                }
                std::thread::sleep(AGAIN);
            }
            outcome => return outcome,
        }
    }
}

/// The directory that `--store` names, or the usual one; `None`: it names a database.
pub fn directory(global: &Global) -> Result<Option<PathBuf>, Error> {
    match database_of(global) {
        Some(_) => Ok(None),
        None => path(global).map(Some),
    }
}

/// The URL of the database, if `--store` names one.
fn database_of(global: &Global) -> Option<&str> {
    global.store.as_ref()?.0.to_str().filter(|text| database::is_meant(text))
}

#[cfg(feature = "postgres")]
fn open_database(
    url: &str,
    global: &Global,
    patience: Duration,
    notes: &EventSink,
) -> Result<Arc<dyn Messages>, Error> {
    use crate::store::postgres::{LONGEST, Options, Postgres};
    let max_message = global.max_message.as_u64();
    if max_message > LONGEST {
        let why = format!("a database takes messages of up to {LONGEST} bytes; lower --max-message to that");
        return Err(Error::Unusable(why));
    }
    let options = Options {
        url: url.to_owned(),
        pool_size: global.pool_size,
        connect_timeout: global.connect_timeout.into(),
        statement_timeout: global.statement_timeout.into(),
        patience,
        notes: notes.clone(),
    };
    Ok(Arc::new(HashingStore::new(Postgres::open(&options)?, max_message)))
}

#[cfg(not(feature = "postgres"))]
fn open_database(url: &str, _: &Global, _: Duration, _: &EventSink) -> Result<Arc<dyn Messages>, Error> {
    Err(Error::Unusable(format!(
        "cannot use {}: this program was built without the feature `postgres`",
        database::public(url)
    )))
}

/// The directory that `--store` names, or the usual one.
fn path(global: &Global) -> Result<PathBuf, Error> {
    let Some(path) = global.store.as_ref().map(|store| Path::new(&store.0)) else {
        let usual = config::xdg("XDG_DATA_HOME", ".local/share").map(|data| data.join("sha-api"));
        return usual
            .ok_or_else(|| Error::Unusable("neither HOME nor XDG_DATA_HOME is set; name a --store".to_owned()));
    };
    if Address::is_meant(&path.to_string_lossy()) {
        let why =
            format!("{} is no directory; --store takes a directory or postgres://…, --server a URL", path.display());
        return Err(Error::Unusable(why));
    }
    Ok(path.to_owned())
}

/// A store by way of the server that holds it, else by itself, as soon as nobody else does.
fn open_dir(path: &Path, global: &Global, create: bool, notes: &EventSink) -> Result<Arc<dyn Messages>, Error> {
    let wait: Duration = global.wait.into();
    let deadline = Instant::now() + wait;
    loop {
        if let Some(client) = Client::beside(path, &options(global)) {
            return Ok(Arc::new(client));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match local(path, global, create, left.min(TURN), notes) {
            Err(Error::Held { .. }) if left > TURN => {}
            Err(Error::Held { path, holder, .. }) => return Err(Error::Held { path, holder, waited: wait }),
            outcome => return outcome,
        }
    }
}

fn local(
    path: &Path,
    global: &Global,
    create: bool,
    wait: Duration,
    notes: &EventSink,
) -> Result<Arc<dyn Messages>, Error> {
    let options = Options {
        path: path.to_owned(),
        create,
        lock_timeout: wait,
        owner: format!("sha-api {}", global.verb),
        index_cache: global.index_cache.as_u64(),
        segment_size: global.segment_size.as_u64(),
        compression: global.compression.level(),
        events: notes.clone(),
    };
    Ok(Arc::new(HashingStore::new(LocalStore::open(&options)?, global.max_message.as_u64())))
}

fn options(global: &Global) -> client::Options {
    let (cacert, cert, key) = (global.cacert.clone(), global.cert.clone(), global.key.clone());
    client::Options {
        trust: Trust { cacert, cert, key },
        token: global.token.clone(),
        timeout: global.timeout.into(),
        wait: global.wait.into(),
        max_message: global.max_message.as_u64(),
    }
}
