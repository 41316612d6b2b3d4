//! The verbs for messages that are named, and for their digests.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::digest::{Digest, Prefix};

/// Store messages and print their digests
///
/// A digest is printed only once its message is safe on disk. `put foo` prints what `printf %s foo | sha256sum` does.
#[derive(Debug, Args)]
pub struct Put {
    /// The message; none or `-`: all of stdin, the exact bytes
    #[arg(conflicts_with_all = ["file", "lines", "null"], allow_hyphen_values = false)]
    pub message: Option<OsString>,
    /// Each FILE is one message; prints lines that `sha256sum -c` can check
    #[arg(long, short, num_args = 1.., value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["lines", "null"])]
    pub file: Vec<PathBuf>,
    /// Each line of stdin is one message, without its newline
    #[arg(long, short, conflicts_with = "null")]
    pub lines: bool,
    /// Each NUL-ended record of stdin is one message, without its NUL
    #[arg(long, short = '0')]
    pub null: bool,
}

/// Print the messages of digests
///
/// The exact bytes, one message after the other. Exits with 1 if any is absent.
#[derive(Debug, Args)]
pub struct Get {
    /// Digests, or unique prefixes of at least 8 hex digits; `-`: from stdin, one a line
    #[arg(required_unless_present_any = ["lines", "null"], value_name = "DIGEST")]
    pub digests: Vec<String>,
    /// Write to FILE instead of stdout, whole or not at all
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// End each message with a newline; without digests, read them from stdin
    #[arg(long, short, conflicts_with = "null")]
    pub lines: bool,
    /// End each message with a NUL; without digests, read them from stdin
    #[arg(long, short = '0')]
    pub null: bool,
}

/// Tell whether digests are stored
///
/// Exits with 0 if all are; else with 1, printing the absent ones.
#[derive(Debug, Args)]
pub struct Has {
    /// Digests; `-`: from stdin, one a line
    #[arg(required = true, value_name = "DIGEST")]
    pub digests: Vec<String>,
}

/// Print the digests of all that is stored, in order
#[derive(Debug, Args)]
pub struct List {
    /// Only digests after this one
    #[arg(long, value_name = "DIGEST")]
    pub after: Option<Digest>,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u64>,
    /// Only digests that begin with these hex digits
    #[arg(long, value_name = "HEX")]
    pub prefix: Option<Prefix>,
    /// Also the length in bytes, and when it was stored
    #[arg(long)]
    pub long: bool,
}

/// Remove messages
///
/// Their space is used again. Exits with 1 if any was absent.
#[derive(Debug, Args)]
pub struct Rm {
    /// Digests; `-`: from stdin, one a line
    #[arg(required = true, value_name = "DIGEST")]
    pub digests: Vec<String>,
}
