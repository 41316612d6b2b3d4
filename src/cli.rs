//! The command line: clap types and help texts only. `man/` and `completions/` are generated from them.
//! Help lines are noun phrases or imperatives of at most 80 characters.

#![allow(clippy::struct_excessive_bools, reason = "a switch is a bool")]
#![allow(missing_docs, rustdoc::broken_intra_doc_links, reason = "the doc comments here are the help texts")]

mod global;
mod groups;
mod maintenance;
mod messages;
pub mod reference;
mod serve;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

pub use global::{Compression, Global, Location};
pub use groups::is_unused;
pub use maintenance::{Copy, Export, Import, Stats, Verify};
pub use messages::{Get, Has, List, Put, Rm};
pub use serve::{Health, LogFormat, LogLevel, Serve, Token};

/// Store messages by their SHA-256 digest
///
/// `put` stores a message and prints its digest. `get` prints the message of a digest. The store is a directory, a
/// PostgreSQL database or a server.
#[derive(Debug, Parser)]
#[command(name = "sha-api", version, max_term_width = 100)]
#[command(after_help = reference::short_help(), after_long_help = reference::long_help())]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

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

/// Print the manual page as roff
///
/// With --dir, write the pages of all commands into a directory.
#[derive(Debug, Args)]
pub struct Man {
    /// Write sha-api.1 and one page per command into DIR
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}

/// Print the completion script for a shell
///
/// The script calls sha-api for the candidates.
#[derive(Debug, Args)]
pub struct Completions {
    /// Shell that runs the script
    pub shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}
