//! `get`: digests come in, the very same bytes go out.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::str;

use anyhow::{Context as _, anyhow};

use super::{Context, Outcome, Usage, digests, output};
use crate::cli;
use crate::digest::{Digest, Prefix};
use crate::durable;
use crate::messages::{Error, Messages, Page};
use crate::wire::Outgoing;

/// Prints the messages that are asked for.
pub fn run(context: &mut Context, get: &cli::Get) -> anyhow::Result<Outcome> {
    let mut opened = None;
    let end: &[u8] = match (get.lines, get.null) {
        (true, _) => b"\n",
        (_, true) => b"\0",
        _ => b"",
    };
    let mut outcome = Outcome::Done;
    let Some(path) = &get.output else {
        let guard = context.output.is_terminal() && !context.output.is_json();
        digests::each_batch(&get.digests, |texts| {
            let answer = |context: &mut Context, digest, message: &[u8]| match context.output.is_json() {
                true => context.output.object(&Outgoing::new(Some(digest), message)).map_err(Into::into),
                false if guard => print_for_people(context.output.raw(), message),
                false => {
                    Ok(context.output.raw().write_all(message).and_then(|()| context.output.raw().write_all(end))?)
                }
            };
            let messages = context.open_once(&mut opened)?;
            outcome = outcome.or(fetch(context, &*messages, texts, answer)?);
            Ok(context.output.flush()?)
        })?;
        return Ok(outcome);
    };
    let mut failed = None;
    let written = write_to(path, |file| {
        let got = digests::each_batch(&get.digests, |texts| {
            let answer =
                |_: &mut Context, _, message: &[u8]| Ok(file.write_all(message).and_then(|()| file.write_all(end))?);
            let messages = context.open_once(&mut opened)?;
            outcome = outcome.or(fetch(context, &*messages, texts, answer)?);
            Ok(())
        });
        match (got, outcome) {
            (Ok(()), Outcome::Done) => Ok(()),
            (got, _) => {
                failed = got.err();
                Err(io::Error::other("not all messages are there"))
            }
        }
    });
    match (failed, outcome) {
        (Some(error), _) => Err(error),
        (None, Outcome::Done) => written.with_context(|| format!("cannot write {}", path.display())).map(|()| outcome),
        (None, _) => Ok(outcome),
    }
}

/// Gets each digest and hands its message to `answer`; says what is absent or corrupt and goes on.
fn fetch(
    context: &mut Context,
    messages: &dyn Messages,
    texts: &[String],
    mut answer: impl FnMut(&mut Context, Digest, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::Done;
    let mut wanted = Vec::with_capacity(texts.len());
    for text in texts {
        match resolve(messages, text)? {
            Some(digest) => wanted.push(digest),
            None => {
                output::say(&format!("absent: {text}"), context.output.is_json());
                outcome = outcome.or(Outcome::Absent);
            }
        }
    }
    for (digest, got) in wanted.iter().zip(messages.get(&wanted)) {
        match got {
            Ok(Some(message)) => answer(context, *digest, &message)?,
            Ok(None) => {
                output::say(&format!("absent: {digest}"), context.output.is_json());
                outcome = outcome.or(Outcome::Absent);
            }
            Err(error @ Error::Corrupt(_)) => {
                output::say(&error.to_string(), context.output.is_json());
                outcome = outcome.or(Outcome::Reported(4));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(outcome)
}

/// The digest that a text names: itself, or the only one that is stored and begins so.
fn resolve(messages: &dyn Messages, text: &str) -> anyhow::Result<Option<Digest>> {
    let prefix = Prefix::naming_one(text).map_err(|why| Usage(format!("`{text}` is no digest: {why}")))?;
    if let Some(digest) = prefix.whole() {
        return Ok(Some(digest));
    }
    let found = messages.list(&Page { prefix, after: None, limit: 2 })?;
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.digest)),
        [one, other, ..] => {
            Err(Usage(format!("`{text}` is ambiguous: {} and {} begin so", one.digest, other.digest)).into())
        }
    }
}

/// A terminal gets whole lines, and nothing that could upset it.
fn print_for_people(out: &mut dyn Write, message: &[u8]) -> anyhow::Result<()> {
    let text = str::from_utf8(message).ok();
    let is_plain = |text: &str| text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'));
    if !text.is_some_and(is_plain) {
        return Err(anyhow!(Usage("the message is binary; use -o FILE or a pipe".to_owned())));
    }
    out.write_all(message)?;
    if !message.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Writes a file whole or not at all; what is no plain file, such as `/dev/null`, is written to as it is.
fn write_to(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    match path.metadata() {
        Ok(data) if !data.is_file() => write(&mut File::options().write(true).open(path)?),
        _ => durable::write_whole(path, 0o666, write),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_a_final_newline_and_no_binary() {
        let shown = |message: &[u8]| {
            let mut out = Vec::new();
            print_for_people(&mut out, message).map(|()| out)
        };
        assert_eq!(shown(b"foo").unwrap(), b"foo\n");
        assert_eq!(shown(b"foo\n").unwrap(), b"foo\n");
        assert_eq!(shown("Grüße\t\r\n".as_bytes()).unwrap(), "Grüße\t\r\n".as_bytes());
        for binary in [b"\x1b[2J".as_slice(), b"\0", b"\xff", "\u{9b}31m".as_bytes()] {
            assert!(shown(binary).is_err());
        }
    }
}
