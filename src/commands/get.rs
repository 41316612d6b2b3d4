//! `get`: prints the exact bytes of messages.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::str;

use anyhow::{Context as _, anyhow};

use super::context::Context;
use super::exit_status::{ExitStatus, UsageError};
use super::{digests, output};
use crate::cli;
use crate::digest::{Digest, Prefix};
use crate::fs;
use crate::json_message::JsonMessage;
use crate::message_store::{Error, ListQuery, MessageStore};

/// Prints the messages of the given digests, or writes them to a file.
pub fn run(context: &mut Context, get: &cli::Get) -> anyhow::Result<ExitStatus> {
    let mut opened = None;
    let delimiter: &[u8] = match (get.lines, get.null) {
        (true, _) => b"\n",
        (_, true) => b"\0",
        _ => b"",
    };
    let mut status = ExitStatus::Success;
    let Some(path) = &get.output else {
        let is_terminal = context.output.is_terminal() && !context.output.is_json();
        digests::for_each_batch(&get.digests, |texts| {
            let print = |context: &mut Context, digest, message: &[u8]| match context.output.is_json() {
                true => context.output.print_json(&JsonMessage::new(Some(digest), message)).map_err(Into::into),
                false if is_terminal => print_to_terminal(context.output.raw(), message),
                false => {
                    let out = context.output.raw();
                    Ok(out.write_all(message).and_then(|()| out.write_all(delimiter))?)
                }
            };
            let messages = context.get_or_open(&mut opened)?;
            status = status.worst(fetch(context, &*messages, texts, print)?);
            Ok(context.output.flush()?)
        })?;
        return Ok(status);
    };
    let mut failure = None;
    let written = write_output(path, |file| {
        let result = digests::for_each_batch(&get.digests, |texts| {
            let write = |_: &mut Context, _, message: &[u8]| {
                Ok(file.write_all(message).and_then(|()| file.write_all(delimiter))?)
            };
            let messages = context.get_or_open(&mut opened)?;
            status = status.worst(fetch(context, &*messages, texts, write)?);
            Ok(())
        });
        match (result, status) {
            (Ok(()), ExitStatus::Success) => Ok(()),
            (result, _) => {
                failure = result.err();
                Err(io::Error::other("not all messages were written"))
            }
        }
    });
    match (failure, status) {
        (Some(error), _) => Err(error),
        (None, ExitStatus::Success) => {
            written.with_context(|| format!("cannot write {}", path.display())).map(|()| status)
        }
        (None, _) => Ok(status),
    }
}

/// Passes the message of each digest to `write`. Reports and skips absent and corrupt messages.
fn fetch(
    context: &mut Context,
    messages: &dyn MessageStore,
    texts: &[String],
    mut write: impl FnMut(&mut Context, Digest, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<ExitStatus> {
    let mut status = ExitStatus::Success;
    let mut digests = Vec::with_capacity(texts.len());
    for text in texts {
        match resolve(messages, text)? {
            Some(digest) => digests.push(digest),
            None => {
                output::print_notice(&format!("absent: {text}"), context.output.is_json());
                status = status.worst(ExitStatus::Absent);
            }
        }
    }
    for (digest, result) in digests.iter().zip(messages.get(&digests)) {
        match result {
            Ok(Some(message)) => write(context, *digest, &message)?,
            Ok(None) => {
                output::print_notice(&format!("absent: {digest}"), context.output.is_json());
                status = status.worst(ExitStatus::Absent);
            }
            Err(error @ (Error::Corrupt(_) | Error::Lost(_))) => {
                output::print_notice(&error.to_string(), context.output.is_json());
                status = status.worst(ExitStatus::Reported(4));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(status)
}

/// Returns the digest in `text`, or the only stored digest that begins with `text`.
fn resolve(messages: &dyn MessageStore, text: &str) -> anyhow::Result<Option<Digest>> {
    let prefix =
        Prefix::parse_unambiguous(text).map_err(|error| UsageError(format!("`{text}` is not a digest: {error}")))?;
    if let Some(digest) = prefix.to_digest() {
        return Ok(Some(digest));
    }
    let found = messages.list(&ListQuery { prefix, after: None, limit: 2 })?;
    match found.as_slice() {
        [] => Ok(None),
        [entry] => Ok(Some(entry.digest)),
        [first, second, ..] => {
            let reason = format!("`{text}` is ambiguous: {} and {} begin with it", first.digest, second.digest);
            Err(UsageError(reason).into())
        }
    }
}

/// Prints a message with a final newline. Refuses control characters, which could change the state of the terminal.
fn print_to_terminal(out: &mut dyn Write, message: &[u8]) -> anyhow::Result<()> {
    let text = str::from_utf8(message).ok();
    let is_plain = |text: &str| text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'));
    if !text.is_some_and(is_plain) {
        return Err(anyhow!(UsageError("the message is binary; use -o FILE or a pipe".to_owned())));
    }
    out.write_all(message)?;
    if !message.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Writes a file completely or not at all. A device such as `/dev/null` is written to directly.
fn write_output(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() => write(&mut File::options().write(true).open(path)?),
        _ => fs::write_atomic(path, 0o666, write),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_a_final_newline_and_no_binary() {
        let printed = |message: &[u8]| {
            let mut out = Vec::new();
            print_to_terminal(&mut out, message).map(|()| out)
        };
        assert_eq!(printed(b"foo").unwrap(), b"foo\n");
        assert_eq!(printed(b"foo\n").unwrap(), b"foo\n");
        assert_eq!(printed("Grüße\t\r\n".as_bytes()).unwrap(), "Grüße\t\r\n".as_bytes());
        for binary in [b"\x1b[2J".as_slice(), b"\0", b"\xff", "\u{9b}31m".as_bytes()] {
            assert!(printed(binary).is_err());
        }
    }
}
