//! `put`: bytes come in, digests go out, each only once its message is durable.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{IsTerminal, Read, stdin};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::records::{Records, read_ahead};
use super::{Context, Outcome, output};
use crate::cli;
use crate::digest::Digest;
use crate::messages::Messages;

/// Bytes that are committed together at the most.
const GROUP: usize = 4 << 20;
/// Messages that are committed together at the most.
const COUNT: usize = 1 << 14;

/// Stores what the arguments say.
pub fn run(context: &mut Context, put: &cli::Put) -> anyhow::Result<Outcome> {
    if !put.file.is_empty() {
        return put_files(context, &put.file);
    }
    if put.lines || put.null {
        return put_records(context, if put.null { 0 } else { b'\n' });
    }
    let limit = context.global.max_message.as_u64();
    let message = match &put.message {
        Some(message) if message != "-" => message.as_bytes().to_vec(),
        _ => {
            if stdin().is_terminal() {
                context.progress.note("reading the message from the terminal; Ctrl-D ends it");
            }
            read_whole(stdin().lock(), limit).context("cannot read stdin")?
        }
    };
    let receipts = context.open(true)?.put(vec![message])?;
    print(context, receipts[0].digest)?;
    Ok(Outcome::Done)
}

fn put_records(context: &mut Context, end: u8) -> anyhow::Result<Outcome> {
    let messages = context.open(true)?;
    let batches = read_ahead(Records::new(stdin(), end, context.global.max_message.as_u64()));
    let mut bytes = 0;
    let mut next = batches.recv().ok();
    while let Some(batch) = next.take() {
        let mut group = batch?;
        // What has come by now is committed together; what has not is not waited for.
        while group.len() < COUNT && group.iter().map(Vec::len).sum::<usize>() < GROUP {
            match batches.try_recv() {
                Ok(Ok(more)) => group.extend(more),
                Ok(stopped) => {
                    next = Some(stopped);
                    break;
                }
                Err(_) => break,
            }
        }
        bytes += group.iter().map(|message| message.len() as u64 + 1).sum::<u64>();
        for receipt in messages.put(group)? {
            print(context, receipt.digest)?;
        }
        context.output.flush()?;
        context.progress.show("storing", bytes, None);
        next = next.or_else(|| batches.recv().ok());
    }
    context.progress.clear();
    Ok(Outcome::Done)
}

fn put_files(context: &mut Context, files: &[PathBuf]) -> anyhow::Result<Outcome> {
    let messages = context.open(true)?;
    let mut outcome = Outcome::Done;
    let mut group = Vec::new();
    let mut names = Vec::new();
    for (index, file) in files.iter().enumerate() {
        match read_file(file, context.global.max_message.as_u64()) {
            Ok(message) => {
                group.push(message);
                names.push(file.as_os_str());
            }
            // One file that cannot be read keeps the others from nothing.
            Err(error) => {
                output::say_error(&error, context.output.is_json());
                outcome = Outcome::Reported(3);
            }
        }
        let full = group.len() >= COUNT || group.iter().map(Vec::len).sum::<usize>() >= GROUP;
        if full || index + 1 == files.len() {
            commit_files(context, &*messages, std::mem::take(&mut group), &std::mem::take(&mut names))?;
        }
    }
    Ok(outcome)
}

fn commit_files(
    context: &mut Context,
    messages: &dyn Messages,
    group: Vec<Vec<u8>>,
    names: &[&OsStr],
) -> anyhow::Result<()> {
    for (receipt, name) in messages.put(group)?.into_iter().zip(names) {
        let object = json!({ "digest": receipt.digest, "file": name.to_string_lossy() });
        context.output.line(&checksum_line(receipt.digest, name), &object)?;
    }
    Ok(context.output.flush()?)
}

fn print(context: &mut Context, digest: Digest) -> std::io::Result<()> {
    context.output.line(digest.to_string().as_bytes(), &json!({ "digest": digest }))
}

/// A line as `sha256sum` prints it, which marks a name that it had to escape by a backslash in front of the digest.
fn checksum_line(digest: Digest, name: &OsStr) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in name.as_bytes() {
        match byte {
            b'\\' => escaped.extend(b"\\\\"),
            b'\n' => escaped.extend(b"\\n"),
            b'\r' => escaped.extend(b"\\r"),
            _ => escaped.push(*byte),
        }
    }
    let mark = if escaped == name.as_bytes() { "" } else { "\\" };
    [format!("{mark}{digest}  ").as_bytes(), &escaped].concat()
}

fn read_file(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let read = || match path == Path::new("-") {
        true => read_whole(stdin().lock(), limit),
        false => read_whole(File::open(path)?, limit),
    };
    read().with_context(|| format!("cannot store {}", path.display()))
}

/// All of the input, unless it is longer than a message may be.
fn read_whole(input: impl Read, limit: u64) -> anyhow::Result<Vec<u8>> {
    let mut message = Vec::new();
    input.take(limit.saturating_add(1)).read_to_end(&mut message)?;
    if message.len() as u64 > limit {
        return Err(anyhow!("it is over the limit of {limit} bytes; --max-message raises it"));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_break_the_line_is_escaped_as_sha256sum_does() {
        let digest = Digest::of(b"");
        assert_eq!(checksum_line(digest, OsStr::new("plain name")), format!("{digest}  plain name").into_bytes());
        assert_eq!(checksum_line(digest, OsStr::new("a\nb\\c")), format!("\\{digest}  a\\nb\\\\c").into_bytes());
    }
}
