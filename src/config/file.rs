//! The settings file: its path and its keys with their values. `config.rs` knows which keys are valid.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::xdg::xdg_dir;

/// Values of each key in a settings file.
pub(super) type Settings = BTreeMap<String, Vec<String>>;

/// Returns the path of `--config` or `SHA_API_CONFIG`, or else the default path if that file exists.
pub(super) fn config_path(matches: Option<&ArgMatches>) -> Option<PathBuf> {
    let named = matches.and_then(|matches| {
        let of_command = matches.subcommand().and_then(|(_, matches)| config_option(matches));
        of_command.or_else(|| config_option(matches))
    });
    named.or_else(|| {
        let default = xdg_dir("XDG_CONFIG_HOME", ".config")?.join("sha-api/config.toml");
        default.is_file().then_some(default)
    })
}

fn config_option(matches: &ArgMatches) -> Option<PathBuf> {
    matches.try_get_one::<PathBuf>("config").ok().flatten().cloned()
}

/// Reads and parses the settings file.
pub(super) fn read(path: &Path) -> Result<Settings, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let values = |(key, value): (String, toml::Value)| match value {
        toml::Value::Array(values) => {
            let values: Option<Vec<_>> = values.iter().map(scalar_to_string).collect();
            values.map(|values| (key.clone(), values)).ok_or(key)
        }
        value => scalar_to_string(&value).map(|value| (key.clone(), vec![value])).ok_or(key),
    };
    let settings: Result<_, String> = table.into_iter().map(values).collect();
    settings.map_err(|key| {
        format!("{}: `{key}` must be a string, a number, true, false, or a list of these", path.display())
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
