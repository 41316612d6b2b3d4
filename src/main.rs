//! The program: parses the arguments, runs the command, reports errors and sets the exit status.

use std::process::ExitCode;

use sha_api::{commands, config, sandbox};

fn main() -> ExitCode {
    sandbox::forbid_exec();
    commands::answer_shell();
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match config::parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => return commands::report_usage(&error, &arguments),
    };
    let json = cli.global.output.json;
    match commands::run(cli) {
        Ok(outcome) => outcome.into(),
        Err(error) => commands::report(&error, json),
    }
}
