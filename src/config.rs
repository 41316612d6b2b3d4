//! Settings: a flag, then its `SHA_API_*` variable, then its key in the TOML file, then the default.
//! Keys are the long flags that hold for every command, and those of `serve`; any other key is an error.

mod file;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};

use crate::cli::{Cli, Global};
use crate::client::Token;
use crate::postgres_url;
use file::Settings;

/// Flags that say where settings come from or what is printed are no settings themselves.
const NOT_CONFIGURABLE: [&str; 4] = ["config", "help", "version", "check"];

/// The setting that has no flag.
const TOKEN_KEY: &str = "token";

/// Flags of other commands that stand for the same setting of `serve`.
const ALIASES: [(&str, &str); 3] = [("token", "token_file"), ("health", "listen"), ("health", "http")];

/// The command line with the variables that stand for flags.
pub fn command() -> Command {
    let command = map_configurable_args(Cli::command(), |argument| match argument.get_action() {
        ArgAction::SetTrue => argument.value_parser(BoolishValueParser::new()),
        _ => argument,
    });
    map_configurable_args(command, with_env_variable)
}

/// A setting, as [`effective_settings`] tells it.
#[derive(Debug, serde::Serialize)]
pub struct Setting {
    /// The long flag, which is also the key.
    pub name: String,
    /// As it was written; `None` is unset.
    pub value: Option<String>,
    /// `flag`, `variable`, `file` or `default`.
    pub source: &'static str,
}

/// Every setting that holds for `serve` with these arguments.
pub fn effective_settings(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<Setting>, clap::Error> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let (mut command, settings) = with_settings_file(&arguments)?;
    let matches = command.try_get_matches_from_mut(&arguments)?;
    let (_, matches) = matches.subcommand().expect("it was parsed before");
    let (serve, command) = (command.find_subcommand("serve").expect("the command line has it"), &command);
    let flags = command.get_arguments().chain(serve.get_arguments());
    let mut all: Vec<Setting> = Vec::new();
    for flag in flags {
        let (Some(name), id) = (flag.get_long(), flag.get_id().as_str()) else { continue };
        if NOT_CONFIGURABLE.contains(&name) || all.iter().any(|setting| setting.name == name) {
            continue;
        }
        let raw = matches.try_get_raw(id).ok().flatten();
        let value = raw.map(|values| {
            values.map(|value| postgres_url::redacted(&value.to_string_lossy())).collect::<Vec<_>>().join(",")
        });
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => "variable",
            _ if settings.contains_key(name) => "file",
            _ => "default",
        };
        all.push(Setting { name: name.to_owned(), value, source });
    }
    Ok(all)
}

/// Reads arguments, variables and the settings file.
pub fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let (mut command, settings) = with_settings_file(arguments)?;
    let matches = command.try_get_matches_from_mut(arguments)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    let (verb, matches) = matches.subcommand().expect("every command line has a command");
    verb.clone_into(&mut cli.global.command_name);
    cli.global.token = token(&settings);
    resolve_store_or_server(&mut cli.global, matches).map_err(|why| command.error(ErrorKind::ArgumentConflict, why))?;
    Ok(cli)
}

/// The token of the variable, else of the file; an empty one is none.
fn token(settings: &Settings) -> Option<Token> {
    let variable = std::env::var_os("SHA_API_TOKEN").map(|token| token.to_string_lossy().into_owned());
    let token = variable.or_else(|| settings.get(TOKEN_KEY)?.first().cloned());
    token.filter(|token| !token.is_empty()).map(Token)
}

/// Where the messages are is said by `store` or by `server`, whichever comes first: flag, variable, file.
fn resolve_store_or_server(global: &mut Global, matches: &ArgMatches) -> Result<(), &'static str> {
    let rank = |id| match matches.value_source(id) {
        Some(ValueSource::CommandLine) => 3,
        Some(ValueSource::EnvVariable) => 2,
        Some(_) => 1,
        None => 0,
    };
    let (store, server) = (rank("store"), rank("server"));
    if store > server || global.command_name == "serve" {
        global.server.clear();
    } else if store == server && server > 0 {
        return Err("both --store and --server say where the messages are; one of them must go");
    }
    if global.key.is_some() && global.cert.is_none() {
        return Err("--key is the key of a certificate; --cert must name it");
    }
    Ok(())
}

/// The command line with what the settings file says, and that.
fn with_settings_file(arguments: &[OsString]) -> Result<(Command, Settings), clap::Error> {
    let mut command = command();
    let Some(path) = file::config_path(&command, arguments) else { return Ok((command, Settings::new())) };
    let settings = file::read(&path).and_then(|settings| reject_unknown(settings, &command, &path));
    let settings = settings.map_err(|why| command.error(ErrorKind::Io, why))?;
    Ok((with_file_defaults(command, &settings), settings))
}

/// `command` with `change` made to every argument that may be a setting.
fn map_configurable_args(command: Command, change: impl Fn(Arg) -> Arg) -> Command {
    let command = command.mut_args(&change).mut_subcommand("serve", |serve| serve.mut_args(&change));
    let shared = |command: Command, (name, id): (&'static str, &'static str)| {
        command.mut_subcommand(name, |subcommand| subcommand.mut_arg(id, &change))
    };
    ALIASES.into_iter().fold(command, shared)
}

fn with_env_variable(argument: Arg) -> Arg {
    match argument.get_long() {
        Some(long) if !["help", "version", "check"].contains(&long) => {
            let variable = format!("SHA_API_{}", long.to_uppercase().replace('-', "_"));
            argument.env(variable).hide_env_values(true)
        }
        _ => argument,
    }
}

/// Where a kind of file is kept: the directory that a variable names, or the one below the home directory.
pub fn xdg_dir(variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set(variable).or_else(|| Some(set("HOME")?.join(below_home)))
}

/// The settings, if there is a flag for each.
fn reject_unknown(settings: Settings, command: &Command, path: &Path) -> Result<Settings, String> {
    let serve = command.find_subcommand("serve").expect("the command line has it");
    let flags: Vec<_> = command.get_arguments().chain(serve.get_arguments()).filter_map(Arg::get_long).collect();
    let is_known = |key: &str| key == TOKEN_KEY || flags.contains(&key) && !NOT_CONFIGURABLE.contains(&key);
    match settings.keys().find(|key| !is_known(key)) {
        Some(key) => Err(format!("{}: `{key}` is no setting; `sha-api serve --help` lists them", path.display())),
        None => Ok(settings),
    }
}

/// What the file says takes the place of what the program would take by itself.
fn with_file_defaults(command: Command, settings: &Settings) -> Command {
    let change = |argument: Arg| match argument.get_long().and_then(|long| settings.get(long)) {
        Some(values) => argument.default_values(values.clone()).required(false),
        None => argument,
    };
    map_configurable_args(command, change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_definition_is_valid() {
        command().debug_assert();
    }

    fn parse_with(settings: &str, arguments: &[&str]) -> Result<Cli, clap::Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), settings).unwrap();
        let mut all: Vec<OsString> = vec!["sha-api".into(), "--config".into(), file.path().into()];
        all.extend(arguments.iter().map(OsString::from));
        parse(&all)
    }

    #[test]
    fn file_settings_apply_where_no_flag_is_given() {
        let settings = "store = '/from/file'\nmax-message = 10\njson = true\nlisten = ['[::1]:1', '[::1]:2']\n";
        let cli = parse_with(settings, &["--store", "/from/flag", "serve"]).unwrap();
        assert_eq!(cli.global.store, Some(crate::cli::Location("/from/flag".into())));
        assert_eq!(cli.global.max_message.as_u64(), 10);
        assert!(cli.global.json);
        let crate::cli::Command::Serve(serve) = cli.command else { panic!("not serve") };
        assert_eq!(serve.listen, ["[::1]:1", "[::1]:2"]);
    }

    #[test]
    fn a_flag_overrides_a_list_in_the_file() {
        let cli = parse_with("listen = ['[::1]:1', '[::1]:2']", &["serve", "--listen", "[::1]:3"]).unwrap();
        let crate::cli::Command::Serve(serve) = cli.command else { panic!("not serve") };
        assert_eq!(serve.listen, ["[::1]:3"]);
    }

    #[test]
    fn an_unknown_key_is_named_in_the_error() {
        for key in ["stroe", "config", "help", "lines"] {
            let error = parse_with(&format!("{key} = 'x'"), &["stats"]).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}` is no setting")), "{error}");
        }
    }

    #[test]
    fn an_invalid_value_is_reported_with_its_key() {
        let error = parse_with("wait = { a = 1 }", &["stats"]).unwrap_err().to_string();
        assert!(error.contains("`wait` must be"), "{error}");
        let error = parse_with("wait = 'soon'", &["stats"]).unwrap_err().to_string();
        assert!(error.contains("--wait"), "{error}");
    }
}
