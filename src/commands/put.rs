//! `put`: bytes come in, digests go out, each only once its message is durable.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{IsTerminal, Read, stdin};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::records::{Records, read_ahead};
use super::{Context, ExitStatus, output};
use crate::cli;
use crate::digest::Digest;
use crate::message_store::MessageStore;

/// Bytes that are committed together at the most.
const BATCH_BYTES: usize = 4 << 20;
/// Messages that are committed together at the most.
const BATCH_MESSAGES: usize = 1 << 14;

/// Stores what the arguments say.
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
                context.progress.print_notice("reading the message from the terminal; Ctrl-D ends it");
            }
            read_message(stdin().lock(), limit).context("cannot read stdin")?
        }
    };
    let receipts = context.open(true)?.put(vec![message])?;
    print_digest(context, receipts[0].digest)?;
    Ok(ExitStatus::Success)
}

fn put_records(context: &mut Context, end: u8) -> anyhow::Result<ExitStatus> {
    let batches = read_ahead(Records::new(stdin(), end, context.global.store.max_message.as_u64()));
    let mut bytes = 0;
    // What feeds this pipe may need the store first.
    let mut next = batches.recv().ok();
    let messages = context.open(true)?;
    while let Some(batch) = next.take() {
        let mut group = batch?;
        // What has come by now is committed together; what has not is not waited for.
        while group.len() < BATCH_MESSAGES && group.iter().map(Vec::len).sum::<usize>() < BATCH_BYTES {
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
    let mut outcome = ExitStatus::Success;
    let mut group = Vec::new();
    let mut names = Vec::new();
    for (index, file) in files.iter().enumerate() {
        match read_file(file, context.global.store.max_message.as_u64()) {
            Ok(message) => {
                group.push(message);
                names.push(file.as_os_str());
            }
            // One file that cannot be read keeps the others from nothing.
            Err(error) => {
                output::print_error(&error, context.output.is_json());
                outcome = ExitStatus::Reported(3);
            }
        }
        let full = group.len() >= BATCH_MESSAGES || group.iter().map(Vec::len).sum::<usize>() >= BATCH_BYTES;
        if full || index + 1 == files.len() {
            commit_files(context, &*messages, std::mem::take(&mut group), &std::mem::take(&mut names))?;
        }
    }
    Ok(outcome)
}

fn commit_files(
    context: &mut Context,
    messages: &dyn MessageStore,
    group: Vec<Vec<u8>>,
    names: &[&OsStr],
) -> anyhow::Result<()> {
    for (receipt, name) in messages.put(group)?.into_iter().zip(names) {
        let object = json!({ "digest": receipt.digest, "file": name.to_string_lossy() });
        context.output.print_line(&checksum_line(receipt.digest, name), &object)?;
    }
    Ok(context.output.flush()?)
}

fn print_digest(context: &mut Context, digest: Digest) -> std::io::Result<()> {
    context.output.print_line(digest.to_string().as_bytes(), &json!({ "digest": digest }))
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
        true => read_message(stdin().lock(), limit),
        false => read_message(File::open(path)?, limit),
    };
    read().with_context(|| format!("cannot store {}", path.display()))
}

/// All of the input, unless it is longer than a message may be.
fn read_message(input: impl Read, limit: u64) -> anyhow::Result<Vec<u8>> {
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
        let digest = Digest::compute(b"");
        assert_eq!(checksum_line(digest, OsStr::new("plain name")), format!("{digest}  plain name").into_bytes());
        assert_eq!(checksum_line(digest, OsStr::new("a\nb\\c")), format!("\\{digest}  a\\nb\\\\c").into_bytes());
    }
}
