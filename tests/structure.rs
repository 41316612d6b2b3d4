//! The structure of `src`, as docs/design.md describes it: imports point down and form no circle, and each storage and
//! HTTP engine is named in one file.

mod imports;

use std::collections::{BTreeMap, BTreeSet};

use imports::SourceTree;

/// Layers from the top to the bottom: files and folders of `src`. A layer imports from the layers below it only, and
/// the entries of one layer do not import each other.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["commands"],
    &["location"],
    &["config"],
    &["cli"],
    &["client", "server"],
    &["store"],
    &["pem"],
    &["message_store"],
    &["json_message"],
    &["digest", "fs", "postgres_url", "random", "sandbox", "unix_path"],
];

/// Crates that one file hides from all others.
const CRATES_OF_ONE_FILE: &[(&str, &str)] = &[("sled", "store/index/sled_store.rs"), ("tiny_http", "server/engine.rs")];

#[test]
fn imports_form_no_circle() {
    let circular = circular(&SourceTree::read().imports());
    let lines: String = circular.iter().map(|(from, to)| format!("\n{from} -> {to}")).collect();
    assert!(circular.is_empty(), "imports in circles:{lines}");
}

/// Returns the imports that are part of a circle.
fn circular(imports: &BTreeSet<(String, String)>) -> BTreeSet<(String, String)> {
    let mut targets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in imports {
        targets.entry(from).or_default().push(to);
    }
    let is_reachable = |from: &str, to: &str| {
        let (mut seen, mut pending) = (BTreeSet::from([from]), vec![from]);
        while let Some(next) = pending.pop() {
            let new = targets.get(next).into_iter().flatten().filter(|target| seen.insert(**target));
            pending.extend(new.copied().collect::<Vec<_>>());
        }
        seen.contains(to)
    };
    imports.iter().filter(|(from, to)| is_reachable(to, from)).cloned().collect()
}

/// Returns the top-level file or folder of `src` that contains `file`.
fn top_level(file: &str) -> &str {
    let first = file.split('/').next().unwrap();
    first.strip_suffix(".rs").unwrap_or(first)
}

#[test]
fn imports_point_down() {
    let tree = SourceTree::read();
    let layer = |file: &str| LAYERS.iter().position(|layer| layer.contains(&top_level(file)));
    let unknown: BTreeSet<_> = tree.file_names().filter(|file| layer(file).is_none() && *file != "lib.rs").collect();
    assert!(unknown.is_empty(), "add to LAYERS: {unknown:?}");
    let points_down = |from: &str, to: &str| top_level(from) == top_level(to) || layer(from) < layer(to);
    let wrong: Vec<_> = tree.imports().into_iter().filter(|(from, to)| !points_down(from, to)).collect();
    assert!(wrong.is_empty(), "imports that do not point down: {wrong:#?}");
}

#[test]
fn each_engine_is_named_in_one_file() {
    let tree = SourceTree::read();
    for (name, file) in CRATES_OF_ONE_FILE {
        assert_eq!(tree.files_naming_crate(name), [*file], "{name}");
    }
}

#[test]
fn circular_imports_are_found() {
    let imports = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "a")];
    let imports = imports.map(|(from, to)| (from.to_owned(), to.to_owned())).into();
    let found: Vec<_> = circular(&imports).into_iter().map(|(from, to)| from + &to).collect();
    assert_eq!(found, ["ab", "bc", "ca"]);
}
