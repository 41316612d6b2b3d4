//! `get`: digests come in, the very same bytes go out.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::str;

use anyhow::{Context as _, anyhow};

use super::{Context, ExitStatus, UsageError, digests, output};
use crate::cli;
use crate::digest::{Digest, Prefix};
use crate::fs;
use crate::json_message::JsonMessage;
use crate::message_store::{Error, ListQuery, MessageStore};

/// Prints the messages that are asked for.
pub fn run(context: &mut Context, get: &cli::Get) -> anyhow::Result<ExitStatus> {
    let mut opened = None;
    let end: &[u8] = match (get.lines, get.null) {
        (true, _) => b"\n",
        (_, true) => b"\0",
        _ => b"",
    };
    let mut outcome = ExitStatus::Success;
    let Some(path) = &get.output else {
        let guard = context.output.is_terminal() && !context.output.is_json();
        digests::for_each_batch(&get.digests, |texts| {
            let answer = |context: &mut Context, digest, message: &[u8]| match context.output.is_json() {
                true => context.output.print_json(&JsonMessage::new(Some(digest), message)).map_err(Into::into),
                false if guard => print_to_terminal(context.output.raw(), message),
                false => {
                    Ok(context.output.raw().write_all(message).and_then(|()| context.output.raw().write_all(end))?)
                }
            };
            let messages = context.get_or_open(&mut opened)?;
            outcome = outcome.worst(fetch(context, &*messages, texts, answer)?);
            Ok(context.output.flush()?)
        })?;
        return Ok(outcome);
    };
    let mut failed = None;
    let written = write_output(path, |file| {
        let got = digests::for_each_batch(&get.digests, |texts| {
            let answer =
                |_: &mut Context, _, message: &[u8]| Ok(file.write_all(message).and_then(|()| file.write_all(end))?);
            let messages = context.get_or_open(&mut opened)?;
            outcome = outcome.worst(fetch(context, &*messages, texts, answer)?);
            Ok(())
        });
        match (got, outcome) {
            (Ok(()), ExitStatus::Success) => Ok(()),
            (got, _) => {
                failed = got.err();
                Err(io::Error::other("not all messages are there"))
            }
        }
    });
    match (failed, outcome) {
        (Some(error), _) => Err(error),
        (None, ExitStatus::Success) => {
            written.with_context(|| format!("cannot write {}", path.display())).map(|()| outcome)
        }
        (None, _) => Ok(outcome),
    }
}

/// Gets each digest and hands its message to `answer`; says what is absent or corrupt and goes on.
fn fetch(
    context: &mut Context,
    messages: &dyn MessageStore,
    texts: &[String],
    mut answer: impl FnMut(&mut Context, Digest, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<ExitStatus> {
    let mut outcome = ExitStatus::Success;
    let mut wanted = Vec::with_capacity(texts.len());
    for text in texts {
        match resolve(messages, text)? {
            Some(digest) => wanted.push(digest),
            None => {
                output::print_notice(&format!("absent: {text}"), context.output.is_json());
                outcome = outcome.worst(ExitStatus::Absent);
            }
        }
    }
    for (digest, got) in wanted.iter().zip(messages.get(&wanted)) {
        match got {
            Ok(Some(message)) => answer(context, *digest, &message)?,
            Ok(None) => {
                output::print_notice(&format!("absent: {digest}"), context.output.is_json());
                outcome = outcome.worst(ExitStatus::Absent);
            }
            Err(error @ (Error::Corrupt(_) | Error::Lost(_))) => {
                output::print_notice(&error.to_string(), context.output.is_json());
                outcome = outcome.worst(ExitStatus::Reported(4));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(outcome)
}

/// The digest that a text names: itself, or the only one that is stored and begins so.
fn resolve(messages: &dyn MessageStore, text: &str) -> anyhow::Result<Option<Digest>> {
    let prefix = Prefix::parse_unambiguous(text).map_err(|why| UsageError(format!("`{text}` is no digest: {why}")))?;
    if let Some(digest) = prefix.to_digest() {
        return Ok(Some(digest));
    }
    let found = messages.list(&ListQuery { prefix, after: None, limit: 2 })?;
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.digest)),
        [one, other, ..] => {
            Err(UsageError(format!("`{text}` is ambiguous: {} and {} begin so", one.digest, other.digest)).into())
        }
    }
}

/// A terminal gets whole lines, and nothing that could upset it.
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

/// Writes a file whole or not at all; what is no plain file, such as `/dev/null`, is written to as it is.
fn write_output(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    match path.metadata() {
        Ok(data) if !data.is_file() => write(&mut File::options().write(true).open(path)?),
        _ => fs::write_atomic(path, 0o666, write),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_a_final_newline_and_no_binary() {
        let shown = |message: &[u8]| {
            let mut out = Vec::new();
            print_to_terminal(&mut out, message).map(|()| out)
        };
        assert_eq!(shown(b"foo").unwrap(), b"foo\n");
        assert_eq!(shown(b"foo\n").unwrap(), b"foo\n");
        assert_eq!(shown("Grüße\t\r\n".as_bytes()).unwrap(), "Grüße\t\r\n".as_bytes());
        for binary in [b"\x1b[2J".as_slice(), b"\0", b"\xff", "\u{9b}31m".as_bytes()] {
            assert!(shown(binary).is_err());
        }
    }
}
