//! The commands, one per file. A command reads stdin, uses a `MessageStore`, and prints its results.

mod completions;
mod context;
mod copy;
mod digests;
mod exit_status;
mod export;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod get;
mod has;
mod health;
mod import;
mod list;
mod man;
mod output;
mod progress;
mod put;
mod records;
mod report;
mod rm;
mod serve;
mod stats;
mod token;
mod verify;

use std::sync::Arc;

use crate::cli::{Cli, Command};
pub use completions::answer_shell;
use context::Context;
pub use exit_status::{ExitStatus, UsageError};
#[cfg(fuzzing)]
pub use fuzz::check_import;
use output::Output;
use progress::Progress;
pub use report::{report, report_usage};

/// Runs a command.
pub fn run(cli: Cli) -> anyhow::Result<ExitStatus> {
    let global = cli.global;
    let mut context = Context {
        output: Output::new(global.output.json)?,
        progress: Arc::new(Progress::new(!global.output.quiet, global.output.json)),
        global,
    };
    let status = match cli.command {
        Command::Put(put) => put::run(&mut context, &put),
        Command::Get(get) => get::run(&mut context, &get),
        Command::Has(has) => has::run(&mut context, &has),
        Command::List(list) => list::run(&mut context, &list),
        Command::Rm(rm) => rm::run(&mut context, &rm),
        Command::Stats(_) => stats::run(&mut context),
        Command::Verify(verify) => verify::run(&mut context, &verify),
        Command::Export(export) => export::run(&mut context, &export),
        Command::Import(import) => import::run(&mut context, &import),
        Command::Copy(copy) => copy::run(&mut context, &copy),
        Command::Serve(serve) => serve::run(&mut context, &serve),
        Command::Health(health) => health::run(&mut context, &health),
        Command::Token(token) => token::run(&mut context, &token),
        Command::Man(man) => man::run(&mut context, &man),
        Command::Completions(completions) => completions::run(&mut context, &completions),
    }?;
    context.output.flush()?;
    Ok(status)
}
