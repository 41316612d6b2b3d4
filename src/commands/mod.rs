//! The commands, one per file. A command reads stdin, uses a [`MessageStore`], and prints its results.

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
use crate::message_store::{self, MessageStore};
use crate::{location, postgres_url};
pub use completions::answer_shell;
use output::Output;
use progress::Progress;

/// Exit status of a command that returned no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// Everything was done.
    Success,
    /// A requested message is not stored.
    Absent,
    /// A part failed with this exit code and was reported; the other parts were done.
    Reported(u8),
}

impl ExitStatus {
    const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Absent => 1,
            Self::Reported(code) => code,
        }
    }

    /// Returns the status with the higher exit code.
    fn worst(self, other: Self) -> Self {
        if other.code() > self.code() { other } else { self }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

/// Error in the arguments or in digests on stdin; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

/// State that every command needs.
struct Context {
    global: Global,
    output: Output,
    progress: Arc<Progress>,
}

impl Context {
    /// Opens the selected store or server. If `create`, a missing store is created.
    fn open(&self, create: bool) -> Result<Arc<dyn MessageStore>, message_store::Error> {
        location::open(&self.global, create, &self.progress.event_sink())
    }

    /// Opens the store or server at `location`.
    fn open_location(&self, location: &OsStr, create: bool) -> Result<Arc<dyn MessageStore>, message_store::Error> {
        location::open_location(&self.global, location, create, &self.progress.event_sink())
    }

    /// Opens the store at the first call, because the writer of a pipe may need the store before it writes.
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

/// Prints the error of a command on stderr and returns its exit code. A closed pipe is not an error.
pub fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    let code = exit_code(error);
    if code != 0 {
        output::print_error(error, json);
    }
    ExitCode::from(code)
}

/// Prints the requested help, or the error in the arguments, and returns the exit code.
pub fn report_usage(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if error.use_stderr() {
        let plain = error.to_string();
        let text = without_passwords(&plain, arguments);
        if arguments.iter().any(|argument| argument == "--json") {
            let reason: Vec<_> = text.split("\n\n").next().unwrap_or_default().split_whitespace().collect();
            output::print_notice(reason.join(" ").trim_start_matches("error: "), true);
        } else if text == plain {
            // An error on stderr cannot be reported anywhere.
            let _ = error.print();
        } else {
            eprint!("{text}");
        }
    } else {
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Hides database URLs, except their scheme, in an error of clap. Such an error quotes values of arguments, variables
/// and the settings file. A quoted value may be part of a URL, since clap splits lists at commas.
fn without_passwords(text: &str, arguments: &[OsString]) -> String {
    let hide = |text: String, url: &str| match url.split_once("://") {
        Some((scheme, rest)) if postgres_url::looks_like(url) && !rest.is_empty() => {
            text.replace(url, &format!("{scheme}://…"))
        }
        _ => text,
    };
    // Arguments are replaced first, since a password may contain the characters that end a URL below.
    let arguments = arguments.iter().filter_map(|argument| argument.to_str());
    let values = arguments.flat_map(|argument| [argument, argument.split_once('=').map_or("", |(_, value)| value)]);
    let parts = values.flat_map(|value| std::iter::once(value).chain(value.split(',')));
    let text = parts.fold(text.to_owned(), hide);
    let is_end = |c: char| c.is_whitespace() || matches!(c, '\'' | '`' | ',');
    let starts = ["postgres://", "postgresql://"].iter().flat_map(|scheme| text.match_indices(scheme));
    let urls: Vec<String> =
        starts.map(|(start, _)| text[start..].split(is_end).next().unwrap_or_default().to_owned()).collect();
    urls.iter().fold(text, |text, url| hide(text, url))
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let closed_pipe = error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe);
    match error.downcast_ref() {
        _ if closed_pipe => 0,
        _ if error.is::<UsageError>() => 2,
        Some(message_store::Error::Corrupt(_)) => 4,
        Some(message_store::Error::NotPermitted { .. }) => 5,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_arguments_contain_no_password() {
        let url = "postgres://me:it's,secret@host/db?password=secret";
        for arguments in [
            vec!["sha-api", "--server", url, "stats"],
            vec!["sha-api", "stats", "--server", &format!("http://a,{url}")],
            vec!["sha-api", &format!("--server={url}"), "stats"],
            vec!["sha-api", "stats", url],
        ] {
            let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
            let error = crate::config::parse(&arguments).unwrap_err().to_string();
            assert!(error.contains("it's"), "{error}");
            let text = without_passwords(&error, &arguments);
            assert!(text.contains("postgres://…") && !text.contains("it's") && !text.contains("secret"), "{text}");
        }
    }
}
