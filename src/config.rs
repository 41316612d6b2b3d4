//! Settings. A flag takes precedence over its `SHA_API_*` variable, the variable over the settings file, and the file
//! over the default. Valid keys of the file are `token` and the long names of the common options and of the options of
//! `serve`.

mod file;
mod unused;
mod xdg;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::{BoolishValueParser, StyledStr};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};

use crate::cli::{self, Cli, Global};
use crate::client::Token;
use crate::postgres_url;
use file::{Kind, Settings};
pub use xdg::xdg_dir;

/// Options that are not settings: `--config` names the settings file, and the others print something and exit.
const NOT_CONFIGURABLE: [&str; 4] = ["config", "help", "version", "check"];

/// The only key of the settings file that has no option.
const TOKEN_KEY: &str = "token";

/// Commands that use no setting, so that they work with a faulty settings file.
const WITHOUT_SETTINGS: [&str; 3] = ["completions", "help", "man"];

/// Options of other commands that have the value of a setting of `serve`.
const ALIASES: [(&str, &str); 3] = [("token", "token_file"), ("health", "listen"), ("health", "http")];

/// Returns the clap definition of the program, with environment variables.
pub fn command() -> Command {
    map_configurable_args(definition(), with_env_variable)
}

/// One setting, as `serve --check` prints it.
#[derive(Debug, serde::Serialize)]
pub struct Setting {
    /// Long option, which is also the key in the settings file.
    pub name: String,
    /// Text of the value; `None` if unset.
    pub value: Option<String>,
    /// `flag`, `variable`, `file` or `default`.
    pub source: &'static str,
}

/// Returns the effective settings of `serve`, from `arguments`, the environment, the settings file and the defaults.
pub fn effective_settings(arguments: &[OsString]) -> Result<Vec<Setting>, clap::Error> {
    let Invocation { mut command, settings, .. } = Invocation::prepare(arguments)?;
    let matches = command.try_get_matches_from_mut(arguments)?;
    let (name, matches) = matches.subcommand().expect("every command line has a command");
    let own = command.find_subcommand(name).expect("the matches are those of this command").get_arguments();
    let mut all: Vec<Setting> = Vec::new();
    for argument in command.get_arguments().chain(own) {
        let (Some(long), id) = (argument.get_long(), argument.get_id().as_str()) else { continue };
        let is_listed = all.iter().any(|setting| setting.name == long);
        if is_listed || NOT_CONFIGURABLE.contains(&long) || cli::is_unused(name, id) {
            continue;
        }
        let raw = matches.try_get_raw(id).ok().flatten();
        let value = raw.map(|values| {
            values.map(|value| postgres_url::redacted(&value.to_string_lossy())).collect::<Vec<_>>().join(",")
        });
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => "variable",
            _ if settings.contains_key(long) => "file",
            _ => "default",
        };
        all.push(Setting { name: long.to_owned(), value, source });
    }
    Ok(all)
}

/// Parses arguments, environment variables and the settings file.
pub fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let mut invocation = Invocation::prepare(arguments)?;
    let matches = invocation.command.try_get_matches_from_mut(arguments);
    let matches = matches.map_err(|error| {
        let error = invocation.with_plain_usage(error);
        invocation.with_origin(error, arguments)
    })?;
    let (name, _) = matches.subcommand().expect("every command line has a command");
    unused::reject(&mut invocation.command, name, &matches)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    resolve_common(&mut cli.global, &matches, &invocation.settings)
        .map_err(|reason| invocation.command.error(ErrorKind::ArgumentConflict, reason))?;
    Ok(cli)
}

/// Parses the common options of a command line that the user is still typing. Returns `None` if they cannot be parsed.
pub fn parse_unfinished(arguments: &[OsString]) -> Option<Global> {
    let Invocation { command, settings, .. } = Invocation::prepare(arguments).ok()?;
    let matches = command.ignore_errors(true).try_get_matches_from(arguments).ok()?;
    let mut global = Global::from_arg_matches(&matches).ok()?;
    resolve_common(&mut global, &matches, &settings).ok()?;
    Some(global)
}

/// The clap definition for one set of arguments. Variables and the settings file apply only to options that the command
/// uses.
struct Invocation {
    command: Command,
    settings: Settings,
    /// Path of the settings file, if there is one.
    path: Option<PathBuf>,
    /// Name of the command that the arguments name, if any.
    name: Option<String>,
}

impl Invocation {
    fn prepare(arguments: &[OsString]) -> Result<Self, clap::Error> {
        // This pass only finds the command and the settings file. The complete parse reports the errors.
        let preview = definition().mut_arg("config", with_env_variable).ignore_errors(true);
        let preview = preview.try_get_matches_from(arguments);
        let is_help = preview.as_ref().is_err_and(|error| !error.use_stderr());
        let matches = preview.ok();
        let name = matches.as_ref().and_then(ArgMatches::subcommand_name).map(str::to_owned);
        let apply = |argument: Arg, change: &dyn Fn(Arg) -> Arg| {
            let is_unused = name.as_ref().is_some_and(|name| cli::is_unused(name, argument.get_id().as_str()));
            if is_unused { argument } else { change(argument) }
        };
        let mut command = map_configurable_args(definition(), |argument| apply(argument, &with_env_variable));
        let uses_settings = !is_help && !name.as_deref().is_some_and(|name| WITHOUT_SETTINGS.contains(&name));
        let path = file::config_path(matches.as_ref()).filter(|_| uses_settings);
        let Some(path) = path else {
            return Ok(Self { command, settings: Settings::new(), path: None, name });
        };
        let settings = file::read(&path).and_then(|settings| check_keys(settings, &command, &path));
        let settings = settings.map_err(|reason| command.error(ErrorKind::Io, reason))?;
        let with_file_value = |argument: Arg| with_file_value(argument, &settings);
        let command = map_configurable_args(command, |argument| apply(argument, &with_file_value));
        Ok(Self { command, settings, path: Some(path), name })
    }

    /// Names the variable or the line of the settings file that an invalid value is from. clap names the option, which
    /// the user may not have typed.
    fn with_origin(&self, mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
        if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
            return error;
        }
        let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return error };
        let Some(long) = argument.strip_prefix("--").and_then(|rest| rest.split([' ', '=']).next()) else {
            return error;
        };
        let flag = format!("--{long}");
        let is_flag = |argument: &OsString| {
            argument
                .to_str()
                .and_then(|text| text.strip_prefix(&flag))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        };
        let variable = variable_name(long);
        let origin = match (self.settings.get(long), &self.path) {
            _ if arguments.iter().any(is_flag) => return error,
            _ if is_set(&variable) => variable,
            (Some(value), Some(path)) => format!("{long} in {}, line {}", path.display(), value.line),
            _ => return error,
        };
        error.insert(ContextKind::InvalidArg, ContextValue::String(origin));
        error
    }

    /// Replaces the usage line of `error`. clap lists in it the options that have a value from a variable, as if they
    /// were required.
    fn with_plain_usage(&mut self, mut error: clap::Error) -> clap::Error {
        if error.get(ContextKind::Usage).is_some() {
            let usage = self.usage();
            error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
        }
        error
    }

    fn usage(&mut self) -> StyledStr {
        match self.name.as_ref().and_then(|name| self.command.find_subcommand_mut(name)) {
            Some(subcommand) => subcommand.render_usage(),
            None => self.command.render_usage(),
        }
    }
}

/// Returns the clap definition without variables and the settings file.
fn definition() -> Command {
    let command = unused::hide(Cli::command());
    map_configurable_args(command, |argument| match argument.get_action() {
        ArgAction::SetTrue => argument.value_parser(BoolishValueParser::new()),
        _ => argument,
    })
}

/// Sets the token and the command name, and resolves options that depend on each other: `--store` and `--server`,
/// `--key` and `--cert`.
fn resolve_common(global: &mut Global, matches: &ArgMatches, settings: &Settings) -> Result<(), &'static str> {
    matches.subcommand_name().unwrap_or_default().clone_into(&mut global.command_name);
    global.connection.token = token(settings);
    resolve_store_or_server(global, matches)?;
    if global.connection.key.is_some() && global.connection.cert.is_none() {
        return Err("--key needs --cert: it is the private key of that certificate");
    }
    Ok(())
}

/// Returns the token in `SHA_API_TOKEN`, or else in the settings file. Returns `None` if the token is empty.
fn token(settings: &Settings) -> Option<Token> {
    let variable = std::env::var_os("SHA_API_TOKEN").map(|token| token.to_string_lossy().into_owned());
    let setting = settings.get(TOKEN_KEY).and_then(|value| value.texts.first().cloned());
    // A token that was read from a file ends with a newline.
    let tokens = [variable, setting].into_iter().flatten().map(|token| token.trim_end_matches(['\r', '\n']).to_owned());
    tokens.into_iter().find(|token| !token.is_empty()).map(Token)
}

/// Selects `--store` or `--server`. A flag takes precedence over a variable, and a variable over the settings file.
fn resolve_store_or_server(global: &mut Global, matches: &ArgMatches) -> Result<(), &'static str> {
    let rank = |id| match matches.value_source(id) {
        Some(ValueSource::CommandLine) => 3,
        Some(ValueSource::EnvVariable) => 2,
        Some(_) => 1,
        None => 0,
    };
    let (store, server) = (rank("store"), rank("server"));
    if store > server {
        global.connection.servers.clear();
    } else if store == server && server > 0 {
        return Err("--store and --server exclude each other; remove one of them");
    }
    Ok(())
}

/// Applies `change` to the common options, the options of `serve`, and [`ALIASES`], except hidden ones.
fn map_configurable_args(command: Command, change: impl Fn(Arg) -> Arg) -> Command {
    let change = |argument: Arg| if argument.is_hide_set() { argument } else { change(argument) };
    let command = command.mut_args(change).mut_subcommand("serve", |serve| serve.mut_args(change));
    ALIASES
        .into_iter()
        .fold(command, |command, (name, id)| command.mut_subcommand(name, |subcommand| subcommand.mut_arg(id, change)))
}

fn variable_name(long: &str) -> String {
    format!("SHA_API_{}", long.to_uppercase().replace('-', "_"))
}

/// Returns whether a variable has a value. An empty variable counts as unset.
fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// Adds the environment variable, which only the long help shows.
fn with_env_variable(argument: Arg) -> Arg {
    match argument.get_long() {
        Some(long) if !["help", "version", "check"].contains(&long) => {
            let variable = variable_name(long);
            let help = argument.get_long_help().or_else(|| argument.get_help()).cloned().unwrap_or_default();
            let argument = argument.long_help(format!("{help}\n[env: {variable}]")).hide_env(true);
            if is_set(&variable) { argument.env(variable) } else { argument }
        }
        _ => argument,
    }
}

/// Makes the value in the settings file the default of an option.
fn with_file_value(argument: Arg, settings: &Settings) -> Arg {
    match argument.get_long().and_then(|long| settings.get(long)) {
        Some(value) => argument.default_values(value.texts.clone()).required(false),
        None => argument,
    }
}

/// Returns an error that names the first key that is not a setting or whose value has a wrong type.
fn check_keys(settings: Settings, command: &Command, path: &Path) -> Result<Settings, String> {
    let serve = command.find_subcommand("serve").expect("the command line has it");
    for (key, value) in &settings {
        let mut options = command.get_arguments().chain(serve.get_arguments());
        let option = options.find(|option| option.get_long() == Some(key) && !NOT_CONFIGURABLE.contains(&key.as_str()));
        let expected = match option {
            Some(option) if !option.get_action().takes_values() => [Kind::Boolean].as_slice(),
            Some(option) if is_number(option) => &[Kind::Number, Kind::String],
            Some(_) => &[Kind::String],
            None if key == TOKEN_KEY => &[Kind::String],
            None => return Err(format!("{}: `{key}` is not a setting; see `sha-api serve --help`", path.display())),
        };
        if !expected.contains(&value.kind) {
            let noun = match expected {
                [Kind::Boolean] => "true or false",
                [Kind::Number, ..] => "a number or a string",
                _ => "a string",
            };
            return Err(format!("{}, line {}: `{key}` must be {noun}", path.display(), value.line));
        }
    }
    Ok(settings)
}

/// Returns whether the values of an option are numbers, possibly with a unit.
fn is_number(option: &Arg) -> bool {
    let names = option.get_value_names().unwrap_or_default();
    names.iter().any(|name| ["COUNT", "LEVEL", "SIZE"].contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_definition_is_valid() {
        command().debug_assert();
    }

    #[test]
    fn help_lines_have_at_most_80_characters() {
        let command = command();
        for command in std::iter::once(&command).chain(command.get_subcommands()) {
            let about = command.get_about().map(ToString::to_string);
            let lines = command.get_arguments().map(|argument| {
                let defaults: Vec<_> =
                    argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
                let default = match argument.get_action() {
                    ArgAction::SetTrue => String::new(),
                    _ if defaults.is_empty() => String::new(),
                    _ => format!(" [default: {}]", defaults.join(" ")),
                };
                argument.get_help().map(|help| format!("{help}{default}"))
            });
            for line in lines.flatten().chain(about) {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
                assert!(!line.contains('\n') && !line.ends_with('.'), "{}: {line}", command.get_name());
            }
        }
    }

    #[test]
    fn the_short_help_of_a_command_shows_at_most_15_common_options() {
        let command = command();
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{argument}");
        }
        let shown = command.get_arguments().filter(|argument| !argument.is_hide_short_help_set()).count();
        assert!(shown <= 15, "{shown}");
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
        assert_eq!(cli.global.store.location, Some(crate::cli::Location("/from/flag".into())));
        assert_eq!(cli.global.store.max_message.as_u64(), 10);
        assert!(cli.global.output.json);
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
            assert!(error.contains(&format!("`{key}` is not a setting")), "{error}");
        }
    }

    #[test]
    fn an_invalid_value_is_reported_with_its_key() {
        let error = parse_with("lock-timeout = { a = 1 }", &["stats"]).unwrap_err().to_string();
        assert!(error.contains("`lock-timeout` must be"), "{error}");
        let error = parse_with("json = true\nlock-timeout = 'soon'", &["stats"]).unwrap_err().to_string();
        assert!(error.contains("lock-timeout in /"), "{error}");
        assert!(error.contains(", line 2'"), "{error}");
        let error = parse_with("", &["stats", "--lock-timeout", "soon"]).unwrap_err().to_string();
        assert!(error.contains("'--lock-timeout <TIME>'"), "{error}");
    }

    #[test]
    fn a_value_of_a_wrong_type_is_an_error_with_its_line() {
        for (settings, noun) in [
            ("quiet = false\nstore = 5", "a string"),
            ("quiet = false\nread-timeout = 5", "a string"),
            ("quiet = false\njson = 'yes'", "true or false"),
            ("quiet = false\nmax-message = true", "a number or a string"),
            ("quiet = false\nlisten = ['a', 5]", "a list of one of these"),
        ] {
            let error = parse_with(settings, &["serve"]).unwrap_err().to_string();
            assert!(error.contains(", line 2: ") && error.contains(noun), "{error}");
        }
    }

    #[test]
    fn help_version_and_commands_without_settings_ignore_a_faulty_file() {
        for arguments in [&["--help"][..], &["--version"], &["stats", "--help"], &["help"]] {
            let error = parse_with("stroe = 5", arguments).unwrap_err();
            assert!(!error.use_stderr(), "{arguments:?}: {error}");
        }
        for arguments in [&["man"][..], &["completions", "bash"]] {
            assert!(parse_with("stroe = 5", arguments).is_ok(), "{arguments:?}");
        }
    }

    #[test]
    fn an_unused_option_is_rejected_before_and_after_the_command() {
        for arguments in [
            ["serve", "--server", "http://a"],
            ["--server", "http://a", "serve"],
            ["man", "--store", "a"],
            ["--store", "a", "man"],
            ["stats", "--max-message", "not a size"],
        ] {
            let error = parse_with("", &arguments).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnknownArgument, "{error}");
            let option = arguments.iter().find(|argument| argument.starts_with("--")).unwrap();
            assert!(error.to_string().contains(&format!("'{option}'")), "{error}");
            assert!(error.to_string().contains("does not use it"), "{error}");
        }
    }

    #[test]
    fn file_settings_of_unused_options_are_ignored() {
        let cli = parse_with("server = 'not a URL'\nmax-message = 'much'", &["man"]).unwrap();
        assert!(cli.global.connection.servers.is_empty());
        let cli = parse_with("server = 'http://a'\nstore = '/b'", &["serve"]).unwrap();
        assert_eq!(cli.global.store.location, Some(crate::cli::Location("/b".into())));
        assert!(cli.global.connection.servers.is_empty());
    }

    #[test]
    fn a_common_option_is_accepted_before_and_after_the_command() {
        for arguments in [["--store", "/a", "stats"], ["stats", "--store", "/a"]] {
            let cli = parse_with("", &arguments).unwrap();
            assert_eq!(cli.global.store.location, Some(crate::cli::Location("/a".into())));
        }
    }

    #[test]
    fn the_usage_line_names_no_option_as_required() {
        let error = parse_with("store = '/a'", &["put", "--store", "/b", "--nonsense"]).unwrap_err().to_string();
        assert!(error.contains("Usage: sha-api put [OPTIONS] [MESSAGE]\n"), "{error}");
    }

    #[test]
    fn an_unfinished_command_line_has_a_store() {
        let arguments = ["sha-api", "list", "--store", "/a", "--limit", "x", "--after"].map(OsString::from);
        let global = parse_unfinished(&arguments).unwrap();
        assert_eq!(global.store.location, Some(crate::cli::Location("/a".into())));
    }
}
