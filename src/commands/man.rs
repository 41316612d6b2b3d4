//! `man`: the manual, from the command line's own types.

use std::io::{Write, stdout};

use anyhow::Context as _;

use super::Outcome;
use crate::{cli, config};

/// Prints the main page, or writes all pages into a directory.
pub fn run(man: &cli::Man) -> anyhow::Result<Outcome> {
    let command = config::command();
    match &man.dir {
        Some(dir) => {
            clap_mangen::generate_to(command, dir).with_context(|| format!("cannot write to {}", dir.display()))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            stdout().write_all(&page)?;
        }
    }
    Ok(Outcome::Done)
}
