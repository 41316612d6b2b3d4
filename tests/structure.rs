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

/// Imports whose removal leaves no circle. This list only becomes shorter: an entry that is in no circle is an error.
const KNOWN_CIRCULAR_IMPORTS: &[(&str, &str)] = &[
    ("client/get.rs", "client/mod.rs"),
    ("client/transport.rs", "client/mod.rs"),
    ("commands/completions.rs", "commands/mod.rs"),
    ("commands/copy.rs", "commands/mod.rs"),
    ("commands/digests.rs", "commands/mod.rs"),
    ("commands/export.rs", "commands/mod.rs"),
    ("commands/get.rs", "commands/mod.rs"),
    ("commands/has.rs", "commands/mod.rs"),
    ("commands/health.rs", "commands/mod.rs"),
    ("commands/import.rs", "commands/mod.rs"),
    ("commands/list.rs", "commands/mod.rs"),
    ("commands/man.rs", "commands/mod.rs"),
    ("commands/put.rs", "commands/mod.rs"),
    ("commands/rm.rs", "commands/mod.rs"),
    ("commands/serve.rs", "commands/mod.rs"),
    ("commands/stats.rs", "commands/mod.rs"),
    ("commands/token.rs", "commands/mod.rs"),
    ("commands/verify.rs", "commands/mod.rs"),
    ("config.rs", "config/file.rs"),
    ("server/access_log.rs", "server/mod.rs"),
    ("server/api.rs", "server/api/message.rs"),
    ("server/api/builtin.rs", "server/mod.rs"),
    ("server/api/http_types.rs", "server/mod.rs"),
    ("server/api/representation.rs", "server/mod.rs"),
    ("server/api/routes.rs", "server/mod.rs"),
    ("server/api/ui.rs", "server/mod.rs"),
    ("server/app.rs", "server/app/dispatch.rs"),
    ("server/app.rs", "server/app/open_store.rs"),
    ("server/app.rs", "server/app/request_log.rs"),
    ("server/app/request_log.rs", "server/mod.rs"),
    ("server/auth.rs", "server/token_file.rs"),
    ("server/engine.rs", "server/engine/codec.rs"),
    ("server/engine.rs", "server/mod.rs"),
    ("server/engine/pool.rs", "server/mod.rs"),
    ("server/http/connection.rs", "server/http/reactor.rs"),
    ("server/http/connection.rs", "server/http/request_loop.rs"),
    ("server/http/mod.rs", "server/mod.rs"),
    ("server/http/request.rs", "server/http/request/fields.rs"),
    ("server/http/socket.rs", "server/mod.rs"),
    ("server/http/stream.rs", "server/http/reactor.rs"),
    ("server/limits.rs", "server/http/mod.rs"),
    ("server/mod.rs", "server/http/tls.rs"),
    ("server/mod.rs", "server/listen.rs"),
    ("server/systemd.rs", "server/mod.rs"),
    ("server/token_file.rs", "server/mod.rs"),
    ("store/index/block.rs", "store/index/sled_store.rs"),
    ("store/index/panics.rs", "store/index/sled_store.rs"),
    ("store/index/sled_guard.rs", "store/index/sled_store.rs"),
    ("store/index/sled_store.rs", "store/index/value.rs"),
    ("store/index/write_buffer.rs", "store/index/mod.rs"),
    ("store/local/compaction.rs", "store/local/compaction/rewriter.rs"),
    ("store/local/compaction.rs", "store/local/mod.rs"),
    ("store/local/layout.rs", "store/local/mod.rs"),
    ("store/local/mod.rs", "store/local/verify.rs"),
    ("store/local/repair.rs", "store/local/mod.rs"),
    ("store/local/verify.rs", "store/local/verify/chunk.rs"),
    ("store/log/writer.rs", "store/log/mod.rs"),
    ("store/postgres/pool.rs", "store/postgres/mod.rs"),
    ("store/postgres/stats.rs", "store/postgres/mod.rs"),
    ("store/postgres/verify.rs", "store/postgres/mod.rs"),
];

/// Crates that one file hides from all others.
const CRATES_OF_ONE_FILE: &[(&str, &str)] = &[("sled", "store/index/sled_store.rs"), ("tiny_http", "server/engine.rs")];

#[test]
fn imports_form_no_circle() {
    let imports = SourceTree::read().imports();
    let known: BTreeSet<_> =
        KNOWN_CIRCULAR_IMPORTS.iter().map(|(from, to)| (from.to_string(), to.to_string())).collect();
    let all_circular = circular(&imports);
    let obsolete: Vec<_> = known.difference(&all_circular).collect();
    assert!(obsolete.is_empty(), "remove from KNOWN_CIRCULAR_IMPORTS: {obsolete:#?}");
    let new = circular(&imports.difference(&known).cloned().collect());
    let lines: String = new.iter().map(|(from, to)| format!("\n{from} -> {to}")).collect();
    assert!(new.is_empty(), "imports in circles:{lines}");
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
