//! The settings file: its path and its keys with their values. `config.rs` knows which keys are valid.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::xdg::xdg_dir;

/// Values of each key in a settings file.
pub(super) type Settings = BTreeMap<String, Value>;

/// Value of a key.
#[derive(Debug)]
pub(super) struct Value {
    /// Texts of the value, or of the elements of the list.
    pub texts: Vec<String>,
    /// Type of the value, or of all elements of the list.
    pub kind: Kind,
    /// Line of the key in the file, from 1 on.
    pub line: usize,
}

/// Type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Number,
    Boolean,
}

/// Returns the path of `--config` or `SHA_API_CONFIG`, or else the default path if something is there. A link to
/// nowhere counts as something: the user meant to have settings.
pub(super) fn config_path(matches: Option<&ArgMatches>) -> Option<PathBuf> {
    let named = matches.and_then(|matches| {
        let of_command = matches.subcommand().and_then(|(_, matches)| config_option(matches));
        of_command.or_else(|| config_option(matches))
    });
    named.or_else(|| {
        let default = xdg_dir("XDG_CONFIG_HOME", ".config")?.join("sha-api/config.toml");
        let is_missing = |error: std::io::Error| {
            matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
        };
        (!default.symlink_metadata().is_err_and(is_missing)).then_some(default)
    })
}

fn config_option(matches: &ArgMatches) -> Option<PathBuf> {
    matches.try_get_one::<PathBuf>("config").ok().flatten().cloned()
}

/// Reads and parses the settings file.
pub(super) fn read(path: &Path) -> Result<Settings, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut settings = Settings::new();
    for (key, value) in table {
        let line = line_of_key(&text, &key);
        let Some((texts, kind)) = to_texts(&value) else {
            let expected = "must be a string, a number, true, false, or a list of one of these";
            return Err(format!("{}, line {line}: `{key}` {expected}", path.display()));
        };
        settings.insert(key, Value { texts, kind, line });
    }
    Ok(settings)
}

/// Returns the line in which `key` gets its value; keys are at the start of a line.
fn line_of_key(text: &str, key: &str) -> usize {
    let defines = |line: &str| {
        let line = line.trim_start().trim_start_matches(['"', '\'', '[']);
        line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '=', '\t', '"', '\'', '.', ']']))
    };
    text.lines().position(defines).map_or(1, |index| index + 1)
}

fn to_texts(value: &toml::Value) -> Option<(Vec<String>, Kind)> {
    let toml::Value::Array(values) = value else {
        let (text, kind) = to_text(value)?;
        return Some((vec![text], kind));
    };
    let elements: Vec<_> = values.iter().map(to_text).collect::<Option<_>>()?;
    let kind = elements.first().map_or(Kind::String, |(_, kind)| *kind);
    let texts = elements.into_iter().map(|(text, own)| (own == kind).then_some(text)).collect::<Option<_>>()?;
    Some((texts, kind))
}

fn to_text(value: &toml::Value) -> Option<(String, Kind)> {
    match value {
        toml::Value::String(text) => Some((text.clone(), Kind::String)),
        toml::Value::Integer(number) => Some((number.to_string(), Kind::Number)),
        toml::Value::Float(number) => Some((number.to_string(), Kind::Number)),
        toml::Value::Boolean(flag) => Some((flag.to_string(), Kind::Boolean)),
        _ => None,
    }
}
