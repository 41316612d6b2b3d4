//! The imports between the files of `src`: `use` declarations and qualified paths, with re-exports resolved. Tests and
//! code for fuzzing do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::common::non_empty_files;

/// Segments of a path, such as `crate`, `store`, `Backend`.
type Segments = Vec<String>;

/// Maximum number of re-exports that are followed from one path.
const MAX_REEXPORTS: usize = 8;

/// The production code of one file.
struct SourceFile {
    /// Path relative to `src`.
    name: String,
    /// Paths that the code uses.
    paths: Vec<Segments>,
    /// Paths that `pub use` makes available, by their names here.
    reexports: BTreeMap<String, Segments>,
}

/// All source files by the paths of their modules.
pub struct SourceTree(BTreeMap<Segments, SourceFile>);

impl SourceTree {
    /// Reads all files of `src` that are production code.
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = BTreeMap::new();
        for path in non_empty_files(&root).into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs")) {
            let relative = path.strip_prefix(&root).unwrap();
            let mut module: Segments =
                relative.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            let is_test = module.last().is_some_and(|name| name.ends_with("tests") || name == "testing");
            if is_test || module.last().is_some_and(|name| name == "fuzz") {
                continue;
            }
            if module.last().is_some_and(|name| ["mod", "lib"].contains(&name.as_str())) {
                module.pop();
            }
            files.insert(module, parse(relative.to_str().unwrap(), &fs::read_to_string(&path).unwrap()));
        }
        Self(files)
    }

    /// Returns the pairs of importing and imported file. The crate root does not count as an imported file.
    pub fn imports(&self) -> BTreeSet<(String, String)> {
        let mut imports = BTreeSet::new();
        for (module, file) in &self.0 {
            let imported = file.paths.iter().filter_map(|path| self.resolve(module, path, 0));
            for imported in imported.filter(|imported| imported != module && !imported.is_empty()) {
                imports.insert((file.name.clone(), self.0[&imported].name.clone()));
            }
        }
        imports
    }

    /// Returns the names of all files.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(|file| file.name.as_str())
    }

    /// Returns the files that name an item of the crate `name`.
    pub fn files_naming_crate(&self, name: &str) -> Vec<&str> {
        let names_it = |file: &&SourceFile| file.paths.iter().any(|path| path[0] == name);
        self.0.values().filter(names_it).map(|file| file.name.as_str()).collect()
    }

    /// Returns the module of the file that defines the item at `path`, as seen from `module`. Returns `None` if the
    /// item is not in this crate.
    fn resolve(&self, module: &[String], path: &[String], depth: usize) -> Option<Segments> {
        let mut base = module.to_vec();
        let mut rest = path;
        match path[0].as_str() {
            "crate" | "sha_api" => {
                base.clear();
                rest = &path[1..];
            }
            "self" | "super" => {
                while let Some("self" | "super") = rest.first().map(String::as_str) {
                    if rest[0] == "super" {
                        base.pop();
                    }
                    rest = &rest[1..];
                }
            }
            child => {
                base.push(child.to_owned());
                if !self.0.contains_key(&base) {
                    return None;
                }
                rest = &path[1..];
            }
        }
        while let Some((first, after)) = rest.split_first() {
            base.push(first.clone());
            if !self.0.contains_key(&base) {
                base.pop();
                break;
            }
            rest = after;
        }
        let reexport = rest.first().and_then(|name| self.0.get(&base)?.reexports.get(name));
        if let (Some(target), true) = (reexport, depth < MAX_REEXPORTS) {
            let target: Segments = target.iter().chain(&rest[1..]).cloned().collect();
            if let Some(resolved) = self.resolve(&base, &target, depth + 1) {
                return Some(resolved);
            }
        }
        self.0.contains_key(&base).then_some(base)
    }
}

fn parse(name: &str, text: &str) -> SourceFile {
    let tokens = without_test_items(&tokenize(text));
    let mut file = SourceFile { name: name.to_owned(), paths: Vec::new(), reexports: BTreeMap::new() };
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at] == "use" && tokens.get(at + 1).is_some_and(|next| next != "<") {
            let is_public = at > 0 && (tokens[at - 1] == "pub" || tokens[at - 1] == ")");
            let mut used = Vec::new();
            at = parse_use_tree(&tokens, at + 1, Vec::new(), &mut used);
            for (alias, path) in used {
                if is_public {
                    file.reexports.insert(alias, path.clone());
                }
                file.paths.push(path);
            }
        } else if tokens[at] == "in" && at >= 2 && tokens[at - 2] == "pub" {
            // The path of a visibility is not an import.
            at += tokens[at..].iter().take_while(|token| *token != ")").count();
        } else if is_identifier(&tokens[at]) && tokens.get(at + 1).is_some_and(|next| next == "::") {
            let mut path = vec![tokens[at].clone()];
            while tokens.get(at + 1).is_some_and(|next| next == "::")
                && tokens.get(at + 2).is_some_and(|next| is_identifier(next))
            {
                path.push(tokens[at + 2].clone());
                at += 2;
            }
            file.paths.push(path);
            at += 1;
        } else {
            at += 1;
        }
    }
    file
}

/// Adds each path of the `use` tree at `at`, with its name in this file, to `used`. Returns the index after the tree.
fn parse_use_tree(tokens: &[String], mut at: usize, mut path: Segments, used: &mut Vec<(String, Segments)>) -> usize {
    loop {
        if tokens[at] == "{" {
            at += 1;
            while tokens[at] != "}" {
                at = parse_use_tree(tokens, at, path.clone(), used);
                at += usize::from(tokens[at] == ",");
            }
            return at + 1;
        }
        path.push(tokens[at].clone());
        at += 1;
        match tokens[at].as_str() {
            "::" => at += 1,
            "as" => {
                used.push((tokens[at + 1].clone(), path));
                return at + 2;
            }
            _ => {
                used.push((path[path.len() - 1].clone(), path));
                return at;
            }
        }
    }
}

/// Removes items that exist only in tests, in documentation or for fuzzing.
fn without_test_items(tokens: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].starts_with(&["#", "[", "cfg", "("].map(str::to_owned)) {
            let end = at + tokens[at..].iter().position(|token| token == "]").unwrap();
            let has = |name: &str| tokens[at..end].iter().any(|token| token == name);
            if !has("not") && (has("test") || has("fuzzing") || has("doc")) {
                at = end_of_item(tokens, end + 1);
                continue;
            }
        }
        kept.push(tokens[at].clone());
        at += 1;
    }
    kept
}

/// Returns the index after the item at `at`, which ends with `;` or with the brace that closes its body.
fn end_of_item(tokens: &[String], at: usize) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token.as_str() {
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 && (token == ";" || token == "}") {
            return index + 1;
        }
    }
    tokens.len()
}

fn is_identifier(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Splits Rust source into identifiers, numbers, `::` and single characters. Comments and literals are left out.
fn tokenize(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(length) = literal_len(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// Returns the length of the string, character or lifetime at the beginning of `text`, or `None` if there is none.
fn literal_len(text: &str) -> Option<usize> {
    let prefix = ["br", "r", "b", "c", ""].iter().find(|prefix| {
        text.strip_prefix(**prefix)
            .is_some_and(|rest| rest.trim_start_matches('#').starts_with('"') || rest.starts_with('\''))
    })?;
    let rest = &text[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        let close = format!("\"{}", "#".repeat(hashes));
        let start = prefix.len() + hashes + 1;
        return Some(start + text[start..].find(&close)? + close.len());
    }
    let quote = rest.chars().next().filter(|first| *first != '#')?;
    let mut characters = rest.char_indices().skip(1);
    let second = characters.next()?;
    if quote == '\'' && second.1 != '\\' {
        // A character has its closing quote right after it; a lifetime has none.
        let closes = characters.next().is_some_and(|(_, third)| third == '\'');
        return Some(prefix.len() + 1 + if closes { second.1.len_utf8() + 1 } else { 0 });
    }
    let mut is_escaped = false;
    for (index, character) in rest.char_indices().skip(1) {
        if character == quote && !is_escaped {
            return Some(prefix.len() + index + 1);
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    None
}

#[test]
fn paths_are_found_in_use_trees_and_in_code_and_not_in_tests_and_literals() {
    let source = r##"
        //! use crate::comment;
        use super::{a::{self, B as C}, d};
        pub(crate) use e::F;
        #[cfg(test)]
        #[path = "x.rs"]
        mod tests;
        fn f<'a>(text: &'a str) -> crate::g::H { i::J::<u8>::new('"', '\'', "use crate::k; \" l::m", r#"n::o"#) }
        #[cfg(any(test, fuzzing))]
        mod fuzz { use crate::p; }
    "##;
    let file = parse("f.rs", source);
    let paths: Vec<_> = file.paths.iter().map(|path| path.join("::")).collect();
    assert_eq!(paths, ["super::a::self", "super::a::B", "super::d", "e::F", "crate::g::H", "i::J"]);
    assert_eq!(file.reexports.keys().collect::<Vec<_>>(), ["F"]);
}
