//! The command line: clap types and help lines, nothing else. `man/` and `completions/` are made from it.

#![allow(clippy::struct_excessive_bools, reason = "a switch is a bool")]
#![allow(missing_docs, reason = "the doc comments here are the help texts")]

mod global;
mod maintenance;
mod messages;
mod serve;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

pub use global::{Compression, Global, Location};
pub use maintenance::{Copy, Export, Import, Stats, Verify};
pub use messages::{Get, Has, List, Put, Rm};
pub use serve::{Health, LogFormat, Serve, Token};

/// Keep messages by their SHA-256.
///
/// A message goes in, its digest comes out; the digest goes in, the very same bytes come out.
#[derive(Debug, Parser)]
#[command(name = "sha-api", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 absent, 2 usage, 3 I/O, network or store, 4 corrupt, 5 not permitted.")]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    Put(Put),
    Get(Get),
    Has(Has),
    List(List),
    Rm(Rm),
    Stats(Stats),
    Verify(Verify),
    Export(Export),
    Import(Import),
    Copy(Copy),
    Serve(Box<Serve>),
    Health(Health),
    Token(Token),
    Man(Man),
    Completions(Completions),
}

/// Print the manual page, as roff
///
/// With --dir, write the pages of all commands there.
#[derive(Debug, Args)]
pub struct Man {
    /// Write sha-api.1 and a page a command into DIR
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}

/// Print the completions for a shell
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    pub shell: Shell,
}
