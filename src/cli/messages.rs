//! Commands for single messages and their digests: `put`, `get`, `has`, `list`, `rm`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::digest::{Digest, Prefix};

/// Store messages and print their digests
///
/// A digest is printed after its message is safe on disk. `put foo` prints the digest that `printf %s foo | sha256sum`
/// prints.
#[derive(Debug, Args)]
pub struct Put {
    /// Message; all of stdin if absent or `-`
    #[arg(conflicts_with_all = ["file", "lines", "null"], allow_hyphen_values = false)]
    pub message: Option<OsString>,
    /// Store each FILE as one message; print lines for `sha256sum -c`
    #[arg(long, short, num_args = 1.., value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["lines", "null"])]
    pub file: Vec<PathBuf>,
    /// Store each line of stdin as one message, without its newline
    #[arg(long, short, conflicts_with = "null")]
    pub lines: bool,
    /// Store each NUL-terminated record of stdin as one message, without its NUL
    #[arg(long, short = '0')]
    pub null: bool,
}

/// Print the messages of digests
///
/// The exact bytes are printed, one message after the other. The exit status is 1 if any message is absent.
#[derive(Debug, Args)]
pub struct Get {
    /// Digests, or unique prefixes of at least 8 hex digits; `-`: lines of stdin
    #[arg(required_unless_present_any = ["lines", "null"], value_name = "DIGEST")]
    pub digests: Vec<String>,
    /// Write to FILE instead of stdout, completely or not at all
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// End each message with a newline; without digests, read them from stdin
    #[arg(long, short, conflicts_with = "null")]
    pub lines: bool,
    /// End each message with a NUL; without digests, read them from stdin
    #[arg(long, short = '0')]
    pub null: bool,
}

/// Check whether digests are stored
///
/// The exit status is 0 if all are stored. Otherwise it is 1, and the absent digests are printed.
#[derive(Debug, Args)]
pub struct Has {
    /// Digests; `-`: lines of stdin
    #[arg(required = true, value_name = "DIGEST")]
    pub digests: Vec<String>,
}

/// List the stored digests in ascending order
#[derive(Debug, Args)]
pub struct List {
    /// List only digests greater than this one
    #[arg(long, value_name = "DIGEST")]
    pub after: Option<Digest>,
    /// Maximum number of digests
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u64>,
    /// List only digests that begin with these hex digits
    #[arg(long, value_name = "HEX")]
    pub prefix: Option<Prefix>,
    /// Print also the length in bytes and the time of storing
    #[arg(long)]
    pub long: bool,
}

/// Remove messages
///
/// Their disk space is reclaimed in the background. The exit status is 1 if any message was absent.
#[derive(Debug, Args)]
pub struct Rm {
    /// Digests; `-`: lines of stdin
    #[arg(required = true, value_name = "DIGEST")]
    pub digests: Vec<String>,
}
