//! Common options that have no effect on a command. The command hides them, and rejects them on the command line.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::cli;

/// Gives each command hidden copies of the options that it does not use. clap does not propagate a global option to a
/// command that has an own option of this id.
pub(super) fn hide(command: Command) -> Command {
    let common: Vec<Arg> = command.get_arguments().cloned().collect();
    command.mut_subcommands(|subcommand| {
        let name = subcommand.get_name().to_owned();
        let unused = common.iter().filter(|option| cli::is_unused(&name, option.get_id().as_str()));
        let hidden: Vec<Arg> = unused.map(hidden_copy).collect();
        subcommand.args(hidden)
    })
}

/// Returns an option that accepts any text, so that the error is about the option and not about its value.
fn hidden_copy(option: &Arg) -> Arg {
    let copy = Arg::new(option.get_id().clone()).action(option.get_action().clone()).hide(true);
    let copy = option.get_long().into_iter().fold(copy, |copy, long| copy.long(long.to_owned()));
    let copy = option.get_short().into_iter().fold(copy, Arg::short);
    if option.get_action().takes_values() { copy.value_parser(value_parser!(OsString)) } else { copy }
}

/// Returns an error if the command line has an option that the command `name` does not use.
pub(super) fn reject(command: &mut Command, name: &str, matches: &ArgMatches) -> Result<(), clap::Error> {
    let is_given = |option: &&Arg| {
        let id = option.get_id().as_str();
        cli::is_unused(name, id) && matches.value_source(id) == Some(ValueSource::CommandLine)
    };
    let Some(long) = command.get_arguments().find(is_given).and_then(Arg::get_long) else { return Ok(()) };
    let reason = format!("unexpected argument '--{long}': `{name}` does not use it");
    let subcommand = command.find_subcommand_mut(name).expect("the matches are those of this command");
    Err(subcommand.error(ErrorKind::UnknownArgument, reason))
}
