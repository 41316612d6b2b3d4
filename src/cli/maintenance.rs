//! The verbs for all messages of a store at once.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Location;

/// Count what is stored
#[derive(Debug, Args)]
pub struct Stats {}

/// Read everything and hash it again
///
/// Prints what is wrong, and exits with 4 if there is anything.
#[derive(Debug, Args)]
pub struct Verify {
    /// Move what is corrupt into quarantine, and make the index anew if it does not fit the log
    #[arg(long)]
    pub repair: bool,
    /// Where to fetch messages from that are corrupt or lost here
    #[arg(long, value_name = "LOCATION", requires = "repair", value_hint = ValueHint::DirPath)]
    pub from: Option<Location>,
}

/// Write all messages as JSON, one a line
///
/// In the order of their digests: {"digest", "message"}, or "base64" in place of "message" where it is not UTF-8.
#[derive(Debug, Args)]
pub struct Export {
    /// Where to, whole or not at all, compressed if it ends in .zst; none or `-`: stdout
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}

/// Store the messages that `export` wrote
///
/// Each must hash to its digest. What is stored already is passed over, so an import that was broken off can be begun
/// again.
#[derive(Debug, Args)]
pub struct Import {
    /// Where from; none or `-`: stdin. It may be compressed with zstd
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Stop at the first bad line
    #[arg(long)]
    pub strict: bool,
}

/// Bring one store up to date with another
///
/// Only what is missing is sent, and all of it is verified on the way. Nothing is removed.
#[derive(Debug, Args)]
pub struct Copy {
    /// Where the messages are
    #[arg(value_hint = ValueHint::DirPath)]
    pub from: Location,
    /// Where they shall be, too
    #[arg(value_hint = ValueHint::DirPath)]
    pub to: Location,
}
