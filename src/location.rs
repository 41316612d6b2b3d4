//! A location becomes a `Messages`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::Global;
use crate::config;
use crate::messages::{Error, Messages};
use crate::store::local::{Local, Options};
use crate::store::{Notes, Store};

/// Opens what `--store` names, and makes it first if `create` says so.
pub fn open(global: &Global, create: bool, notes: Notes) -> Result<Arc<dyn Messages>, Error> {
    open_path(global, path(global)?, create, notes)
}

/// Opens any location.
pub fn open_at(global: &Global, location: &OsStr, create: bool, notes: Notes) -> Result<Arc<dyn Messages>, Error> {
    open_path(global, directory(Path::new(location))?, create, notes)
}

fn open_path(global: &Global, path: PathBuf, create: bool, notes: Notes) -> Result<Arc<dyn Messages>, Error> {
    let options = Options {
        path,
        create,
        wait: global.wait.into(),
        index_cache: global.index_cache.as_u64(),
        segment_size: global.segment_size.as_u64(),
        compression: global.compression.level(),
        notes,
    };
    Ok(Arc::new(Store::new(Local::open(&options)?, global.max_message.as_u64())))
}

/// The directory that `--store` names, or the usual one.
pub fn path(global: &Global) -> Result<PathBuf, Error> {
    let Some(path) = &global.store else {
        let usual = config::xdg("XDG_DATA_HOME", ".local/share").map(|data| data.join("sha-api"));
        return usual
            .ok_or_else(|| Error::Unusable("neither HOME nor XDG_DATA_HOME is set; name a --store".to_owned()));
    };
    directory(path)
}

fn directory(path: &Path) -> Result<PathBuf, Error> {
    if path.to_string_lossy().contains("://") {
        return Err(Error::Unusable(format!("{} is no directory; --store takes a directory", path.display())));
    }
    Ok(path.to_owned())
}
