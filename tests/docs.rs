//! What is written about the program is what the program does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::Sandbox;

fn repository_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read_file(path: impl AsRef<Path>) -> String {
    let path = repository_root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn file_names(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn manual_pages_match_the_program() {
    let sandbox = Sandbox::new();
    sandbox.sha_api(["man", "--dir"]).arg(sandbox.dir()).assert().code(0).stderr("");
    assert_eq!(file_names(&repository_root().join("man")), file_names(sandbox.dir()));
    for name in file_names(sandbox.dir()) {
        let made = std::fs::read_to_string(sandbox.dir().join(&name)).unwrap();
        assert!(read_file(format!("man/{name}")) == made, "man/{name} differs; `make man` makes it anew");
    }
    let page = sandbox.sha_api(["man"]).assert().code(0).get_output().stdout.clone();
    assert!(read_file("man/sha-api.1").as_bytes() == page);
}

#[test]
fn completions_match_the_program() {
    let shells = [("bash", "sha-api.bash"), ("zsh", "_sha-api"), ("fish", "sha-api.fish")];
    assert_eq!(
        file_names(&repository_root().join("completions")),
        shells.iter().map(|(_, name)| (*name).to_owned()).collect()
    );
    for (shell, name) in shells {
        let made = Sandbox::new().sha_api(["completions", shell]).assert().code(0).get_output().stdout.clone();
        assert!(
            read_file(format!("completions/{name}")).as_bytes() == made,
            "{name} differs; `make completions` makes it anew"
        );
    }
}

/// The words of a text that look like long flags.
fn find_flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words
        .filter(|word| word.len() > 3 && word.starts_with("--") && !word[2..].starts_with('-'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_readme_names_exactly_the_flags_of_the_program() {
    let command = sha_api::config::command();
    let commands = std::iter::once(&command).chain(command.get_subcommands());
    let arguments = commands.flat_map(clap::Command::get_arguments).filter_map(|argument| argument.get_long());
    let known: BTreeSet<_> =
        arguments.filter(|long| !["help", "version"].contains(long)).map(|long| format!("--{long}")).collect();
    let readme = read_file("README.md");
    // Blocks of commands also hold the flags of other programs; those are run by the test below.
    let prose: String = readme.split("```").step_by(2).collect();
    let named = find_flags(&prose);
    assert_eq!(named.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "in README.md, but no flag");
    assert_eq!(known.difference(&named).collect::<Vec<_>>(), Vec::<&String>::new(), "a flag, but not in README.md");
}

#[test]
fn the_readme_names_every_command() {
    let readme = read_file("README.md");
    for command in sha_api::config::command().get_subcommands() {
        assert!(readme.contains(&format!("`sha-api {}", command.get_name())), "{}", command.get_name());
    }
}

#[test]
fn the_examples_of_the_readme_print_the_shown_output() {
    let readme = read_file("README.md");
    let blocks: Vec<_> = readme.split("```console\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert!(blocks.len() >= 2);
    let sandbox = Sandbox::new();
    for block in blocks {
        for example in block.split("$ ").skip(1) {
            let (script, expected) = example.split_once('\n').unwrap();
            let output = sandbox.run_shell(&format!("set +e; {{ {script}\n}} 2>&1"));
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "$ {script}");
        }
    }
}
