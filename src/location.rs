//! A location becomes a `Messages`: a directory, the server that holds it, or a URL.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::Global;
use crate::client::{self, Address, Client, Trust};
use crate::config;
use crate::messages::{Error, Messages};
use crate::store::local::{Local, Options};
use crate::store::{Notes, Store};

/// How long to wait for a lock before looking whether a server has it.
const TURN: Duration = Duration::from_millis(100);

/// Opens what `--server` or `--store` names; a store is made first if `create` says so.
pub fn open(global: &Global, create: bool, notes: &Notes) -> Result<Arc<dyn Messages>, Error> {
    match global.server.as_slice() {
        [] => open_dir(&path(global)?, global, create, notes),
        servers => Ok(Arc::new(Client::new(servers, &options(global))?)),
    }
}

/// Opens any location, a directory or a URL.
pub fn open_at(global: &Global, location: &OsStr, create: bool, notes: &Notes) -> Result<Arc<dyn Messages>, Error> {
    let Some(text) = location.to_str().filter(|text| Address::is_meant(text)) else {
        return open_dir(Path::new(location), global, create, notes);
    };
    let address = text.parse::<Address>().map_err(|why| Error::Unusable(why.to_string()))?;
    Ok(Arc::new(Client::new(&[address], &options(global))?))
}

/// Opens the store that `--store` names and no other, for the process that is to be its server.
pub fn to_serve(global: &Global, notes: &Notes) -> Result<Arc<dyn Messages>, Error> {
    local(&path(global)?, global, true, global.wait.into(), notes)
}

/// The directory that `--store` names, or the usual one.
pub fn path(global: &Global) -> Result<PathBuf, Error> {
    let Some(path) = &global.store else {
        let usual = config::xdg("XDG_DATA_HOME", ".local/share").map(|data| data.join("sha-api"));
        return usual
            .ok_or_else(|| Error::Unusable("neither HOME nor XDG_DATA_HOME is set; name a --store".to_owned()));
    };
    if Address::is_meant(&path.to_string_lossy()) {
        let why = format!("{} is no directory; --store takes a directory, --server a URL", path.display());
        return Err(Error::Unusable(why));
    }
    Ok(path.clone())
}

/// A store by way of the server that holds it, else by itself, as soon as nobody else does.
fn open_dir(path: &Path, global: &Global, create: bool, notes: &Notes) -> Result<Arc<dyn Messages>, Error> {
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
    notes: &Notes,
) -> Result<Arc<dyn Messages>, Error> {
    let options = Options {
        path: path.to_owned(),
        create,
        wait,
        me: format!("sha-api {}", global.verb),
        index_cache: global.index_cache.as_u64(),
        segment_size: global.segment_size.as_u64(),
        compression: global.compression.level(),
        notes: notes.clone(),
    };
    Ok(Arc::new(Store::new(Local::open(&options)?, global.max_message.as_u64())))
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
