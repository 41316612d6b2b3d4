//! `export`, `import` and `copy` transfer messages between stores without changing a byte.

use std::fs;

use predicates::prelude::*;

use crate::common::{FOO, Random, Sandbox, digest, has_tool, pseudorandom_bytes};

/// Returns `count` text and binary messages, an empty message and a message of 8 MiB.
fn mixed_messages(count: u64) -> Vec<Vec<u8>> {
    let mut random = Random(7);
    let mut messages: Vec<_> = (0..count)
        .map(|number| match number % 3 {
            0 => pseudorandom_bytes(usize::try_from(random.below(300)).unwrap(), number + 1),
            1 => format!("line {number}\n\t\"quoted\" \\ \u{1F980}\0").into_bytes(),
            _ => number.to_string().into_bytes(),
        })
        .collect();
    messages.extend([Vec::new(), pseudorandom_bytes(8 << 20, 5), b"\xff".to_vec()]);
    messages
}

/// Creates a store that holds `messages`. A message without NUL is put with `--null`, another message without newline
/// with `--lines`, and the others as files.
fn store_with(messages: &[Vec<u8>]) -> Sandbox {
    let sandbox = Sandbox::new();
    let (without_nul, with_nul): (Vec<_>, Vec<_>) = messages.iter().partition(|message| !message.contains(&0));
    sandbox
        .sha_api(["put", "--null"])
        .write_stdin(without_nul.iter().flat_map(|message| [message, b"\0".as_slice()].concat()).collect::<Vec<_>>())
        .assert()
        .success();
    let (lines, files): (Vec<_>, Vec<_>) = with_nul.into_iter().partition(|message| !message.contains(&b'\n'));
    sandbox
        .sha_api(["put", "--lines"])
        .write_stdin(lines.iter().flat_map(|message| [message, b"\n".as_slice()].concat()).collect::<Vec<_>>())
        .assert()
        .success();
    fs::create_dir(sandbox.dir().join("files")).unwrap();
    for (number, message) in files.iter().enumerate() {
        sandbox.write_file(&format!("files/{number}"), message);
    }
    assert!(sandbox.run_shell("find files -type f -exec sha-api put --file {} +").status.success());
    sandbox
}

/// Returns the digests of all messages in `store`, followed by a checksum of the messages.
fn digests_and_checksum(sandbox: &Sandbox, store: &str) -> Vec<u8> {
    let output = sandbox.run_shell(&format!(
        "sha-api --store {store} list | tee digests; sha-api --store {store} get - < digests | sha256sum"
    ));
    assert!(output.status.success());
    output.stdout
}

#[test]
fn a_hundred_thousand_mixed_messages_round_trip_unchanged() {
    let messages = mixed_messages(100_000);
    let sandbox = store_with(&messages);
    let before = digests_and_checksum(&sandbox, "store");
    for name in ["plain", "packed.zst"] {
        let output = sandbox.run_shell(&format!("sha-api export {name}; sha-api --store from-{name} import {name}"));
        let count = before.split(|byte| *byte == b'\n').count() - 2;
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{count} new, 0 already stored, 0 bad\n"));
        assert!(digests_and_checksum(&sandbox, &format!("from-{name}")) == before);
    }
    // A second export is identical, and a second import finds no new message.
    let output = sandbox.run_shell("sha-api export | cmp - plain; sha-api --store from-plain import < packed.zst");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("0 new, "), "{output:?}");
    let copied = sandbox.run_shell("sha-api copy store copied > first; sha-api copy store copied");
    assert!(String::from_utf8_lossy(&copied.stdout).starts_with("0 copied, 0 bytes; "), "{copied:?}");
    assert!(digests_and_checksum(&sandbox, "copied") == before);
}

#[test]
fn an_export_is_ndjson_in_digest_order() {
    let sandbox = Sandbox::with_messages(&[b"foo", b"\xff"]);
    let lines = format!(
        "{{\"digest\":\"{FOO}\",\"message\":\"foo\"}}\n{{\"digest\":\"{}\",\"base64\":\"/w==\"}}\n",
        digest(b"\xff")
    );
    sandbox.sha_api(["export"]).assert().code(0).stdout(lines).stderr("");
}

#[test]
fn corrupt_messages_are_reported_and_the_others_exported() {
    let sandbox = Sandbox::with_messages(&[b"some message", b"another"]);
    sandbox.flip_message_bit(b"some message");
    let line = format!("{{\"digest\":\"{}\",\"message\":\"another\"}}\n", digest(b"another"));
    let warning = predicate::str::contains(format!("{} is corrupt", digest(b"some message")));
    sandbox.sha_api(["export", "file"]).current_dir(sandbox.dir()).assert().code(4).stdout("").stderr(warning.clone());
    assert_eq!(fs::read_to_string(sandbox.dir().join("file")).unwrap(), line);
    let (store, copy) = (sandbox.store(), sandbox.dir().join("copy"));
    let copied = sandbox.sha_api(["copy".as_ref(), store.as_os_str(), copy.as_os_str()]).assert();
    copied.code(4).stdout("1 copied, 7 bytes; 0 already stored\n").stderr(warning);
}

#[test]
fn an_import_reports_bad_lines_and_continues_unless_strict() {
    let bar = digest(b"bar");
    let lines = format!(
        "{{\"digest\": \"{}\", \"message\": \"foo\"}}\nno json\n{{\"digest\": \"{bar}\", \"message\": \"baz\"}}\n\
         {{\"message\": \"bar\"}}\n{{\"digest\": \"{bar}\", \"base64\": \"YmFy\"}}\n",
        FOO.to_uppercase()
    );
    let sandbox = Sandbox::new();
    let warnings = predicate::str::contains("line 2: expected")
        .and(predicate::str::contains(format!("line 3: the message does not hash to {bar}, but to {}", digest(b"baz"))))
        .and(predicate::str::contains("line 4: missing field `digest`"));
    sandbox
        .sha_api(["import"])
        .write_stdin(lines.clone())
        .assert()
        .code(4)
        .stdout("2 new, 0 already stored, 3 bad\n")
        .stderr(warnings);
    sandbox.sha_api(["has", FOO, &bar]).assert().code(0);
    let sandbox = Sandbox::new();
    let strict = sandbox.sha_api(["import", "--strict"]).write_stdin(lines).assert();
    strict
        .code(3)
        .stdout("1 new, 0 already stored, 1 bad\n")
        .stderr(predicate::str::starts_with("sha-api: line 2: expected"));
    sandbox.sha_api(["has", FOO]).assert().code(0);
    sandbox.sha_api(["has", &bar]).assert().code(1);
}

#[test]
fn an_empty_import_creates_an_empty_store() {
    let sandbox = Sandbox::new();
    sandbox.sha_api(["import"]).write_stdin("").assert().code(0).stdout("0 new, 0 already stored, 0 bad\n").stderr("");
    sandbox.sha_api(["export"]).assert().code(0).stdout("").stderr("");
}

#[test]
fn an_ancestor_table_is_imported_through_a_pipe() {
    if !has_tool("sqlite3") {
        return;
    }
    let sandbox = Sandbox::new();
    let rows: String = ["foo", "it''s", "two\nlines", "\u{fc}ber"]
        .iter()
        .map(|text| {
            format!(
                "INSERT INTO sha_api VALUES ('{}', '{text}');",
                digest(text.replace("''", "'").as_bytes()).to_uppercase()
            )
        })
        .collect();
    sandbox.write_file(
        "rows.sql",
        format!("CREATE TABLE sha_api (digest TEXT PRIMARY KEY, message TEXT);{rows}").as_bytes(),
    );
    let guide = include_str!("../docs/cli.md");
    let recipe = guide.lines().find(|line| line.starts_with("sqlite3 ")).expect("docs/cli.md has the recipe");
    let output = sandbox.run_shell(&format!("sqlite3 ancestor.db < rows.sql; {recipe}"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "4 new, 0 already stored, 0 bad\n", "{output:?}");
    sandbox.sha_api(["get", &digest(b"two\nlines")]).assert().code(0).stdout("two\nlines");
}

#[test]
fn a_copy_transfers_only_missing_messages_and_removes_none() {
    let sandbox = Sandbox::with_messages(&[b"foo", b"bar"]);
    let copy = sandbox.dir().join("copy");
    sandbox.sha_api(["put", "--store", copy.to_str().unwrap(), "mine"]).assert().code(0);
    sandbox.sha_api(["put", "--store", copy.to_str().unwrap(), "foo"]).assert().code(0);
    let store = sandbox.store();
    let copied = sandbox.sha_api(["copy".as_ref(), store.as_os_str(), copy.as_os_str()]).assert();
    copied.code(0).stdout("1 copied, 3 bytes; 1 already stored\n").stderr("");
    for message in ["foo", "bar", "mine"] {
        let got = sandbox.sha_api(["get", "--store", copy.to_str().unwrap(), &digest(message.as_bytes())]).assert();
        got.code(0).stdout(message);
    }
}

#[test]
fn a_copy_from_a_missing_store_fails_and_creates_none() {
    let sandbox = Sandbox::new();
    let error = predicate::str::contains("cannot open the store nowhere: directory not found");
    sandbox.sha_api(["copy", "nowhere", "copy"]).current_dir(sandbox.dir()).assert().code(3).stdout("").stderr(error);
    assert!(!sandbox.dir().join("copy").exists());
}
