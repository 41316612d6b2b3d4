//! The completion scripts in `completions/`, run by the shells themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::common::server::Server;
use crate::common::{FOO, Sandbox, has_tool};

/// Calls the registered function as bash does when Tab is pressed at the end of the words, and prints the candidates.
const BASH: &str = r#"
source "$SCRIPTS/sha-api.bash"
complete_words() {
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    COMP_TYPE=9
    COMPREPLY=()
    _clap_complete_sha_api sha-api "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    if ((${#COMPREPLY[@]})); then
        printf '%s\n' "${COMPREPLY[@]}"
    fi
}
"#;

/// Types each argument in an interactive zsh, presses Tab, and prints the argument and the matches in one line.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty shell 'TERM=dumb zsh -f -i'
zpty -w shell "
PS1= RPS1= LISTMAX=10000
stty rows 500 columns 200
fpath=(${(q)SCRIPTS} \$fpath)
autoload -Uz compinit
compinit -D -u
compadd() {
    local -a found
    builtin compadd -A found \"\$@\"
    print -rl -- \$found >> matches
    builtin compadd \"\$@\"
}
finish() {
    comppostfuncs=(finish)
    print -r -- completion-\$((1))-finished
}
comppostfuncs=(finish)
print -r -- setup-\$((1))-finished
"
zpty -r shell text '*setup-1-finished*'
for line in "$@"; do
    : > matches
    zpty -w -n shell "$line"$'\t'
    zpty -r shell text '*completion-1-finished*'
    typeset -aU found=(${(f)"$(<matches)"})
    print -r -- "$line: $found"
    zpty -w -n shell $'\x15'
done
zpty -d shell
"#;

/// Returns the stdout of a script of bash. Nothing may appear on stderr.
fn run(sandbox: &Sandbox, script: &str) -> String {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions");
    let output = sandbox.run_shell(&format!("export SCRIPTS='{}'\n{script}", scripts.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success() && output.stderr.is_empty(), "{script}\n{}", text(&output.stderr));
    text(&output.stdout)
}

/// Returns the candidates that bash gets for the last of `words`, which are quoted for a shell.
fn bash(sandbox: &Sandbox, words: &str) -> Vec<String> {
    run(sandbox, &format!("{BASH}\ncomplete_words {words}")).lines().map(str::to_owned).collect()
}

/// Returns the candidates that zsh gets at the end of each line.
fn zsh(sandbox: &Sandbox, lines: &[String]) -> Vec<String> {
    let driver = sandbox.write_file("driver.zsh", ZSH.as_bytes());
    let lines: Vec<_> = lines.iter().map(|line| format!("'{line}'")).collect();
    let output = run(sandbox, &format!("timeout 60 zsh -f '{}' {}", driver.display(), lines.join(" ")));
    output.lines().map(str::to_owned).collect()
}

/// Returns the candidates that fish gets at the end of `line`, without their descriptions.
fn fish(sandbox: &Sandbox, line: &str) -> Vec<String> {
    let output = run(sandbox, &format!("fish --no-config -c 'source $SCRIPTS/sha-api.fish; complete -C \"{line}\"'"));
    output.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

/// Returns the long options that each command accepts.
fn options() -> BTreeMap<String, BTreeSet<String>> {
    let mut command = sha_api::config::command();
    command.build();
    let options = |command: &clap::Command| {
        let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
        shown.filter_map(|argument| argument.get_long()).map(|long| format!("--{long}")).collect()
    };
    let commands = command.get_subcommands().filter(|command| command.get_name() != "help");
    commands.map(|command| (command.get_name().to_owned(), options(command))).collect()
}

fn set(words: impl IntoIterator<Item = impl Into<String>>) -> BTreeSet<String> {
    words.into_iter().map(Into::into).collect()
}

#[test]
fn bash_offers_the_options_of_each_command_and_no_other() {
    let sandbox = Sandbox::new();
    let options = options();
    assert!(options["serve"].contains("--listen") && !options["serve"].contains("--server"));
    let names: Vec<_> = options.keys().map(String::as_str).collect();
    let script =
        format!("for name in {}; do echo \"$name:\" $(complete_words sha-api $name --); done", names.join(" "));
    let offered = run(&sandbox, &format!("{BASH}\n{script}"));
    assert_eq!(offered.lines().count(), options.len());
    for line in offered.lines() {
        let (name, words) = line.split_once(':').unwrap();
        assert_eq!(set(words.split_whitespace()), options[name], "{name}");
    }
    assert_eq!(bash(&sandbox, "sha-api serve --ser"), Vec::<String>::new());
}

#[test]
fn bash_offers_commands_and_values() {
    let sandbox = Sandbox::new();
    sandbox.write_file("message.txt", b"");
    std::fs::create_dir(sandbox.dir().join("directory")).unwrap();
    for (words, expected) in [
        ("sha-api st", &["stats"][..]),
        ("sha-api --json li", &["list"]),
        ("sha-api completions ''", &["bash", "zsh", "fish"]),
        ("sha-api serve --access-log-format ''", &["combined", "json"]),
        ("sha-api serve --access-log-format=j", &["--access-log-format=json"]),
        ("sha-api put --compression 1", &["1", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19"]),
        ("sha-api token backup --scope ''", &["read", "write", "list", "rm"]),
        ("sha-api token backup --scope read,l", &["read,list"]),
        ("sha-api put --file m", &["message.txt"]),
        ("sha-api copy d", &["directory/"]),
        ("sha-api list --store m", &[]),
        ("sha-api stats --store d", &["directory/"]),
    ] {
        let offered = bash(&sandbox, words);
        let is_value = |word: &&String| !word.starts_with("--") || word.contains('=');
        assert_eq!(offered.iter().filter(is_value).collect::<Vec<_>>(), expected, "{words}");
    }
}

#[test]
fn bash_offers_the_digests_of_the_store() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    for words in ["get 2c", "get 2c26b46b68ffc6", "get FOO 2c", "has 2c", "rm 2c", "list --after 2c", "--json get 2c"] {
        assert_eq!(bash(&sandbox, &format!("sha-api {words}")), [FOO], "{words}");
    }
    let other = Sandbox::with_messages(&[b"foo"]);
    let words = format!("sha-api get --store '{}' 2c", other.store().display());
    assert_eq!(bash(&Sandbox::new(), &words), [FOO]);
    for words in ["get 2", "get 2d", "get xy", "list --prefix 2c"] {
        assert_eq!(bash(&sandbox, &format!("sha-api {words}")).len(), 0, "{words}");
    }
    let many: Vec<_> = (0..20_000_u32).map(|number| number.to_string()).collect();
    let input = many.iter().map(|number| format!("{number}\n")).collect::<String>();
    sandbox.sha_api(["put", "--lines"]).write_stdin(input).assert().code(0);
    assert_eq!(bash(&sandbox, "sha-api get 2c").len(), 64);
}

#[test]
fn digests_are_offered_from_the_local_store_only_and_nothing_is_created() {
    let sandbox = Sandbox::new();
    assert_eq!(bash(&sandbox, "sha-api get 2c").len(), 0);
    assert!(!sandbox.store().exists());
    sandbox.put_all(&[b"foo"]);
    assert_eq!(bash(&sandbox, "sha-api --server http://127.0.0.1:1 get 2c").len(), 0);
    assert_eq!(bash(&sandbox, "sha-api --store postgres://127.0.0.1:1/a get 2c").len(), 0);
    let mut put = sandbox.spawn_put_holding_lock("bar");
    assert_eq!(bash(&sandbox, "sha-api get 2c").len(), 0, "another process has locked the store");
    assert!(put.wait().unwrap().success());
    assert_eq!(bash(&sandbox, "sha-api get 2c"), [FOO]);
}

#[test]
fn digests_are_offered_from_a_served_store() {
    let server = Server::start(Sandbox::with_messages(&[b"foo"]), &["--http"]);
    assert_eq!(bash(&server.sandbox, "sha-api get 2c"), [FOO]);
}

#[test]
fn zsh_offers_options_and_values_at_the_first_tab() {
    if !has_tool("zsh") {
        return;
    }
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let options = options();
    let names: Vec<_> = options.keys().collect();
    let mut lines: Vec<_> = names.iter().map(|name| format!("sha-api {name} --")).collect();
    lines.extend(["sha-api sta", "sha-api get 2c", "sha-api token backup --scope read,"].map(str::to_owned));
    let offered = zsh(&sandbox, &lines);
    for (name, line) in names.iter().zip(&offered) {
        let words = line.strip_prefix(&format!("sha-api {name} --: ")).unwrap();
        assert_eq!(set(words.split_whitespace()), options[*name], "{name}");
    }
    let values: Vec<_> = offered[names.len()..].iter().map(|line| line.split_once(": ").unwrap().1).collect();
    assert_eq!(values, ["stats", FOO, "read,write read,list read,rm"]);
}

#[test]
fn fish_offers_options_and_values() {
    if !has_tool("fish") {
        return;
    }
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    for (name, options) in options() {
        assert_eq!(set(fish(&sandbox, &format!("sha-api {name} --"))), options, "{name}");
    }
    assert_eq!(fish(&sandbox, "sha-api sta"), ["stats"]);
    assert_eq!(fish(&sandbox, "sha-api get 2c"), [FOO]);
    assert_eq!(set(fish(&sandbox, "sha-api completions ")).iter().filter(|word| !word.starts_with("--")).count(), 3);
}
