//! Candidates for values that clap cannot know. After an error there are no candidates, because a shell shows no errors
//! of a completer.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use clap_complete::engine::CompletionCandidate;

use crate::cli::Compression;
use crate::digest::{Digest, Prefix};
use crate::message_store::ListQuery;
use crate::server::Scopes;
use crate::{config, location};

/// Maximum number of digests that are offered.
const MAX_DIGESTS: usize = 64;
/// Minimum number of hex digits before digests are offered. Fewer would match a large part of the store.
const MIN_DIGITS: usize = 2;
/// Read timeout for the server of a store, if one is running.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the scopes that can follow the last comma of `current`.
pub fn scopes(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let (chosen, begun) = current.rsplit_once(',').map_or(("", current), |(chosen, begun)| (chosen, begun));
    let chosen: Vec<&str> = chosen.split(',').filter(|scope| !scope.is_empty()).collect();
    let all = Scopes::ALL.to_string();
    all.split(',')
        .filter(|scope| scope.starts_with(begun) && !chosen.contains(scope))
        .map(|scope| CompletionCandidate::new([chosen.as_slice(), &[scope]].concat().join(",")))
        .collect()
}

/// Returns the values of `--compression` that begin with `current`.
pub fn compression_levels(current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let levels = (1..=Compression::MAX_LEVEL).map(|level| level.to_string());
    let all = std::iter::once("none".to_owned()).chain(levels);
    all.filter(|value| value.starts_with(&*current)).map(CompletionCandidate::new).collect()
}

/// Returns the digests in the local store of the unfinished command line that begin with `current`.
pub fn digests(current: &OsStr) -> Vec<CompletionCandidate> {
    let prefix = current.to_str().filter(|text| text.len() >= MIN_DIGITS).and_then(|text| text.parse().ok());
    let Some(prefix) = prefix else { return Vec::new() };
    let found = discard_output(|| list_digests(prefix, current)).ok().flatten().unwrap_or_default();
    found.into_iter().map(|digest| CompletionCandidate::new(digest.to_string())).collect()
}

fn list_digests(prefix: Prefix, current: &OsStr) -> Option<Vec<Digest>> {
    let mut global = config::parse_unfinished(&command_line(current))?;
    global.store.lock_timeout = Duration::ZERO.into();
    global.connection.ready_timeout = Duration::ZERO.into();
    global.connection.read_timeout = READ_TIMEOUT.into();
    if !global.connection.servers.is_empty() || location::directory(&global).ok()?.is_none() {
        return None;
    }
    let messages = location::open(&global, false, &(Arc::new(|_| ()) as _)).ok()?;
    let entries = messages.list(&ListQuery { prefix, after: None, limit: MAX_DIGESTS }).ok()?;
    Some(entries.into_iter().map(|entry| entry.digest).collect())
}

/// Returns the command line that the shell completes. A complete digest replaces `current`, because clap rejects an
/// incomplete one.
fn command_line(current: &OsStr) -> Vec<OsString> {
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    let digest = Digest::from_bytes([0; 32]).to_string();
    words.map(|word| if word == current { OsString::from(&digest) } else { word }).collect()
}

/// Runs `work` with stdout and stderr redirected to /dev/null. sled prints to both if its files are damaged.
fn discard_output<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    let (stdout, stderr) = (rustix::io::dup(io::stdout())?, rustix::io::dup(io::stderr())?);
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    let result = work();
    rustix::stdio::dup2_stdout(&stdout)?;
    rustix::stdio::dup2_stderr(&stderr)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(candidates: Vec<CompletionCandidate>) -> Vec<String> {
        candidates.into_iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn scopes_follow_those_that_are_chosen() {
        assert_eq!(values(scopes("".as_ref())), ["read", "write", "list", "rm"]);
        assert_eq!(values(scopes("r".as_ref())), ["read", "rm"]);
        assert_eq!(values(scopes("read,".as_ref())), ["read,write", "read,list", "read,rm"]);
        assert_eq!(values(scopes("read,write,l".as_ref())), ["read,write,list"]);
        assert_eq!(values(scopes("x".as_ref())), Vec::<String>::new());
    }

    #[test]
    fn compression_levels_are_those_that_are_accepted() {
        let all = values(compression_levels("".as_ref()));
        assert_eq!(all.len(), 20);
        assert!(all.iter().all(|value| value.parse::<Compression>().is_ok()));
        assert_eq!(values(compression_levels("n".as_ref())), ["none"]);
    }

    #[test]
    fn digests_need_a_prefix_of_two_hex_digits() {
        assert_eq!(values(digests("2".as_ref())), Vec::<String>::new());
        assert_eq!(values(digests("xy".as_ref())), Vec::<String>::new());
    }
}
