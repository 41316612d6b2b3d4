//! `man`: the manual, from the command line's own types.

use anyhow::Context as _;

use super::{Context, ExitStatus};
use crate::{cli, config};

/// Prints the main page, or writes all pages into a directory.
pub fn run(context: &mut Context, man: &cli::Man) -> anyhow::Result<ExitStatus> {
    // `sha-api help put` prints what the page of `put` says; it needs none of its own.
    let command = config::command().disable_help_subcommand(true);
    match &man.dir {
        Some(dir) => {
            clap_mangen::generate_to(command, dir).with_context(|| format!("cannot write to {}", dir.display()))?;
        }
        None => {
            clap_mangen::Man::new(command).render(&mut context.output.raw())?;
        }
    }
    Ok(ExitStatus::Success)
}
