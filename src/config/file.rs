//! The settings file: where it is, and what it says, whatever that may mean.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};

use super::xdg_dir;

/// The values of the keys in a settings file.
pub(super) type Settings = BTreeMap<String, Vec<String>>;

/// The file that is named, or the one in its usual place if there is one.
pub(super) fn config_path(command: &Command, arguments: &[OsString]) -> Option<PathBuf> {
    let named = |matches: &ArgMatches| matches.get_one::<PathBuf>("config").cloned();
    let matches = command.clone().ignore_errors(true).try_get_matches_from(arguments).ok();
    let named = matches.as_ref().and_then(|matches| {
        let below =
            matches.subcommand().and_then(|(_, matches)| matches.try_contains_id("config").ok().and(named(matches)));
        below.or_else(|| named(matches))
    });
    named.or_else(|| {
        let usual = xdg_dir("XDG_CONFIG_HOME", ".config")?.join("sha-api/config.toml");
        usual.is_file().then_some(usual)
    })
}

/// What it says.
pub(super) fn read(path: &Path) -> Result<Settings, String> {
    let text = std::fs::read_to_string(path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
    let table: toml::Table = toml::from_str(&text).map_err(|why| format!("{}: {why}", path.display()))?;
    let values = |(key, value): (String, toml::Value)| match value {
        toml::Value::Array(values) => {
            let values: Option<Vec<_>> = values.iter().map(scalar_to_string).collect();
            values.map(|values| (key.clone(), values)).ok_or(key)
        }
        value => scalar_to_string(&value).map(|value| (key.clone(), vec![value])).ok_or(key),
    };
    let settings: Result<_, String> = table.into_iter().map(values).collect();
    settings.map_err(|key| {
        format!("{}: `{key}` must be a string, a number, true, false, or a list of them", path.display())
    })
}

fn scalar_to_string(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}
