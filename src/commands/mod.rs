//! One verb a file: what happens between stdin, stdout and a `Messages`.

mod completions;
mod copy;
mod digests;
mod export;
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
mod rm;
mod serve;
mod stats;
mod token;
mod verify;

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use crate::cli::{Cli, Command, Global};
use crate::location;
use crate::message_store::{self, MessageStore};
pub use completions::answer_shell;
use output::Output;
use progress::Progress;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// All was done.
    Success,
    /// Something that was asked for is not stored.
    Absent,
    /// Something failed, and has been reported already; the rest was done.
    Reported(u8),
}

impl ExitStatus {
    /// The one that a caller has to know of, if it can know of one only.
    fn worst(self, other: Self) -> Self {
        let weight = |outcome| match outcome {
            Self::Success => 0,
            Self::Absent => 1,
            Self::Reported(code) => code,
        };
        if weight(other) > weight(self) { other } else { self }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(outcome: ExitStatus) -> Self {
        match outcome {
            ExitStatus::Success => Self::SUCCESS,
            ExitStatus::Absent => Self::from(1),
            ExitStatus::Reported(code) => Self::from(code),
        }
    }
}

/// The caller asked for what makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

/// What every command works with.
struct Context {
    global: Global,
    output: Output,
    progress: Arc<Progress>,
}

impl Context {
    /// Opens the store; `create` makes it if it is not there.
    fn open(&self, create: bool) -> Result<Arc<dyn MessageStore>, message_store::Error> {
        location::open(&self.global, create, &self.progress.event_sink())
    }

    /// Opens another store than the one that `--store` names.
    fn open_location(&self, location: &OsStr, create: bool) -> Result<Arc<dyn MessageStore>, message_store::Error> {
        location::open_location(&self.global, location, create, &self.progress.event_sink())
    }

    /// Opens the store at the first call: what feeds a pipe may need the store before its first line comes.
    fn get_or_open(
        &self,
        opened: &mut Option<Arc<dyn MessageStore>>,
    ) -> Result<Arc<dyn MessageStore>, message_store::Error> {
        match opened {
            Some(messages) => Ok(messages.clone()),
            None => Ok(opened.insert(self.open(false)?).clone()),
        }
    }
}

/// Carries out a command.
pub fn run(cli: Cli) -> anyhow::Result<ExitStatus> {
    let global = cli.global;
    let mut context = Context {
        output: Output::new(global.output.json)?,
        progress: Arc::new(Progress::new(!global.output.quiet, global.output.json)),
        global,
    };
    let outcome = match cli.command {
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
    Ok(outcome)
}

/// Returns the exit status of a command that has read all messages of a store. Prints a line if the store has `lost`
/// some of them.
fn status_after_reading_all(json: bool, lost: u64, status: ExitStatus) -> ExitStatus {
    if lost == 0 {
        return status;
    }
    output::print_notice(&format!("the output is incomplete: number of lost messages: {lost}"), json);
    ExitStatus::Reported(4)
}

/// Says on stderr why a command failed, and gives its exit code. A closed pipe is no failure.
pub fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    let code = exit_code(error);
    if code != 0 {
        output::print_error(error, json);
    }
    ExitCode::from(code)
}

/// Prints the help that was asked for, or says why the arguments make no sense.
pub fn report_usage(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if error.use_stderr() && arguments.iter().any(|argument| argument == "--json") {
        let text = error.to_string();
        let reason = text.lines().next().unwrap_or_default();
        output::print_notice(reason.trim_start_matches("error: "), true);
    } else {
        match arguments.iter().filter_map(|argument| argument.to_str()).find(|text| text.contains("://")) {
            // What was given may be shown again, and with it a password.
            Some(url) => eprint!("{}", error.render().to_string().replace(url, &crate::postgres_url::redacted(url))),
            // If nobody reads it, nobody misses it.
            None => drop(error.print()),
        }
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let closed_pipe = error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe);
    match error.downcast_ref() {
        _ if closed_pipe => 0,
        _ if error.is::<UsageError>() => 2,
        Some(message_store::Error::Corrupt(_) | message_store::Error::Lost(_)) => 4,
        Some(message_store::Error::NotPermitted { .. }) => 5,
        _ => 3,
    }
}
