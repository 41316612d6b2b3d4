//! `completions` prints the script that registers sha-api with a shell. The script calls sha-api again for the
//! candidates, with `SHA_API_COMPLETE` set.

mod candidates;

use clap::{Arg, Command, CommandFactory};
use clap_complete::CompleteEnv;
use clap_complete::engine::ArgValueCompleter;
use clap_complete::env::{Bash, EnvCompleter, Fish, Shells, Zsh};

use super::context::Context;
use super::exit_status::ExitStatus;
use crate::cli::{self, Cli};

/// Environment variable in which the script passes the name of the shell.
const SHELL_VARIABLE: &str = "SHA_API_COMPLETE";
/// Name of the command that is completed, and of the program that the script calls.
const PROGRAM: &str = "sha-api";
/// End of the script for zsh. zsh runs an autoloaded script as the completion function; without this, the first
/// completion would define the function and offer nothing.
const ZSH_AUTOLOAD: &str = r#"
if [[ $funcstack[1] == _sha-api ]]; then
    _clap_dynamic_completer_sha_api "$@"
fi
"#;

/// Prints the script for a shell.
pub fn run(context: &mut Context, completions: &cli::Completions) -> anyhow::Result<ExitStatus> {
    let shell: &dyn EnvCompleter = match completions.shell {
        cli::Shell::Bash => &Bash,
        cli::Shell::Zsh => &Zsh,
        cli::Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    shell.write_registration(SHELL_VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    if matches!(completions.shell, cli::Shell::Zsh) {
        script.extend_from_slice(ZSH_AUTOLOAD.as_bytes());
    }
    context.output.raw().write_all(&script)?;
    Ok(ExitStatus::Success)
}

/// Prints the candidates and exits, if a shell asks for them.
pub fn answer_shell() {
    CompleteEnv::with_factory(command)
        .var(SHELL_VARIABLE)
        .bin(PROGRAM)
        .completer(PROGRAM)
        .shells(Shells(&[&Bash, &Zsh, &Fish]))
        .complete();
}

/// Returns the clap definition with completers. Each command has exactly the options that it accepts, so that the shell
/// offers no others.
fn command() -> Command {
    let command = Cli::command().mut_args(|argument| argument.global(false));
    let common: Vec<Arg> = command.get_arguments().cloned().collect();
    let command = command.mut_subcommands(|subcommand| {
        let name = subcommand.get_name().to_owned();
        let is_used = |argument: &&Arg| !cli::is_unused(&name, argument.get_id().as_str());
        subcommand.args(common.iter().filter(is_used)).mut_args(|argument| add_completer(&name, argument))
    });
    command.mut_args(|argument| add_completer("", argument))
}

fn add_completer(command: &str, argument: Arg) -> Arg {
    let completer = match (command, argument.get_id().as_str()) {
        ("get" | "has" | "rm", "digests") | ("list", "after") => ArgValueCompleter::new(candidates::digests),
        ("token", "scope") => ArgValueCompleter::new(candidates::scopes),
        (_, "compression") => ArgValueCompleter::new(candidates::compression_levels),
        _ => return argument,
    };
    argument.add(completer)
}
