//! `put`: stores messages. A digest is printed only after its message is durable.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{IsTerminal, Read, stdin};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::context::Context;
use super::exit_status::ExitStatus;
use super::output;
use super::records::{Records, read_ahead};
use crate::cli;
use crate::digest::Digest;
use crate::message_store::MessageStore;

/// Size in bytes at which a batch is full and is committed.
const BATCH_BYTES: usize = 4 << 20;
/// Number of messages at which a batch is full and is committed.
const BATCH_MESSAGES: usize = 1 << 14;

/// Stores the message of the arguments, files, records of stdin, or all of stdin.
pub fn run(context: &mut Context, put: &cli::Put) -> anyhow::Result<ExitStatus> {
    if !put.file.is_empty() {
        return put_files(context, &put.file);
    }
    if put.lines || put.null {
        return put_records(context, if put.null { 0 } else { b'\n' });
    }
    let limit = context.global.store.max_message.as_u64();
    let message = match &put.message {
        Some(message) if message != "-" => message.as_bytes().to_vec(),
        _ => {
            if stdin().is_terminal() {
                context.progress.print_notice("reading the message from the terminal; end it with Ctrl-D");
            }
            read_message(stdin().lock(), limit).context("cannot read stdin")?
        }
    };
    let receipts = context.open(true)?.put(vec![message])?;
    print_digest(context, receipts[0].digest)?;
    Ok(ExitStatus::Success)
}

fn put_records(context: &mut Context, delimiter: u8) -> anyhow::Result<ExitStatus> {
    let batches = read_ahead(Records::new(stdin(), delimiter, context.global.store.max_message.as_u64()));
    let mut bytes = 0;
    // The store is opened after the first batch, because the writer of the pipe may need the store first.
    let mut next = batches.recv().ok();
    let messages = context.open(true)?;
    while let Some(received) = next.take() {
        let mut batch = received?;
        // Records that have arrived are committed together, without waiting for more.
        while !is_full(&batch) {
            match batches.try_recv() {
                Ok(Ok(more)) => batch.extend(more),
                Ok(Err(error)) => {
                    next = Some(Err(error));
                    break;
                }
                Err(_) => break,
            }
        }
        bytes += batch.iter().map(|message| message.len() as u64 + 1).sum::<u64>();
        for receipt in messages.put(batch)? {
            print_digest(context, receipt.digest)?;
        }
        context.output.flush()?;
        context.progress.show_bytes("storing", bytes, None);
        next = next.or_else(|| batches.recv().ok());
    }
    context.progress.clear();
    Ok(ExitStatus::Success)
}

fn put_files(context: &mut Context, files: &[PathBuf]) -> anyhow::Result<ExitStatus> {
    let messages = context.open(true)?;
    let mut status = ExitStatus::Success;
    let (mut batch, mut names) = (Vec::new(), Vec::new());
    for (index, file) in files.iter().enumerate() {
        match read_file(file, context.global.store.max_message.as_u64()) {
            Ok(message) => {
                batch.push(message);
                names.push(file.as_os_str());
            }
            // The other files are stored nevertheless.
            Err(error) => {
                output::print_error(&error, context.output.is_json());
                status = ExitStatus::Reported(3);
            }
        }
        if is_full(&batch) || index + 1 == files.len() {
            commit_files(context, &*messages, std::mem::take(&mut batch), &std::mem::take(&mut names))?;
        }
    }
    Ok(status)
}

fn is_full(batch: &[Vec<u8>]) -> bool {
    batch.len() >= BATCH_MESSAGES || batch.iter().map(Vec::len).sum::<usize>() >= BATCH_BYTES
}

fn commit_files(
    context: &mut Context,
    messages: &dyn MessageStore,
    batch: Vec<Vec<u8>>,
    names: &[&OsStr],
) -> anyhow::Result<()> {
    for (receipt, name) in messages.put(batch)?.into_iter().zip(names) {
        let object = json!({ "digest": receipt.digest, "file": name.to_string_lossy() });
        context.output.print_line(&checksum_line(receipt.digest, name), &object)?;
    }
    Ok(context.output.flush()?)
}

fn print_digest(context: &mut Context, digest: Digest) -> std::io::Result<()> {
    context.output.print_line(digest.to_string().as_bytes(), &json!({ "digest": digest }))
}

/// Returns a line of `sha256sum`, which puts a backslash before the digest if the name has escaped characters.
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
    let prefix = if escaped == name.as_bytes() { "" } else { "\\" };
    [format!("{prefix}{digest}  ").as_bytes(), &escaped].concat()
}

fn read_file(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let read = || match path == Path::new("-") {
        true => read_message(stdin().lock(), limit),
        false => read_message(File::open(path)?, limit),
    };
    read().with_context(|| format!("cannot store {}", path.display()))
}

/// Reads all of the input. Returns an error if it exceeds the maximum size of a message.
fn read_message(input: impl Read, limit: u64) -> anyhow::Result<Vec<u8>> {
    let mut message = Vec::new();
    input.take(limit.saturating_add(1)).read_to_end(&mut message)?;
    if message.len() as u64 > limit {
        return Err(anyhow!("over the limit of {limit} bytes; raise --max-message"));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_break_the_line_is_escaped_as_sha256sum_does() {
        let digest = Digest::compute(b"");
        assert_eq!(checksum_line(digest, OsStr::new("plain name")), format!("{digest}  plain name").into_bytes());
        assert_eq!(checksum_line(digest, OsStr::new("a\nb\\c")), format!("\\{digest}  a\\nb\\\\c").into_bytes());
    }
}
