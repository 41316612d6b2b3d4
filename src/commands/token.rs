//! `token`: creates an access token. Its entry in the token file is durable before the token is printed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::context::Context;
use super::exit_status::{ExitStatus, UsageError};
use crate::cli;
use crate::digest::Digest;
use crate::fs;
use crate::random;
use crate::server::token_file::{self, TokenEntry};

#[derive(Serialize)]
struct CreatedToken<'a> {
    name: &'a str,
    token: &'a str,
}

/// Creates a token, appends its entry to the token file, and prints it.
pub fn run(context: &mut Context, token: &cli::Token) -> anyhow::Result<ExitStatus> {
    let name = &token.name;
    if name.is_empty() || name.starts_with('#') || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        let reason = "use printable ASCII without spaces, and no # at the beginning";
        return Err(UsageError(format!("invalid token name `{name}`: {reason}")).into());
    }
    let path = &token.token_file;
    let file = open_locked(path).with_context(|| path.display().to_string())?;
    let mut entries = String::new();
    (&file).read_to_string(&mut entries).with_context(|| path.display().to_string())?;
    if token_file::parse(&entries, path)?.iter().any(|entry| entry.name == *name) {
        return Err(UsageError(format!("{}: duplicate name `{name}`", path.display())).into());
    }
    let secret = BASE64_URL_SAFE_NO_PAD.encode(random::bytes::<32>()?);
    let line = TokenEntry::format_entry(name, token.scope, Digest::compute(secret.as_bytes()));
    let newline = if entries.is_empty() || entries.ends_with('\n') { "" } else { "\n" };
    append_line(&file, &[newline, &line].concat(), path).with_context(|| path.display().to_string())?;
    context.output.print_line(secret.as_bytes(), &CreatedToken { name, token: &secret })?;
    Ok(ExitStatus::Success)
}

/// Opens or creates the file and locks it until it is closed.
fn open_locked(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Appends a line with a single write, so that a server never reads a part of it. Syncs the file and its directory.
fn append_line(mut file: &File, text: &str, path: &Path) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::sync_dir(fs::parent_dir(path))
}
