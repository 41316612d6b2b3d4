//! `import`: stores the lines of an export. Each message is verified against its digest before it is stored.

use std::fs::File;
use std::io::{self, BufReader, Read, stdin};
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use zstd::stream::read::Decoder;

use super::context::Context;
use super::exit_status::ExitStatus;
use super::output;
use super::records::{Records, read_ahead};
use crate::cli;
use crate::digest::Digest;
use crate::json_message::ParsedMessage;

/// First bytes of a zstd frame (RFC 8878, 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Maximum length in bytes of an escaped character in JSON.
const MAX_ESCAPE_BYTES: u64 = 6;
/// Maximum number of bytes in a line besides the message.
const LINE_OVERHEAD: u64 = 4096;

/// Number of lines by result.
#[derive(Default)]
struct ImportCounts {
    new: u64,
    known: u64,
    bad: u64,
}

/// Stores the messages of all valid lines and reports the other lines.
pub fn run(context: &mut Context, import: &cli::Import) -> anyhow::Result<ExitStatus> {
    let input = open_input(import.file.as_deref())?;
    let limit =
        context.global.store.max_message.as_u64().saturating_mul(MAX_ESCAPE_BYTES).saturating_add(LINE_OVERHEAD);
    let batches = read_ahead(Records::new(input, b'\n', limit));
    // The store is opened after the first batch, because the writer of the pipe may need the store first.
    let first = batches.recv();
    let messages = context.open(true)?;
    let (mut counts, mut status) = (ImportCounts::default(), ExitStatus::Success);
    let (mut line_number, mut bytes) = (0_u64, 0);
    for batch in first.into_iter().chain(&batches) {
        let mut valid = Vec::new();
        for record in batch? {
            line_number += 1;
            bytes += record.len() as u64 + 1;
            match parse_line(&record) {
                Ok(message) => valid.push(message),
                Err((code, reason)) => {
                    output::print_notice(&format!("line {line_number}: {reason}"), context.output.is_json());
                    status = status.worst(ExitStatus::Reported(code));
                    counts.bad += 1;
                }
            }
            if import.strict && counts.bad > 0 {
                break;
            }
        }
        for receipt in messages.put(valid)? {
            *if receipt.new { &mut counts.new } else { &mut counts.known } += 1;
        }
        if import.strict && counts.bad > 0 {
            break;
        }
        context.progress.show_bytes("importing", bytes, None);
    }
    context.progress.clear();
    let ImportCounts { new, known, bad } = counts;
    let text = format!("{new} new, {known} already stored, {bad} bad");
    context.output.print_line(text.as_bytes(), &json!({ "new": new, "known": known, "bad": bad }))?;
    Ok(status)
}

/// Returns the message of a line, or the exit code and the reason why the line is rejected.
pub(super) fn parse_line(line: &[u8]) -> Result<Vec<u8>, (u8, String)> {
    let ParsedMessage { digest, message } = serde_json::from_slice(line).map_err(|error| (3, error.to_string()))?;
    let Some(digest) = digest else { return Err((3, "missing field `digest`".to_owned())) };
    let actual = Digest::compute(&message);
    if actual != digest {
        return Err((4, format!("the message does not hash to {digest}, but to {actual}")));
    }
    Ok(message)
}

/// Opens the file or stdin, and decompresses zstd.
fn open_input(path: Option<&Path>) -> anyhow::Result<Box<dyn Read + Send>> {
    let named = path.filter(|path| *path != Path::new("-"));
    let name = named.map_or("stdin".to_owned(), |path| path.display().to_string());
    let open = || -> io::Result<Box<dyn Read + Send>> {
        let mut input: Box<dyn Read + Send> = match named {
            Some(path) => Box::new(File::open(path)?),
            None => Box::new(stdin()),
        };
        let mut magic = Vec::new();
        input.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut magic)?;
        let is_compressed = magic == ZSTD_MAGIC;
        let complete = io::Cursor::new(magic).chain(input);
        Ok(if is_compressed { Box::new(Decoder::new(BufReader::new(complete))?) } else { Box::new(complete) })
    };
    open().with_context(|| format!("cannot read {name}"))
}
