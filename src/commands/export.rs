//! `export`: all messages as JSON, one a line, in the order of their digests. Memory stays flat.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;
use zstd::stream::write::Encoder;

use super::{Context, ExitStatus, output};
use crate::digest::Prefix;
use crate::fs;
use crate::json_message::JsonMessage;
use crate::message_store::{Error, ListQuery, MessageStore, Stats};
use crate::{cli, commands::progress::Progress};

/// Digests that are asked for at a time.
const PAGE_SIZE: usize = 1000;
/// As `zstd` does without flags.
const ZSTD_LEVEL: i32 = 3;

/// Writes to a file or to stdout.
pub fn run(context: &mut Context, export: &cli::Export) -> anyhow::Result<ExitStatus> {
    let messages = context.open(false)?;
    let (json, progress) = (context.output.is_json(), context.progress.clone());
    let Some(path) = export.file.as_deref().filter(|path| *path != Path::new("-")) else {
        return write_messages(&*messages, context.output.raw(), &progress, json);
    };
    let mut written = Ok(ExitStatus::Success);
    let mut fill = |file: &mut dyn Write| -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 16, file);
        written = match path.extension().is_some_and(|end| end == "zst") {
            true => {
                let mut encoder = Encoder::new(&mut out, ZSTD_LEVEL)?;
                let written = write_messages(&*messages, &mut encoder, &progress, json);
                encoder.finish()?;
                written
            }
            false => write_messages(&*messages, &mut out, &progress, json),
        };
        match &written {
            Ok(_) => out.flush(),
            Err(_) => Err(io::Error::other("it is not whole")),
        }
    };
    let to = || format!("cannot write {}", path.display());
    // A device or a pipe is written as it is.
    let whole = match path.metadata().is_ok_and(|data| !data.is_file()) {
        true => File::options().write(true).open(path).and_then(|mut file| fill(&mut file)),
        false => fs::write_atomic(path, 0o600, &mut fill),
    };
    match (written, whole) {
        (Ok(outcome), Ok(())) => Ok(outcome),
        (Err(error), _) => Err(error).with_context(to),
        (Ok(_), Err(error)) => Err(error).with_context(to),
    }
}

/// Goes through everything; says what is corrupt and goes on.
fn write_messages(
    messages: &dyn MessageStore,
    out: &mut dyn Write,
    progress: &Progress,
    json: bool,
) -> anyhow::Result<ExitStatus> {
    let Stats { bytes: total, lost, .. } = messages.stats()?;
    let (mut outcome, mut bytes) = (ExitStatus::Success, 0);
    let mut page = ListQuery { prefix: Prefix::ALL, after: None, limit: PAGE_SIZE };
    loop {
        let digests: Vec<_> = messages.list(&page)?.iter().map(|entry| entry.digest).collect();
        let Some(last) = digests.last() else { break };
        page.after = Some(*last);
        for (digest, got) in digests.iter().zip(messages.get(&digests)) {
            match got {
                Ok(Some(message)) => {
                    bytes += message.len() as u64;
                    serde_json::to_writer(&mut *out, &JsonMessage::new(Some(*digest), &message))
                        .map_err(io::Error::from)?;
                    out.write_all(b"\n")?;
                }
                // It was removed after it was listed.
                Ok(None) => {}
                Err(error @ (Error::Corrupt(_) | Error::Lost(_))) => {
                    output::print_notice(&error.to_string(), json);
                    outcome = ExitStatus::Reported(4);
                }
                Err(error) => return Err(error.into()),
            }
        }
        progress.show_bytes("exporting", bytes.min(total.saturating_sub(1)), Some(total));
    }
    progress.clear();
    Ok(super::status_after_reading_all(json, lost, outcome))
}
