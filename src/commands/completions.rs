//! `completions`: for shells, from the command line's own types.

use std::io::{Write, stdout};

use super::Outcome;
use crate::{cli, config};

/// Prints what the shell has to source.
pub fn run(completions: &cli::Completions) -> anyhow::Result<Outcome> {
    let mut text = Vec::new();
    clap_complete::generate(completions.shell, &mut config::command(), "sha-api", &mut text);
    stdout().write_all(&text)?;
    Ok(Outcome::Done)
}
