//! Errors as the user sees them on stderr, and the exit code for each. Passwords of database URLs are removed.

use std::ffi::OsString;
use std::process::ExitCode;

use super::exit_status::{ExitStatus, exit_code};
use super::output;
use crate::postgres_url;

/// Returns the exit status of a command that has read all messages of a store. Prints a line if the store has `lost`
/// some of them.
pub(super) fn status_after_reading_all(lost: u64, status: ExitStatus, json: bool) -> ExitStatus {
    if lost == 0 {
        return status;
    }
    output::print_notice(&format!("the output is incomplete: number of lost messages: {lost}"), json);
    ExitStatus::Reported(4)
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

/// Removes all but the scheme of database URLs from an error of clap, which quotes values of arguments, variables and
/// the settings file. They may be parts of a URL, since clap splits lists at commas.
fn without_passwords(text: &str, arguments: &[OsString]) -> String {
    let hide = |text: String, url: &str| match url.split_once("://") {
        Some((scheme, rest)) if postgres_url::looks_like(url) && !rest.is_empty() => {
            text.replace(url, &format!("{scheme}://…"))
        }
        _ => text,
    };
    // Arguments first, since a password may contain the characters that end a URL below.
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
