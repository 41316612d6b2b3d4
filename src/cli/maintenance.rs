//! Commands for all messages of a store: `stats`, `verify`, `export`, `import`, `copy`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Location;

/// Count messages, bytes and disk usage
#[derive(Debug, Args)]
pub struct Stats {}

/// Read all messages and hash them again
///
/// Each damage is printed. The exit status is 4 if any damage is left.
#[derive(Debug, Args)]
pub struct Verify {
    /// Quarantine corrupt data; rebuild the index if it does not match the log
    #[arg(long)]
    pub repair: bool,
    /// Store or server to fetch corrupt or lost messages from
    #[arg(long, value_name = "LOCATION", requires = "repair", value_hint = ValueHint::DirPath)]
    pub from: Option<Location>,
    /// Accept the loss of messages that are listed as lost; report it no more
    #[arg(long)]
    pub accept_loss: bool,
}

/// Write all messages as JSON, one per line
///
/// The lines are in the order of the digests: {"digest", "message"}, or "base64" instead of "message" if the message is
/// not UTF-8.
#[derive(Debug, Args)]
pub struct Export {
    /// Output file, compressed if its name ends in .zst; stdout if absent or `-`
    ///
    /// The file is written completely or not at all.
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}

/// Store the messages of an export
///
/// Each message must hash to its digest. Messages that are already stored are skipped, so an interrupted import can be
/// repeated.
#[derive(Debug, Args)]
pub struct Import {
    /// Input file, plain or compressed with zstd; stdin if absent or `-`
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Stop at the first bad line
    #[arg(long)]
    pub strict: bool,
}

/// Update one store from another
///
/// Only missing messages are sent, and each is verified. No message is removed.
#[derive(Debug, Args)]
pub struct Copy {
    /// Source: a directory, or the URL of a server or database
    #[arg(value_hint = ValueHint::DirPath)]
    pub from: Location,
    /// Destination: a directory, or the URL of a server or database
    #[arg(value_hint = ValueHint::DirPath)]
    pub to: Location,
}
