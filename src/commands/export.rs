//! `export`: all messages as JSON, one per line, in the order of their digests. Memory usage is constant.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;
use zstd::stream::write::Encoder;

use super::context::Context;
use super::exit_status::ExitStatus;
use super::{output, report};
use crate::digest::Prefix;
use crate::fs;
use crate::json_message::JsonMessage;
use crate::message_store::{Error, ListQuery, MessageStore, Stats};
use crate::{cli, commands::progress::Progress};

/// Number of messages per request to the store.
const PAGE_SIZE: usize = 1000;
/// Default level of the `zstd` program.
const ZSTD_LEVEL: i32 = 3;

/// Writes all messages to a file or to stdout.
pub fn run(context: &mut Context, export: &cli::Export) -> anyhow::Result<ExitStatus> {
    let messages = context.open(false)?;
    let (json, progress) = (context.output.is_json(), context.progress.clone());
    let Some(path) = export.file.as_deref().filter(|path| *path != Path::new("-")) else {
        return write_messages(&*messages, context.output.raw(), &progress, json);
    };
    let mut status = Ok(ExitStatus::Success);
    let mut write = |file: &mut dyn Write| -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 16, file);
        status = match path.extension().is_some_and(|extension| extension == "zst") {
            true => {
                let mut encoder = Encoder::new(&mut out, ZSTD_LEVEL)?;
                let status = write_messages(&*messages, &mut encoder, &progress, json);
                encoder.finish()?;
                status
            }
            false => write_messages(&*messages, &mut out, &progress, json),
        };
        match &status {
            Ok(_) => out.flush(),
            Err(_) => Err(io::Error::other("incomplete export")),
        }
    };
    let failed = || format!("cannot write {}", path.display());
    // A device or a pipe cannot be replaced atomically.
    let written = match path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        true => File::options().write(true).open(path).and_then(|mut file| write(&mut file)),
        false => fs::write_atomic(path, 0o600, &mut write),
    };
    match (status, written) {
        (Ok(status), Ok(())) => Ok(status),
        (Err(error), _) => Err(error).with_context(failed),
        (Ok(_), Err(error)) => Err(error).with_context(failed),
    }
}

/// Writes all messages. Reports and skips corrupt ones.
fn write_messages(
    messages: &dyn MessageStore,
    out: &mut dyn Write,
    progress: &Progress,
    json: bool,
) -> anyhow::Result<ExitStatus> {
    let Stats { bytes: total, lost, .. } = messages.stats()?;
    let (mut status, mut bytes) = (ExitStatus::Success, 0);
    let mut page = ListQuery { prefix: Prefix::ALL, after: None, limit: PAGE_SIZE };
    loop {
        let digests: Vec<_> = messages.list(&page)?.iter().map(|entry| entry.digest).collect();
        let Some(last) = digests.last() else { break };
        page.after = Some(*last);
        for (digest, result) in digests.iter().zip(messages.get(&digests)) {
            match result {
                Ok(Some(message)) => {
                    bytes += message.len() as u64;
                    serde_json::to_writer(&mut *out, &JsonMessage::new(Some(*digest), &message))
                        .map_err(io::Error::from)?;
                    out.write_all(b"\n")?;
                }
                // The message was removed after it was listed.
                Ok(None) => {}
                Err(error @ (Error::Corrupt(_) | Error::Lost(_))) => {
                    output::print_notice(&error.to_string(), json);
                    status = ExitStatus::Reported(4);
                }
                Err(error) => return Err(error.into()),
            }
        }
        progress.show_bytes("exporting", bytes.min(total.saturating_sub(1)), Some(total));
    }
    progress.clear();
    Ok(report::status_after_reading_all(lost, status, json))
}
