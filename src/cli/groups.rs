//! The common options that each command uses. A command does not accept an option that has no effect on it.

/// Options that select the store or the server.
const LOCATION: &[&str] = &["store", "server"];
/// Options for opening a store. A compaction may run whenever a store is open, so `segment_size` belongs here.
const STORE: &[&str] = &["lock_timeout", "index_cache", "segment_size"];
/// Options for storing messages.
const WRITE: &[&str] = &["max_message", "compression"];
/// Options for connections to servers.
const CONNECTION: &[&str] = &["cacert", "cert", "key", "read_timeout", "ready_timeout"];
/// Options for connections to databases.
const DATABASE: &[&str] = &["db_pool_size", "db_connect_timeout", "db_statement_timeout"];
/// Options for results, errors and notes.
const OUTPUT: &[&str] = &["json", "quiet", "config"];

/// Common options of each command, by argument id.
const USES: [(&str, &[&[&str]]); 15] = [
    ("put", &[LOCATION, STORE, WRITE, CONNECTION, DATABASE, OUTPUT]),
    ("get", &[LOCATION, STORE, CONNECTION, DATABASE, OUTPUT]),
    ("has", &[LOCATION, STORE, CONNECTION, DATABASE, OUTPUT]),
    ("list", &[LOCATION, STORE, CONNECTION, DATABASE, OUTPUT]),
    ("rm", &[LOCATION, STORE, CONNECTION, DATABASE, OUTPUT]),
    ("stats", &[LOCATION, STORE, CONNECTION, DATABASE, OUTPUT]),
    // A repair stores messages.
    ("verify", &[LOCATION, STORE, WRITE, CONNECTION, DATABASE, OUTPUT]),
    ("export", &[LOCATION, STORE, CONNECTION, DATABASE, OUTPUT]),
    ("import", &[LOCATION, STORE, WRITE, CONNECTION, DATABASE, OUTPUT]),
    // The arguments of `copy` name both stores.
    ("copy", &[STORE, WRITE, CONNECTION, DATABASE, OUTPUT]),
    // With `--upstream`, the server is also a client.
    ("serve", &[&["store"], STORE, WRITE, CONNECTION, DATABASE, OUTPUT]),
    ("health", &[&["cacert"], OUTPUT]),
    ("token", &[OUTPUT]),
    ("man", &[OUTPUT]),
    ("completions", &[OUTPUT]),
];

/// Returns whether the common option `id` has no effect on `command`.
///
/// Returns `false` for an option that is not a common one, and for a command that does not exist.
pub fn is_unused(command: &str, id: &str) -> bool {
    let is_common = USES.iter().any(|(_, groups)| contains(groups, id));
    let groups = USES.iter().find_map(|(name, groups)| (*name == command).then_some(groups));
    is_common && groups.is_some_and(|groups| !contains(groups, id))
}

fn contains(groups: &[&[&str]], id: &str) -> bool {
    groups.iter().any(|group| group.contains(&id))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_table_names_every_command_and_every_common_option() {
        let command = crate::cli::Cli::command();
        let commands: BTreeSet<_> = command.get_subcommands().map(clap::Command::get_name).collect();
        assert_eq!(USES.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), commands);
        let common: BTreeSet<_> = command.get_arguments().map(|argument| argument.get_id().as_str()).collect();
        let used: BTreeSet<_> =
            USES.iter().flat_map(|(_, groups)| groups.iter()).flat_map(|group| group.iter().copied()).collect();
        assert_eq!(used, common);
    }

    #[test]
    fn an_option_is_unused_where_no_group_has_it() {
        assert!(is_unused("serve", "server"));
        assert!(is_unused("stats", "max_message"));
        assert!(!is_unused("copy", "lock_timeout"));
        assert!(!is_unused("serve", "listen"));
        assert!(!is_unused("help", "store"));
    }
}
