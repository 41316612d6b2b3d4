//! Parse, run, report, exit code.

use std::process::ExitCode;

use sha_api::{commands, config};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = config::parse(&arguments).unwrap_or_else(|error| error.exit());
    let json = cli.global.json;
    match commands::run(cli) {
        Ok(outcome) => outcome.into(),
        Err(error) => commands::report(&error, json),
    }
}
