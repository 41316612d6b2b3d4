//! `man`: the manual pages, generated from the command line and from `cli::reference`.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;
use clap::Command;
use clap::builder::Resettable;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::context::Context;
use super::exit_status::ExitStatus;
use crate::cli::reference::{ENVIRONMENT, EXAMPLES, EXIT_STATUS, FILES};
use crate::{cli, config};

/// Prints the main page, or writes all pages into a directory.
pub fn run(context: &mut Context, man: &cli::Man) -> anyhow::Result<ExitStatus> {
    // `sha-api help put` prints what the page of `put` has, so `help` needs no page.
    let mut command = config::command().disable_help_subcommand(true);
    command.build();
    match &man.dir {
        Some(dir) => write_pages(&command, dir).with_context(|| format!("cannot write to {}", dir.display()))?,
        None => context.output.raw().write_all(&main_page(&command)?)?,
    }
    Ok(ExitStatus::Success)
}

fn write_pages(command: &Command, dir: &Path) -> io::Result<()> {
    std::fs::write(dir.join("sha-api.1"), main_page(command)?)?;
    for subcommand in command.get_subcommands() {
        let man = Man::new(subcommand.clone());
        let mut page = Vec::new();
        man.render(&mut page)?;
        let mut see_also = Roff::new();
        see_also.control("SH", ["SEE ALSO"]);
        see_also.text([bold("sha-api"), roman("(1) for the exit status, the environment and the files")]);
        page.write_all(see_also.to_roff().as_bytes())?;
        std::fs::write(dir.join(man.get_filename()), page)?;
    }
    Ok(())
}

fn main_page(command: &Command) -> io::Result<Vec<u8>> {
    let source = format!("sha-api {}", env!("CARGO_PKG_VERSION"));
    // clap_mangen would run the text below the options together into one paragraph.
    let options = command.clone().version(Resettable::Reset);
    let options = options.after_help(Resettable::Reset).after_long_help(Resettable::Reset);
    let mut page = Vec::new();
    Man::new(options).source(source).render(&mut page)?;
    let mut sections = Roff::new();
    for section in [EXIT_STATUS, ENVIRONMENT, FILES, EXAMPLES] {
        sections.control("SH", [section.heading.to_uppercase().as_str()]);
        for (term, meaning) in section.entries {
            sections.control("TP", []).text([bold(*term)]).text([roman(*meaning)]);
        }
    }
    page.write_all(sections.to_roff().as_bytes())?;
    Ok(page)
}
