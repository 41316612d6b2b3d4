//! `import`: the lines of an export come in, each checked against its digest before it is stored.

use std::fs::File;
use std::io::{self, BufReader, Read, stdin};
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use zstd::stream::read::Decoder;

use super::records::{Records, read_ahead};
use super::{Context, ExitStatus, output};
use crate::cli;
use crate::digest::Digest;
use crate::json_message::ParsedMessage;

/// What a zstd frame begins with (RFC 8878, 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// JSON writes a control character in so many bytes.
const MAX_ESCAPE_BYTES: u64 = 6;
/// What stands around a message in its line, with room to spare.
const LINE_OVERHEAD: u64 = 4096;

/// What came of the lines.
#[derive(Default)]
struct ImportCounts {
    new: u64,
    known: u64,
    bad: u64,
}

/// Stores all lines that are good; says which are not.
pub fn run(context: &mut Context, import: &cli::Import) -> anyhow::Result<ExitStatus> {
    let input = open_input(import.file.as_deref())?;
    let limit = context.global.store.max_message.as_u64().saturating_mul(MAX_ESCAPE_BYTES).saturating_add(LINE_OVERHEAD);
    let batches = read_ahead(Records::new(input, b'\n', limit));
    // What feeds this pipe may need the store first.
    let first = batches.recv();
    let messages = context.open(true)?;
    let (mut tally, mut outcome) = (ImportCounts::default(), ExitStatus::Success);
    let (mut line, mut bytes) = (0_u64, 0);
    for batch in first.into_iter().chain(&batches) {
        let mut good = Vec::new();
        for record in batch? {
            line += 1;
            bytes += record.len() as u64 + 1;
            match parse_line(&record) {
                Ok(message) => good.push(message),
                Err((code, why)) => {
                    output::print_notice(&format!("line {line}: {why}"), context.output.is_json());
                    outcome = outcome.worst(ExitStatus::Reported(code));
                    tally.bad += 1;
                }
            }
            if import.strict && tally.bad > 0 {
                break;
            }
        }
        for receipt in messages.put(good)? {
            *if receipt.new { &mut tally.new } else { &mut tally.known } += 1;
        }
        if import.strict && tally.bad > 0 {
            break;
        }
        context.progress.show_bytes("importing", bytes, None);
    }
    context.progress.clear();
    let ImportCounts { new, known, bad } = tally;
    let text = format!("{new} new, {known} known, {bad} bad");
    context.output.print_line(text.as_bytes(), &json!({ "new": new, "known": known, "bad": bad }))?;
    Ok(outcome)
}

/// The message of a line, or the exit code and what is wrong with it.
pub(super) fn parse_line(line: &[u8]) -> Result<Vec<u8>, (u8, String)> {
    let ParsedMessage { digest, message } = serde_json::from_slice(line).map_err(|why| (3, why.to_string()))?;
    let Some(digest) = digest else { return Err((3, "there is no `digest`".to_owned())) };
    let own = Digest::compute(&message);
    if own != digest {
        return Err((4, format!("the message does not hash to {digest}, but to {own}")));
    }
    Ok(message)
}

/// The file, or stdin; as it is, or decompressed.
fn open_input(path: Option<&Path>) -> anyhow::Result<Box<dyn Read + Send>> {
    let named = path.filter(|path| *path != Path::new("-"));
    let name = named.map_or("stdin".to_owned(), |path| path.display().to_string());
    let begin = || -> io::Result<Box<dyn Read + Send>> {
        let mut input: Box<dyn Read + Send> = match named {
            Some(path) => Box::new(File::open(path)?),
            None => Box::new(stdin()),
        };
        let mut first = Vec::new();
        input.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut first)?;
        let is_compressed = first == ZSTD_MAGIC;
        let whole = io::Cursor::new(first).chain(input);
        Ok(if is_compressed { Box::new(Decoder::new(BufReader::new(whole))?) } else { Box::new(whole) })
    };
    begin().with_context(|| format!("cannot read {name}"))
}
