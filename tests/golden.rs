//! Formats do not change: the files in tests/golden are read, and written again byte for byte.

use std::path::{Path, PathBuf};

use sha_api::server::token_file::{self, TokenEntry};

use crate::common::server::Server;
use crate::common::{Digest, Sandbox};

fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden_text(name: &str) -> String {
    std::fs::read_to_string(golden_path(name)).unwrap()
}

#[test]
fn the_golden_export_is_imported_and_exported_unchanged() {
    for name in ["export.ndjson", "export.ndjson.zst"] {
        let sandbox = Sandbox::new();
        let imported = sandbox.sha_api(["import"]).arg(golden_path(name)).assert();
        imported.code(0).stdout("7 new, 0 already stored, 0 bad\n").stderr("");
        sandbox.sha_api(["export"]).assert().code(0).stdout(golden_text("export.ndjson")).stderr("");
    }
}

#[test]
fn the_golden_token_file_is_parsed_and_written_unchanged() {
    let text = golden_text("tokens");
    let entries = token_file::parse(&text, Path::new("tokens")).unwrap();
    let tokens = ["golden-reader", "golden-writer", "golden-admin"];
    let lines: String = entries
        .iter()
        .zip(tokens)
        .map(|(entry, token)| TokenEntry::format_entry(&entry.name, entry.scopes, Digest::compute(token.as_bytes())))
        .collect();
    assert_eq!(entries.len(), tokens.len());
    assert_eq!(text.split_once("\n\n").unwrap().1, lines);
}

#[test]
fn the_tokens_of_the_golden_token_file_are_accepted() {
    let file = golden_path("tokens");
    let server = Server::http(&["--token-file", file.to_str().unwrap()]);
    for (token, status) in [("golden-reader", 403), ("golden-writer", 403), ("golden-admin", 200), ("golden", 401)] {
        let request = format!("GET /messages HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
        assert_eq!(server.client().call(&request).status, status, "{token}");
    }
}
