//! `completions`: for shells, from the command line's own types.

use super::{Context, ExitStatus};
use crate::{cli, config};

/// Prints what the shell has to source.
pub fn run(context: &mut Context, completions: &cli::Completions) -> anyhow::Result<ExitStatus> {
    let mut text = Vec::new();
    clap_complete::generate(completions.shell, &mut config::command(), "sha-api", &mut text);
    context.output.raw().write_all(&text)?;
    Ok(ExitStatus::Success)
}
